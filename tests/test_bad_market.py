"""Optimizers, specs, layers and state dicts that are wrong: a clear error, one case at a time."""

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from markets import MLP, MLP_SHAPE, batch, build, fresh_seeds, optimizer
from refusals import VENDORS, Trained, refusal


def make(**options):
    built = build(MLP, VENDORS)
    return mp.Optimizer(built.specs, **({"learning_rate": 0.1} | options))


@pytest.mark.parametrize("device", ["tpu", "", "cpu:1:2", "CPU "])
def test_unknown_device(device):
    with refusal((ValueError, RuntimeError), "device", repr(device)):
        make(device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "hip"])
def test_device_that_this_machine_lacks(device):
    if any(found["name"].startswith(device.split(":")[0]) for found in mp.devices()):
        pytest.skip(f"this machine has {device}")
    with refusal(RuntimeError, "device", repr(device)):
        make(device=device)


def test_unknown_plan():
    with refusal(ValueError, "plan", "'tree', 'star', 'scatter' or 'node'", "'forest'"):
        make(plan="forest")


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8"])
def test_unknown_dtype(dtype):
    with refusal(ValueError, "'float32', 'bfloat16' or 'tf32'", dtype):
        make(dtype=dtype)


def test_tf32_is_for_gpus():
    with refusal(ValueError, "'float32' or 'bfloat16' with device 'cpu'", "tf32"):
        make(dtype="tf32", device="cpu")


@pytest.mark.parametrize(
    "threads, error", [(-1, ValueError), (99999, ValueError), ("2", TypeError)]
)
def test_threads(threads, error):
    with refusal(error, "threads"):
        make(threads=threads)


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("learning_rate", np.nan, ValueError),
        ("learning_rate", np.inf, ValueError),
        ("learning_rate", "fast", TypeError),
        ("learning_rate", np.ones(2), TypeError),
        ("probe_scale", np.nan, ValueError),
        ("probe_scale", "small", TypeError),
        ("meta_learning_rate", np.inf, ValueError),
        ("seed", -1, ValueError),
        ("seed", 2**64, ValueError),
        ("seed", 0.5, TypeError),
    ],
)
def test_numbers_of_an_optimizer(name, value, error):
    with refusal(error, name):
        make(**{name: value})


def test_seeds_for_too_few_specs():
    with refusal(ValueError, "seeds", "3", "2"):
        make(seeds=fresh_seeds(VENDORS)[:2])


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_seeds_of_the_wrong_length(count):
    seeds = fresh_seeds(VENDORS)
    seeds[1] = np.arange(count, dtype=np.uint64)
    with refusal(ValueError, "3 seeds for spec 1", str(count)):
        make(seeds=seeds)


def test_seeds_of_the_wrong_kind():
    seeds = fresh_seeds(VENDORS)
    with refusal(TypeError, "integer", "float64"):
        make(seeds=[seeds[0], seeds[1].astype(np.float64), seeds[2]])
    with refusal(ValueError, "at least 0", "-1"):
        make(seeds=[seeds[0], np.array([0, -1, 2]), seeds[2]])


def test_no_specs():
    with refusal(ValueError):
        mp.Optimizer([], learning_rate=0.1)


def test_spec_that_is_none():
    with refusal(TypeError, "Spec", "Linear"):
        mp.Optimizer([nn.Linear(2, 2)], learning_rate=0.1)


@pytest.mark.parametrize("count", [0, -1])
def test_vendor_count_below_one(count):
    with refusal(ValueError, "vendor_count", str(count)):
        mp.Spec(model=nn.Model(nn.Linear(2, 2)), vendor_count=count)


@pytest.mark.parametrize("count", [2.5, "2", True])
def test_vendor_count_that_is_no_integer(count):
    with refusal(TypeError, "vendor_count"):
        mp.Spec(model=nn.Model(nn.Linear(2, 2)), vendor_count=count)


def test_no_vendor_count():
    with refusal(ValueError, "vendor_count"):
        mp.Spec(model=nn.Model(nn.Linear(2, 2)))


def test_layers_of_different_vendor_counts():
    with refusal(ValueError, "2", "3"):
        mp.Spec(model=nn.Model(nn.Linear(2, 4, 4), nn.Linear(3, 4, 4)))


def test_upstream_sampling():
    with refusal(ValueError, "upstream_sampling", "-1"):
        mp.Spec(model=nn.Model(nn.Linear(2, 2)), vendor_count=2, upstream_sampling=-1)


def test_upstream_sampling_of_more_than_there_is():
    with refusal(ValueError, "upstream_sampling", "3"):
        optimizer(build(MLP, VENDORS, sampling=[0, 3, 0])).probe(*batch(MLP_SHAPE))


def test_upstream_sampling_in_a_star():
    with refusal(ValueError, "upstream_sampling", "'star'"):
        optimizer(build(MLP, VENDORS, sampling=[0, 1, 0]), plan="star")


