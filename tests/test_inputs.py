"""What a market takes: every real dtype by the same rule everywhere, and batches of no samples."""

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from marketplace.continual import Learner, forward_with_paths
from markets import CONV, CONV_SHAPE, MLP, MLP_SHAPE, batch, build, norm, optimizer, same_bits
from markets import conv as conv_layer

VENDORS = (2, 3, 2)
F = mp.functional


def paths_of(x):
    return np.arange(3 * len(x)).reshape(-1, 3).astype(np.int32) % 2


ENTRIES = {
    "probe": lambda opt, x, y: opt.probe(x, y)[0],
    "accumulate": lambda opt, x, y: opt.accumulate(x, y)[0],
    "train_step": lambda opt, x, y: opt.train_step(x, y)[0],
    "several": lambda opt, x, y: opt.train_step(x, y, marketplace_replica=2)[0],
    "keep_best_of": lambda opt, x, y: opt.keep_best_of(x, y)[0],
    "forward": lambda opt, x, y: mp.forward(opt.marketplace, x, vendors=opt.vendors)[0],
    "own vendors": lambda opt, x, y: mp.forward(opt.marketplace, x)[0],
    "produce": lambda opt, x, y: mp.produce(opt.marketplace[0], x, opt.vendors[0])[0],
    "vendor": lambda opt, x, y: opt.vendors[0][1](x),
    "straight_forward": lambda opt, x, y: mp.straight_forward(opt.marketplace, x),
    "model": lambda opt, x, y: opt.marketplace[0].model(x),
    "forward_with_paths": lambda opt, x, y: forward_with_paths(
        opt.marketplace, x, paths_of(x), opt
    ),
}
every_entry = pytest.mark.parametrize("enter", ENTRIES.values(), ids=ENTRIES)


def fresh():
    return optimizer(build(CONV, VENDORS), seed=1)


@every_entry
@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4", ">f8", "i1", "<i4", "i8", ">i2", "u4", "?"])
def test_every_real_dtype_is_taken_as_float32(enter, dtype):
    x, y = batch(CONV_SHAPE)
    x = np.abs(10 * x).astype(dtype)
    same_bits(enter(fresh(), x, y), enter(fresh(), x.astype(np.float32), y))


@every_entry
def test_uint8_and_lists_are_taken_too(enter):
    x, y = batch(CONV_SHAPE)
    x = np.abs(10 * x).astype(np.uint8)
    expected = enter(fresh(), x.astype(np.float32), y)
    same_bits(enter(fresh(), x, y), expected)
    if enter is not ENTRIES["forward_with_paths"]:
        same_bits(enter(fresh(), x.tolist(), y), expected)


def test_what_was_taken_is_not_changed():
    x, y = batch(CONV_SHAPE)
    x = x.astype(np.float64)
    before = x.copy()
    fresh().train_step(x, y)
    same_bits(x, before)


def test_a_learner_takes_what_a_probe_takes():
    x, _ = batch(MLP_SHAPE)
    learner = Learner(optimizer(build(MLP, VENDORS), plan="node", seed=1))
    wide = np.float64(x)
    same_bits(learner.answer(wide).logits, learner.answer(x).logits)


# -- no samples ------------------------------------------------------------------------------------

EMPTY = np.zeros((0, *CONV_SHAPE[1:]), np.float32)
INFERENCE = {
    "forward": (12, 0, 3),
    "own vendors": (12, 0, 3),
    "produce": (2, 0, 3, 3, 3),
    "vendor": (0, 3, 3, 3),
    "straight_forward": (0, 3),
    "model": (0, 3, 3, 3),
    "forward_with_paths": (0, 3),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("name", INFERENCE)
def test_no_samples_give_no_results(name, dtype):
    result = ENTRIES[name](fresh(), EMPTY.astype(dtype), None)
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype) == (INFERENCE[name], np.float32)


@pytest.mark.parametrize("name", INFERENCE)
def test_no_samples_of_another_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"conv2d: .*received \(B, 2, 8, 8\)"):
        ENTRIES[name](fresh(), np.zeros((0, 2, 8, 8)), None)


@pytest.mark.parametrize("plan", ["tree", "star", "scatter"])
@pytest.mark.parametrize("sampling", [0, 2])
def test_paths_of_no_samples_are_those_of_some(plan, sampling):
    if sampling and plan != "tree":
        pytest.skip("upstream sampling needs a tree")
    built = build(MLP, (2, 3, 2), sampling=[0, 0, sampling])
    opt = optimizer(built, plan=plan, seed=1)
    paths, known = (
        mp.forward(built.specs, np.zeros((count, 6)), vendors=opt.vendors)[1] for count in (0, 4)
    )
    same_bits(paths, known)


