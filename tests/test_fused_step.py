"""Training steps that a GPU, real or emulated, takes without the host between losses and update."""

import itertools

import marketplace as mp
import numpy as np
import pytest
from emulated import EMULATED, FIRST, GPUS, DlpackArray, InterfaceArray, call, make
from marketplace import nn, replay
from markets import (
    CONV,
    CONV_SHAPE,
    FLATTEN,
    MLP,
    MLP_SHAPE,
    RELU,
    batch,
    conv,
    linear,
    norm,
    same_bits,
)
from refusals import refusal

pytestmark = pytest.mark.skipif(not GPUS, reason="no GPU here")
emulated = pytest.mark.skipif(not EMULATED, reason="needs the controls of the emulated GPU")
COUNTS = [count for count in (1, 2, 4) if count <= len(GPUS)]
RULES = {"unit": "z", "momentum": "rank", "clipup": "sign", "adam": "rank"}  # and their shapings
MODES = ["per_spec", "whole"]


def state(opt):
    """Everything that a step changes: weights, moments, seeds, counters."""
    weights = {
        f"{index}.{key}": value
        for index, spec in enumerate(opt.marketplace)
        for key, value in spec.model.state_dict().items()
    }
    return weights | opt._native.state() | {"global_step": opt.global_step}


def same_state(mine, theirs):
    mine, theirs = state(mine), state(theirs)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        same_bits(np.asarray(value), np.asarray(theirs[key]))


def twins(layers=MLP, device=FIRST, **options):
    return [make(layers, device, **options)[1] for _ in range(2)]


def same_steps(fused, composed, shape, mode="per_spec", steps=3):
    """Take steps both ways; nothing tells them apart."""
    for step in range(steps):
        x, y = batch(shape, seed=step)
        loss, paths = fused.train_step(x, y, unit_vector_mode=mode)
        expected, rows = composed.probe(x, y)
        composed.step(expected, rows, mode)
        same_bits(loss, expected)
        same_bits(paths, rows)
    same_state(fused, composed)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("plan", ["tree", "star"])
@pytest.mark.parametrize("mode", MODES)
def test_rules_and_shapings_have_the_bits_of_a_probe_and_its_step(plan, mode, count):
    for update in RULES if count == 1 else ["adam"]:
        options = {"plan": plan, "update": update, "shaping": RULES[update]}
        same_steps(*twins(MLP, GPUS[:count], **options), MLP_SHAPE, mode)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("plan", ["tree", "star"])
