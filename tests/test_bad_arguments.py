"""Arguments of another kind than asked for: refused in the project's form, by the caller's name."""

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from marketplace.callbacks import Callback, CSVLogger, Watch
from marketplace.training import allocate_vendors
from markets import MLP, MLP_SHAPE, batch, build, optimizer, same_bits
from refusals import VENDORS, Trained, refusal

F = mp.functional


@pytest.fixture
def mlp():
    trained = Trained(MLP, MLP_SHAPE)
    yield trained
    trained.assert_unchanged()


def make(**options):
    return mp.Optimizer(build(MLP, VENDORS).specs, **({"learning_rate": 0.1} | options))


# -- an optimizer's options ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float32"), "float32", "<f4"])
def test_dtype_as_numpy_gives_it(dtype):
    opt = make(dtype=np.dtype(dtype) if dtype == "<f4" else dtype)
    assert opt.dtype == "float32"


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"dtype": np.float64}, ValueError, ("'float32', 'bfloat16' or 'tf32'", "float64")),
        ({"dtype": None}, TypeError, ("dtype as a name or a NumPy dtype", "None")),
        ({"dtype": 3}, TypeError, ("dtype as a name or a NumPy dtype", "3")),
        ({"plan": None}, TypeError, ("Optimizer", "plan as a string", "None")),
        ({"plan": b"tree"}, TypeError, ("plan as a string", "b'tree'")),
        ({"shaping": None}, TypeError, ("shaping as a string", "None")),
        ({"update": 3}, TypeError, ("update as a string", "3")),
        ({"device": None}, TypeError, ("device as a name or a list of names", "None")),
        ({"device": 0}, TypeError, ("device as a name or a list of names", "0")),
        ({"device": ["cpu", 1]}, TypeError, ("device as a name or a list of names", "1")),
        ({"threads": 2**31}, ValueError, ("threads of at most 1024", str(2**31))),
        ({"threads": 2**70}, ValueError, ("threads of at most 1024", str(2**70))),
        ({"max_memory_bytes": 2**63}, ValueError, ("max_memory_bytes of at most", str(2**63))),
        ({"seeds": 5}, TypeError, ("seeds as a list of arrays", "5")),
        ({"seeds": "abc"}, TypeError, ("seeds as a list of arrays", "'abc'")),
    ],
)
def test_options_of_an_optimizer(options, error, words):
    with refusal(error, *words):
        make(**options)


def test_the_engine_takes_as_many_threads_as_the_door_does():
    assert make(threads=1024, device="cpu").threads == 1024


# -- shapes, lists, mappings -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [6, None, "6", 6.0, (6, "a"), (6.0,)])
def test_a_shape_is_a_sequence_of_integers(mlp, shape):
    with refusal(TypeError, "flops_per_step", "sample_shape as a"):
        mlp.opt.flops_per_step(shape, 4)
    with refusal(TypeError, "output_shape", "input_shape as a"):
        mlp.specs[0].model.output_shape(shape)
    with refusal(TypeError, "allocate_vendors", "sample_shape as a"):
        allocate_vendors(mlp.specs, shape, plan="star", flops=1e6)


def test_an_extent_is_at_least_1(mlp):
    with refusal(ValueError, "flops_per_step", "sample_shape of at least 1", "0"):
        mlp.opt.flops_per_step((0,), 4)
    assert mlp.opt.flops_per_step([np.int64(6)], 4) == mlp.opt.flops_per_step((6,), 4)
    assert mlp.specs[0].model.output_shape(np.array([6])) == (5,)


def test_vendors_as_something_else(mlp):
    for vendors in (mlp.opt, 3, "abc"):
        with refusal(TypeError, "forward", "vendors as a list per spec, such as opt.vendors"):
            mp.forward(mlp.specs, mlp.x, vendors=vendors)
        with refusal(TypeError, "produce", "one spec's vendors as a list of functions"):
            mp.produce(mlp.specs[0], mlp.x, vendors)
    with refusal(TypeError, "forward", "one spec's vendors as a list of functions", "3"):
        mp.forward(mlp.specs, mlp.x, vendors=[3, 3, 3])
    with refusal(TypeError, "produce", "a list of functions", "a list with int 3"):
        mp.produce(mlp.specs[0], mlp.x, [mlp.opt.vendors[0][0], 3])


def test_directions_as_something_else(mlp):
    with refusal(TypeError, "update_weights", "3 directions, one per spec", "5"):
        mlp.opt.update_weights(5)
    with refusal(TypeError, "update_weights: spec 0", "a mapping of keys to arrays", "ndarray"):
        mlp.opt.update_weights([np.zeros(3)] * 3)
    directions = [{k: v * 0 for k, v in s.model.state_dict().items()} for s in mlp.specs]
    for rates in (["a", 1], ["0.1"] * 3, 1j):
        with refusal(TypeError, "update_weights", "learning_rates"):
            mlp.opt.update_weights(directions, rates)


def test_a_state_dict_as_something_else():
    model = nn.Model(nn.Linear(2, 2))
    for state in (5, [("layers.0.weight", 1)], model):
        with refusal(TypeError, "load_state_dict", "a mapping of keys to arrays"):
            model.load_state_dict(state, strict=False)


# -- callbacks -------------------------------------------------------------------------------------