# -- layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_layer, word",
    [
        (lambda: nn.Conv2d(4, 6, 3, groups=4), "groups"),
        (lambda: nn.Conv2d(3, 6, 3, groups=2), "groups"),
        (lambda: nn.Conv2d(3, 6, 0), "kernel_size"),
        (lambda: nn.Conv2d(3, 6, 3, stride=0), "stride"),
        (lambda: nn.Conv2d(3, 6, 3, padding=-1), "padding"),
        (lambda: nn.Conv2d(3, 6, 3, dilation=0), "dilation"),
        (lambda: nn.Conv2d(3, 6, 3, dilation=2**62), "dilation from 1 to 2147483647"),
        (lambda: nn.Conv2d(3, 6, 3, padding=2**63 - 1), "padding from 0 to 2147483647"),
        (lambda: nn.Linear(0, 3), "at least 1"),
        (lambda: nn.Linear(3, 0), "at least 1"),
        (lambda: nn.InstanceNorm(0), "at least 1"),
        (lambda: nn.Conv2d(3, 6, (1, 2, 3)), "pair"),
    ],
)
def test_options_of_a_layer(make_layer, word):
    with refusal(ValueError, word):
        nn.Model(make_layer())


def test_a_result_that_no_memory_holds():
    model = nn.Model(nn.Conv2d(1, 1, 1, padding=2**30))
    with refusal(ValueError, "at most 2^31 elements"):
        model(np.zeros((1, 1, 2, 2), np.float32))


def test_samples_without_elements():
    model = nn.Model(nn.relu, lambda x: x.flatten(1), nn.Linear(4, 3))
    with refusal(ValueError, "extents of at least 1", "0"):
        model(np.zeros((2, 0, 4), np.float32))


class Returns:
    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return self.value


class Raises:
    def __call__(self, x):
        raise KeyError("lost")


UNTRACEABLE = {
    "exp": lambda x: np.exp(x),
    "array": lambda x: np.asarray(x),
    "bool": lambda x: x if x else x,
    "comparison": lambda x: x > 0,
    "float": lambda x: float(x) + x,
    "len": lambda x: len(x) + x,
    "iteration": lambda x: sum(x),
    "indexing": lambda x: x[0],
    "none": Returns(None),
    "constant": Returns(np.zeros(3, np.float32)),
    "raises": Raises(),
    "number": 7,
    "matmul": lambda x: x @ np.ones((2, 2), np.float32),
    "missing-method": lambda x: x.softmax(),
    "array-operand": lambda x: x + np.ones(3, np.float32),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_untraceable_layer(name):
    layer = UNTRACEABLE[name]
    with refusal(TypeError, "layers.1", type(layer).__name__):
        nn.Model(nn.relu, layer, nn.relu)


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: x.flatten(0),
        lambda x: x.mean(0),
        lambda x: x.mean((0, 1)),
        lambda x: x.mean(-3),
        lambda x: x.flatten(-3),
        lambda x: x.reshape(3, 4),
        lambda x: x.reshape(x.shape[0], -1, -1),
    ],
)
def test_layer_that_touches_the_batch_axis(layer):
    with refusal(ValueError, "layers.0"):
        market = [mp.Spec(nn.Model(layer), 1)]
        mp.straight_forward(market, np.zeros((2, 3, 4), np.float32))


def test_sum_of_unequal_shapes():
    model = nn.Model(nn.Linear(3, 3), lambda x: x + x.reshape(x.shape[0], 3, 1))
    with refusal(ValueError, "layers.1", "(B, 3)", "(B, 3, 1)"):
        mp.straight_forward([mp.Spec(model, 1)], np.zeros((2, 3), np.float32))


def test_labels_for_logits_of_the_wrong_rank():
    market = [mp.Spec(nn.Model(nn.Conv2d(1, 3, 3)), 2)]
    with refusal(ValueError, "(B, classes)"):
        mp.Optimizer(market, 0.1).probe(np.zeros((2, 1, 4, 4), np.float32), np.zeros(2, int))


# -- state dicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda s: s.pop("layers.0.weight"), "layers.0.weight"),
        (lambda s: s.update({"layers.7.weight": np.zeros(3, np.float32)}), "layers.7.weight"),
        (lambda s: s.update({"layers.0.weight": np.zeros((6, 5), np.float32)}), "layers.0.weight"),
        (lambda s: s.update({"layers.0.weight": np.zeros((), np.float32)}), "layers.0.weight"),
    ],
)
def test_load_state_dict_checks_before_it_changes(change, word):
    trained = Trained(MLP, MLP_SHAPE)
    model = trained.specs[0].model
    other = {key: value + 1 for key, value in model.state_dict().items()}
    change(other)
    with refusal(ValueError, word):
        model.load_state_dict(other)
    trained.assert_unchanged()


def test_load_state_dict_that_is_not_strict():
    model = build(MLP, VENDORS).specs[0].model
    model.load_state_dict({"layers.0.bias": np.ones(5), "else": np.ones(1)}, strict=False)
    assert (model.state_dict()["layers.0.bias"] == 1).all()