def test_batch_statistics_come_along(plan, count):
    layers = [
        [conv(1, 3, 3), norm(3, "batch_norm"), RELU],
        [FLATTEN, linear(108, 4)],
        [linear(4, 3)],
    ]
    same_steps(*twins(layers, GPUS[:count], plan=plan), CONV_SHAPE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_antithetic_vendors_of_convolutions(dtype):
    options = {"plan": "star", "antithetic": True, "seeds": None, "dtype": dtype}
    same_steps(*twins(CONV, GPUS[:2], **options), CONV_SHAPE, "whole")


def test_other_modes_batches_and_rates_in_between():
    fused, composed = twins(plan="star", update="adam")
    for mode, samples in [("per_spec", 7), ("whole", 7), ("whole", 4), ("per_spec", 7)]:
        same_steps(fused, composed, (samples, 6), mode, steps=2)
        for opt in (fused, composed):
            opt.learning_rate = opt.learning_rate * 0.5
            model = opt.marketplace[1].model
            model.load_state_dict({k: 0.5 * v for k, v in model.state_dict().items()})


def test_upstreams_that_are_sampled_anew():
    markets = [
        [
            mp.Spec(nn.Model(nn.Linear(6, 5), nn.tanh), 4),
            mp.Spec(nn.Model(nn.Linear(5, 3)), 4, upstream_sampling=2),
        ]
        for _ in range(2)
    ]
    for a, b in zip(*markets, strict=True):
        b.model.load_state_dict(a.model.state_dict())
    same_steps(*(mp.Optimizer(own, 0.1, seed=2, device=GPUS[0]) for own in markets), MLP_SHAPE)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("plan", ["tree", "star"])
def test_keeping_the_best_has_the_bits_of_a_probe_and_keep_best(plan, count):
    fused, composed = twins(CONV, GPUS[:count], plan=plan)
    (cpu,) = twins(CONV, "cpu", plan=plan)[:1]
    for step in range(4):
        x, y = batch(CONV_SHAPE, seed=step)
        loss, paths = fused.keep_best_of(x, y)
        expected, rows = composed.probe(x, y)
        assert composed.keep_best(expected, rows) == int(loss.argmin())
        same_bits(loss, expected)
        same_bits(paths, rows)
        cpu.keep_best(loss, paths)  # its own losses may differ in the last bits
    same_state(fused, composed)
    same_state(fused, cpu)


def test_a_recorder_is_told_before_the_step(tmp_path):
    told, plain = twins(plan="star")
    with replay.Recorder(tmp_path / "log", told):
        for step in range(3):
            x, y = batch(MLP_SHAPE, seed=step)
            same_bits(told.train_step(x, y)[0], plain.train_step(x, y)[0])
    same_state(told, plain)
    rebuilt = replay.rebuild(tmp_path / "log", step=3)
    for index, spec in enumerate(plain.marketplace):
        for key, value in spec.model.state_dict().items():
            same_bits(rebuilt[f"spec.{index}.{key}"], value)


def test_equal_losses_warn_and_move_nothing():
    market = [mp.Spec(nn.Model(nn.Linear(6, 3, bias=False)), 4)]
    opt = mp.Optimizer(market, 0.1, seed=1, device=GPUS[0])
    before = market[0].model.state_dict()
    for step in range(1, 4):
        with pytest.warns(RuntimeWarning, match="all losses are equal"):
            opt.train_step(np.zeros((4, 6), np.float32), np.arange(4) % 3)
        assert opt.global_step == step
    for key, value in market[0].model.state_dict().items():
        same_bits(value, before[key])


@pytest.mark.parametrize("count", COUNTS[:2])
@pytest.mark.parametrize("update", ["clipup", "adam"])
def test_losses_that_are_not_finite_are_named_and_move_nothing(update, count):
    options = {"plan": "star", "update": update, "device": GPUS[:count]}
    fused, composed = twins(MLP, **options)
    same_steps(fused, composed, MLP_SHAPE)
    x, y = batch(MLP_SHAPE)
    key = "layers.0.weight"
    finite = fused.marketplace[2].model.state_dict()[key]
    broken = finite.copy()
    broken[0, 0] = np.inf
    for opt in (fused, composed):
        opt.marketplace[2].model.load_state_dict({key: broken}, strict=False)
    before = state(fused)
    with pytest.raises(ValueError, match="finite losses") as expected:
        composed.step(*composed.probe(x, y))
    with pytest.raises(ValueError, match="finite losses") as received:
        fused.train_step(x, y)
    assert str(received.value) == str(expected.value)
    after = state(fused)
    for name, value in before.items():
        same_bits(np.asarray(value), np.asarray(after[name]))
    for opt in (fused, composed):
        opt.marketplace[2].model.load_state_dict({key: finite}, strict=False)
    same_steps(fused, composed, MLP_SHAPE)


# -- on the emulated device ------------------------------------------------------------------------


@emulated
@pytest.mark.parametrize("count", COUNTS[:2])
def test_a_batch_of_the_device_with_bad_values_or_labels_moves_nothing(count):
    fused, composed = twins(MLP, GPUS[:count], plan="tree", update="momentum")
    x, y = batch(MLP_SHAPE)
    for _ in range(3):
        loss, _ = fused.train_step(InterfaceArray(x), DlpackArray(y.astype(np.int64)))
        expected, rows = composed.probe(x, y)
        composed.step(expected, rows)
        same_bits(loss, expected)
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[2, 3], bad_y[4] = np.nan, 3
    with refusal(ValueError, "sample 2"):
        fused.train_step(InterfaceArray(bad_x), DlpackArray(y.astype(np.int64)))
    with refusal(ValueError, "sample 4"):
        fused.train_step(InterfaceArray(x), DlpackArray(bad_y.astype(np.int64)))
    same_state(fused, composed)


@emulated
@pytest.mark.parametrize("count", COUNTS[:2])
@pytest.mark.parametrize("update", ["unit", "adam"])
def test_a_step_brings_losses_back_and_nothing_else(update, count):
    moved = {}
    for width in (16, 160):
        specs = [
            mp.Spec(nn.Model(nn.Linear(16, width), nn.relu), 3),
            mp.Spec(nn.Model(nn.Linear(width, 3)), 4),
        ]
        opt = mp.Optimizer(specs, 0.1, seed=1, plan="star", device=GPUS[:count], update=update)
        x, y = np.ones((4, 16), np.float32), np.arange(4) % 3
        for _ in range(3):
            before = call("host_copied_bytes")
            opt.train_step(x, y)
            moved[width] = call("host_copied_bytes") - before
    assert moved[16] == moved[160] < count * 4096


@emulated
@pytest.mark.parametrize("count", COUNTS[:2])
def test_memory_that_runs_out_in_the_middle_leaves_everything(count):
    failures = 0
    for n in (1, 2, 3, 5, 9):
        fused, composed = twins(MLP, GPUS[:count], plan="star", update="adam")
        for step in range(3):
            x, y = batch(MLP_SHAPE, seed=step)
            call("fail_allocation", n)
            try:
                fused.train_step(x, y)
            except MemoryError:
                failures += 1
                call("fail_allocation", 0)
                same_state(fused, composed)
                fused.train_step(x, y)
            call("fail_allocation", 0)
            composed.step(*composed.probe(x, y))
            same_state(fused, composed)
    assert failures > 2


# -- the best of many ------------------------------------------------------------------------------


@emulated
@pytest.mark.parametrize("kind", [InterfaceArray, DlpackArray])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "int64"])
def test_topk_of_an_array_on_the_device(dtype, kind):
    values = np.round(4 * batch((3, 50))[0] + 20).astype(dtype)
    if values.dtype.kind == "f":
        values[1, 7], values[2, :3] = np.nan, [np.inf, -np.inf, -0.0]
    for k, largest in itertools.product((1, 20, 50), (True, False)):
        for mine, expected in zip(
            mp.topk(kind(values), k, largest), mp.topk(values, k, largest), strict=True
        ):
            same_bits(mine, expected)


@emulated
def test_topk_of_results_that_stayed_on_the_device():
    _, opt = make()
    x, _ = batch(MLP_SHAPE)
    logits, _ = mp.training.forward(opt.marketplace, x, opt.vendors, out="device")
    before = call("host_copied_bytes")
    best, indices = mp.topk(logits, 1)
    assert call("host_copied_bytes") - before == 12 * best.size
    same_bits(indices[..., 0], logits.numpy().argmax(axis=-1))


@emulated
def test_topk_refuses_what_it_cannot_sort():
    values = InterfaceArray(np.ones((2, 3), np.float16))
    with refusal(TypeError, "float32, float64 or integers", "float16"):
        mp.topk(values, 1)
    for k in (0, 4):
        with refusal(ValueError, "k"):
            mp.topk(InterfaceArray(np.ones((2, 3), np.float32)), k)
