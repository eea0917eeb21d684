"""Plan "node" on GPUs, real or emulated; the oracle's tests (test_node.py) run on them too."""

import gc

import marketplace as mp
import numpy as np
import pytest
from emulated import EMULATED, DlpackArray, InterfaceArray, call, deferred, several
from marketplace import nn
from markets import batch, build, close, fresh_seeds, same_bits
from nodes import gradients_of, node
from refusals import refusal
from test_node import MARKETS

GPUS = [device["name"] for device in mp.devices() if device["kind"] != "cpu"]
pytestmark = pytest.mark.skipif(not GPUS, reason="no GPU here")
CASES = ["mnist-like", "frozen-prefix", "ops-in-the-next-spec", "mlp"]


def gradients(name, device, samples=17, calls=1, **options):
    """Loss and gradients of a market on a device, and its optimizer."""
    description, counts, shape = MARKETS[name]
    opt = node(build(description, counts), fresh_seeds(counts), device=device, **options)
    x, y = batch((samples, *shape))
    for _ in range(calls):
        found = gradients_of(opt, x, y)
    return found


def same(mine, theirs):
    """Assert the same loss and gradients, to the bit."""
    assert mine[0] == theirs[0]
    for a, b in zip(mine[1], theirs[1], strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            same_bits(value, b[key])


def train(name, device, steps=4, samples=17, **options):
    """Losses of some steps, and the weights after them."""
    description, counts, shape = MARKETS[name]
    built = build(description, counts)
    opt = mp.Optimizer(built.specs, 0.05, plan="node", seed=3, device=device, **options)
    losses = [opt.train_step(*batch((samples, *shape), seed=s))[0][0] for s in range(steps)]
    return losses, built.weights


@pytest.mark.parametrize("name", CASES)
def test_a_run_like_the_cpu(name):
    gpu, cpu = (train(name, device) for device in (GPUS[0], "cpu"))
    close(gpu[0], cpu[0], relative=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_run_recorded_and_replayed_are_the_same(name):
    once = gradients(name, GPUS[0])
    for calls in (2, 3):
        same(gradients(name, GPUS[0], calls=calls), once)


@several
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("samples", [3, 17, 40])
@pytest.mark.parametrize("name", CASES)
def test_several_devices_give_the_bits_of_one(name, samples, count):
    one, many = (gradients(name, d, samples) for d in (GPUS[0], GPUS[:count]))
    same(many, one)


@several
def test_a_run_on_several_devices():
    one, many = (train("mnist-like", d, samples=20) for d in (GPUS[0], GPUS))
    assert one[0] == many[0]
    for mine, theirs in zip(many[1], one[1], strict=True):
        for key, value in theirs.items():
            same_bits(mine[key], value)


@pytest.mark.parametrize("name", CASES)
def test_a_cap_on_memory_changes_no_bits(name):
    free = gradients(name, GPUS[0], samples=37)
    for cap in (1 << 18, 3 << 16):
        same(gradients(name, GPUS[0], samples=37, max_memory_bytes=cap), free)


def test_groups_of_probes_change_no_bits():
    """A cap leaves room for all probes at once, for some, for one by one."""
    description, _, shape = MARKETS["mnist-like"]
    counts = (13, 9, 7, 1)

    def found(cap):
        built = build(description, counts)
        opt = node(built, fresh_seeds(counts), device=GPUS[0], max_memory_bytes=cap)
        return gradients_of(opt, *batch((6, *shape)))

    free = found(None)
    for cap in (1 << 20, 1 << 19, 1 << 18, 3 << 16, 1 << 17):
        same(found(cap), free)


def test_tiles_that_begin_where_no_vector_does():
    """Samples of 75 numbers, tiles of 14 and at last of 12: whole vectors, at an odd place."""

    def losses(device, cap=0):
        model = nn.Model(
            lambda x: 0.5 * x + 0.1, nn.Conv2d(3, 8, 3), nn.relu, lambda x: x.flatten(1)
        )
        specs = [mp.Spec(model, 3), mp.Spec(nn.Model(nn.Linear(72, 4)), 2)]
        for spec in specs:
            state = spec.model.state_dict()
            spec.model.load_state_dict({key: np.full_like(v, 0.01) for key, v in state.items()})
        opt = mp.Optimizer(
            specs, 0.1, plan="node", seed=1, device=device, max_memory_bytes=cap or None
        )
        x, y = batch((54, 3, 5, 5))
        return [opt.train_step(x, y % 4)[0][0] for _ in range(2)]

    same_bits(np.array(losses(GPUS[0], 150000)), np.array(losses(GPUS[0])))


def test_a_cap_that_nothing_fits():
    with pytest.raises(MemoryError, match="device memory: expected"):
        gradients("mnist-like", GPUS[0], max_memory_bytes=1 << 13)


def test_minibatches_and_replicas():
    def run(device):
        description, counts, shape = MARKETS["mnist-like"]
        built = build(description, counts)
        opt = mp.Optimizer(built.specs, 0.01, plan="node", seed=3, device=device, update="unit")
        x, y = batch((12, *shape))
        for _ in range(2):
            opt.train_step(x, y, forward_pass=3, marketplace_replica=2)
        return built.weights

    for mine, theirs in zip(run(GPUS[0]), run("cpu"), strict=True):
        for key, value in theirs.items():
            close(mine[key], value, relative=1e-3)


def test_weights_untouched_when_a_batch_is_refused():
    description, counts, shape = MARKETS["mlp"]
    built = build(description, counts)
    opt = mp.Optimizer(built.specs, 0.05, plan="node", seed=3, device=GPUS[0])
    x, y = batch((5, *shape))
    x[3, 2] = np.nan
    before = built.weights
    with refusal(ValueError, "finite x", "sample 3", "element 2"):
        opt.train_step(x, y)
    for mine, theirs in zip(built.weights, before, strict=True):
        for key, value in theirs.items():
            same_bits(mine[key], value)


emulated = pytest.mark.skipif(not EMULATED, reason="needs the emulated GPU")


@emulated
@pytest.mark.parametrize("kind", [DlpackArray, InterfaceArray])
@pytest.mark.parametrize("name", ["mnist-like", "frozen-prefix"])
def test_arrays_of_other_libraries(name, kind):
    description, counts, shape = MARKETS[name]
    opts = [
        mp.Optimizer(build(description, counts).specs, 0.05, plan="node", seed=3, device=GPUS[0])
        for _ in range(2)
    ]
    with deferred():
        for step in range(3):
            x, y = batch((9, *shape), seed=step)
            expected = opts[0].train_step(x, y)[0]
            same_bits(opts[1].train_step(kind(x), kind(y))[0], expected)


@emulated
@pytest.mark.parametrize("name", ["mnist-like", "frozen-prefix"])
@pytest.mark.parametrize("device", [0, pytest.param(1, marks=several)])
def test_a_value_that_is_not_finite_is_named_on_the_device(name, device):
    description, counts, shape = MARKETS[name]
    opt = mp.Optimizer(
        build(description, counts).specs, 0.05, plan="node", seed=3, device=GPUS[: 1 + device]
    )
    x, y = batch((18, *shape))
    x.reshape(18, -1)[11, 7] = np.inf
    with refusal(ValueError, "finite x", "sample 11", "element 7"):
        opt.train_step(DlpackArray(x), y)


@emulated
def test_what_is_under_way_outlives_the_optimizer():
    def run():
        description, counts, shape = MARKETS["mlp"]
        built = build(description, counts)
        opt = mp.Optimizer(built.specs, 0.05, plan="node", seed=3, device=GPUS)
        for step in range(3):
            opt.train_step(*batch((20, *shape), seed=step))
        del opt
        gc.collect()
        return built.weights

    expected = run()
    with deferred():
        for mine, theirs in zip(run(), expected, strict=True):
            for key, value in theirs.items():
                same_bits(mine[key], value)


@emulated
def test_a_step_moves_no_bytes_that_follow_from_the_number_of_weights():
    moved = {}
    for width in (8, 128):
        specs = [
            mp.Spec(nn.Model(nn.Linear(16, width), nn.relu), 3),
            mp.Spec(nn.Model(nn.Linear(width, 4), nn.tanh, nn.Linear(4, 3)), 2),
        ]
        opt = mp.Optimizer(specs, 0.1, seed=1, plan="node", device=GPUS[:2])
        x, y = np.ones((4, 16), np.float32), np.arange(4, dtype=np.int32) % 3
        for _ in range(3):
            before = call("host_copied_bytes")
            opt.train_step(x, y)
            moved[width] = call("host_copied_bytes") - before
    assert moved[8] == moved[128]


@emulated
def test_a_failed_allocation_leaves_everything_as_it_was():
    description, counts, shape = MARKETS["mnist-like"]
    x, y = batch((9, *shape))

    def made():
        built = build(description, counts)
        return built, mp.Optimizer(built.specs, 0.05, plan="node", seed=3, device=GPUS[0])

    expected, failures = made()[1].train_step(x, y)[0], 0
    for after in range(1, 40, 3):
        built, opt = made()
        before = built.weights
        call("fail_allocation", after)
        try:
            opt.train_step(x, y)
            failed = False
        except MemoryError:
            failed = True
        finally:
            call("fail_allocation", 0)
        if failed:
            failures += 1
            for mine, theirs in zip(built.weights, before, strict=True):
                for key, value in theirs.items():
                    same_bits(mine[key], value)
            same_bits(opt.train_step(x, y)[0], expected)
    assert failures > 2