def test_callbacks_are_a_list(tmp_path):
    opt = optimizer(build(MLP, VENDORS))
    for callback in (CSVLogger(tmp_path / "log.csv"), print, Callback(), None):
        with refusal(TypeError, "Watch", "a list of callbacks"):
            Watch(opt, callback)


def test_steps_are_told_inside_the_with_statement():
    seen = []
    watch = Watch(optimizer(build(MLP, VENDORS)), [seen.append])
    with refusal(RuntimeError, "Watch", "inside the with statement", "outside"):
        watch.step(1.0)
    with watch:
        assert 0 <= watch.step(1.0)["seconds"] < 60
    with refusal(RuntimeError, "Watch", "inside the with statement", "outside"):
        watch.step(1.0)
    assert len(seen) == 1


# -- what comes behind the labels ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["probe", "accumulate", "train_step", "keep_best_of"])
def test_what_comes_behind_the_labels_is_named(name):
    """The third place was a mode here and a label there."""
    x, y = batch(MLP_SHAPE)
    with pytest.raises(TypeError, match="positional"):
        getattr(optimizer(build(MLP, VENDORS)), name)(x, y, -1)
    one, other = (optimizer(build(MLP, VENDORS), seed=1) for _ in range(2))
    known = np.where(np.arange(len(y)) < 3, -1, y)
    loss, _ = getattr(one, name)(x, known, ignore_index=-1)
    same_bits(loss, getattr(other, name)(x[3:], y[3:])[0])


# -- numbers of another kind -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "ignored, error",
    [("a", TypeError), (1.0, TypeError), (2**31, ValueError), (-(2**40), ValueError)],
)
def test_a_label_to_ignore(mlp, ignored, error):
    for name in ("probe", "train_step", "accumulate", "keep_best_of"):
        with refusal(error, name if error is TypeError else "", "ignore_index"):
            getattr(mlp.opt, name)(mlp.x, mlp.y, ignore_index=ignored)
    with refusal(error, "cross_entropy", "ignore_index"):
        F.cross_entropy(np.zeros((2, 3)), [0, 1], ignore_index=ignored)


def test_a_label_to_ignore_as_numpy_gives_it(mlp):
    same_bits(mlp.opt.probe(mlp.x, mlp.y, ignore_index=np.int64(-1))[0], mlp.loss)


def test_classes_as_something_else(mlp):
    mlp.opt.classes = 5
    with refusal(TypeError, "probe", "classes as a list of integers", "5"):
        mlp.opt.probe(mlp.x, mlp.y)
    mlp.opt.classes = None


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: nn.Conv2d(1, 1, 2**70), ValueError, ("kernel_size of at most", str(2**70))),
        (lambda: nn.Conv2d(1, 1, 2**40), ValueError, ("at most 2147483648 elements", str(2**40))),
        (lambda: nn.Conv2d(1, 1, 3, stride=(1, 2**70)), ValueError, ("stride of at most",)),
        (lambda: F.max_pool2d(np.zeros((1, 4, 4)), 2**70), ValueError, ("kernel_size of at most",)),
        (lambda: nn.Model(nn.relu).output_shape((2**70,)), ValueError, ("input_shape of at most",)),
        (lambda: F.flatten(np.zeros((2, 3)), "a"), TypeError, ("flatten", "an axis", "'a'")),
        (lambda: nn.Model(lambda x: x.flatten(1.5)), TypeError, ("an axis as an integer", "1.5")),
        (
            lambda: F.layer_norm(np.zeros((2, 3)), shape=3, eps="a"),
            TypeError,
            ("layer_norm", "eps"),
        ),
        (lambda: F.batch_norm(np.zeros((2, 3)), eps=np.inf), ValueError, ("batch_norm", "eps")),
        (lambda: F.instance_norm(np.zeros((2, 3, 1, 1)), eps=None), TypeError, ("eps", "None")),
        (lambda: F.gelu(np.zeros(3), approximate=["tanh"]), ValueError, ("'none' or 'tanh'",)),
        (lambda: F.relu([[1, 2], [3]]), ValueError, ("relu", "rows of different lengths")),
        (lambda: nn.Model(nn.relu)([[1, 2], [3]]), ValueError, ("model", "different lengths")),
    ],
)
def test_numbers_of_layers_and_functions(call, error, words):
    with refusal(error, *words):
        call()


# -- values that are not finite --------------------------------------------------------------------

BAD = np.array([[1, 2], [3, np.inf]])
IMAGE = np.full((1, 2, 3, 3), np.nan)
FUNCTIONS = {
    "relu": lambda: F.relu([1, np.inf]),
    "gelu": lambda: F.gelu(BAD),
    "max_pool2d": lambda: F.max_pool2d(IMAGE),
    "linear": lambda: F.linear(BAD, np.ones((3, 2))),
    "conv2d": lambda: F.conv2d(IMAGE, np.ones((2, 1, 2, 3, 3))),
    "batch_norm": lambda: F.batch_norm(IMAGE),
    "layer_norm": lambda: F.layer_norm(BAD, shape=2),
    "Linear": lambda: nn.Linear(2, 2)(BAD),
    "model": lambda: nn.Model(nn.Linear(2, 2))(BAD.astype(np.float32)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_that_are_not_finite_name_the_function(name):
    with refusal(ValueError, f"{name}: expected finite x", "sample"):
        FUNCTIONS[name]()