def test_produce_behind_no_samples():
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=1)
    first = mp.produce(built.specs[0], np.zeros((0, 6)), opt.vendors[0])
    for vendors in (opt.vendors[1], [nn.Linear(5, 4) for _ in range(3)]):
        outputs, paths = mp.produce(built.specs[1], first[0], vendors, first[1])
        assert (outputs.shape, paths.shape) == ((6, 0, 4), (6, 2))


def test_training_goes_on_after_no_samples():
    """Batch norms keep the statistics of the last real batch for the next step."""
    description = [[conv_layer(1, 3, 3), norm(3, "batch_norm")], CONV[1], CONV[2]]
    description[0].append(CONV[0][3])
    x, y = batch(CONV_SHAPE)
    one, other = (build(description, VENDORS) for _ in range(2))
    first, second = (optimizer(built, seed=1) for built in (one, other))
    loss, paths = first.probe(x, y)
    mp.forward(one.specs, EMPTY, vendors=first.vendors)
    first.step(loss, paths)
    second.step(*second.probe(x, y))
    for a, b in zip(one.specs, other.specs, strict=True):
        for key, value in a.model.state_dict().items():
            same_bits(value, b.model.state_dict()[key])


IMAGES = np.zeros((0, 2, 4, 4))
FUNCTIONS = [
    (lambda: F.relu(np.zeros((0, 3))), (0, 3)),
    (lambda: F.gelu(np.zeros(0)), (0,)),
    (lambda: F.linear(np.zeros((0, 3)), np.ones((5, 3))), (0, 5)),
    (lambda: F.linear(np.zeros((0, 3)), np.ones((2, 5, 3))), (2, 0, 5)),
    (lambda: F.linear(np.zeros((2, 0, 3)), np.ones((2, 5, 3))), (2, 0, 5)),
    (lambda: F.conv2d(IMAGES, np.ones((5, 2, 3, 3))), (0, 5, 2, 2)),
    (lambda: F.conv2d(IMAGES[None], np.ones((5, 2, 3, 3))), (1, 0, 5, 2, 2)),
    (lambda: F.conv2d(IMAGES, np.ones((3, 5, 2, 3, 3))), (3, 0, 5, 2, 2)),
    (lambda: F.instance_norm(IMAGES, np.ones(2)), (0, 2, 4, 4)),
    (lambda: F.batch_norm(IMAGES), (0, 2, 4, 4)),
    (lambda: F.batch_norm(IMAGES[None]), (1, 0, 2, 4, 4)),
    (lambda: F.batch_norm(np.zeros((0, 3, 2, 4, 4))), (0, 3, 2, 4, 4)),
    (
        lambda: F.batch_norm(
            IMAGES, np.ones((3, 2)), running_mean=np.zeros(2), running_var=np.ones(2)
        ),
        (3, 0, 2, 4, 4),
    ),
    (lambda: F.layer_norm(IMAGES, shape=4), (0, 2, 4, 4)),
    (lambda: F.max_pool2d(IMAGES), (0, 2, 2, 2)),
    (lambda: F.avg_pool2d(np.zeros((3, 0, 2, 4, 4))), (3, 0, 2, 2, 2)),
    (lambda: F.flatten(np.zeros((0, 3, 4), np.float32)), (0, 12)),
    (lambda: F.flatten(np.zeros((5, 0, 4), np.float32), 0, 1), (0, 4)),
    (lambda: F.mean(np.zeros((0, 3, 4)), 1), (0, 4)),
    (lambda: F.cross_entropy(np.zeros((0, 3)), np.zeros(0, int), "none"), (0,)),
    (lambda: nn.Linear(3, 4)(np.zeros((0, 3))), (0, 4)),
    (lambda: nn.BatchNorm(2)(IMAGES), (0, 2, 4, 4)),
    (lambda: nn.Model(nn.Conv2d(2, 3, 3), nn.flatten)(IMAGES), (0, 12)),
]


@pytest.mark.parametrize("call, shape", FUNCTIONS)
def test_functions_of_no_samples(call, shape):
    result = call()
    assert (result.shape, result.dtype) == (shape, np.float32)
