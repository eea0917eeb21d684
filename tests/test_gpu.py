"""GPUs, real or emulated: what the tests that run on any device do not ask of them."""

import marketplace as mp
import numpy as np
import pytest
from emulated import EMULATED, call
from marketplace import nn
from markets import CONV, CONV_SHAPE, MLP, MLP_SHAPE, batch, build, close, fresh_seeds, same_bits

GPUS = [device["name"] for device in mp.devices() if device["kind"] != "cpu"]
pytestmark = pytest.mark.skipif(not GPUS, reason="no GPU here")
MARKETS = [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)]
VENDORS = (3, 4, 5)


def make(layers, device, **options):
    """Build a market of its own and an optimizer of it."""
    built = build(layers, VENDORS)
    options = {"seeds": fresh_seeds(VENDORS), "seed": 1} | options
    return built, mp.Optimizer(built.specs, 0.125, device=device, **options)


def run(layers, shape, device, steps=3, **options):
    """Losses of some steps, and the weights after them."""
    built, optimizer = make(layers, device, **options)
    losses = [optimizer.train_step(*batch(shape))[0] for _ in range(steps)]
    return losses, built.weights


@pytest.mark.parametrize("plan", ["tree", "star"])
@pytest.mark.parametrize("layers, shape", MARKETS)
def test_a_run_like_the_cpu(layers, shape, plan):
    gpu, cpu = (run(layers, shape, device, plan=plan) for device in (GPUS[0], "cpu"))
    for mine, theirs in zip(gpu[0], cpu[0], strict=True):
        close(mine, theirs, relative=1e-4)
    for mine, theirs in zip(gpu[1], cpu[1], strict=True):
        for key, value in theirs.items():
            close(mine[key], value, relative=1e-4)


def test_antithetic_vendors_like_the_cpu():
    options = {"plan": "star", "antithetic": True, "seeds": None}
    gpu, cpu = (run(CONV, CONV_SHAPE, device, **options) for device in (GPUS[0], "cpu"))
    for mine, theirs in zip(gpu[0], cpu[0], strict=True):
        close(mine, theirs, relative=1e-4)
    for mine, theirs in zip(gpu[1], cpu[1], strict=True):
        for key, value in theirs.items():
            close(mine[key], value, relative=1e-4)


@pytest.mark.parametrize("options", [{}, {"antithetic": True, "seeds": None}])
def test_deltas_have_the_bits_of_the_cpu(options):
    gpu, cpu = (make(CONV, device, **options)[1] for device in (GPUS[0], "cpu"))
    for mine, theirs in zip(gpu.spec_context, cpu.spec_context, strict=True):
        for key, value in theirs.delta.items():
            same_bits(mine.delta[key], value)


@pytest.mark.parametrize("layers, shape", MARKETS)
def test_tf32_lies_between_float32_and_bfloat16(layers, shape):
    x, y = batch(shape)
    losses = {
        dtype: make(layers, GPUS[0], dtype=dtype)[1].probe(x, y)[0]
        for dtype in ("float32", "tf32", "bfloat16")
    }
    assert make(layers, GPUS[0], dtype="tf32")[1].dtype == "tf32"
    off = {dtype: np.abs(loss - losses["float32"]).max() for dtype, loss in losses.items()}
    assert off["tf32"] < 2**-9  # factors are off by up to 2 ** -11
    assert off["tf32"] < off["bfloat16"]
    if EMULATED:  # others may have no such units
        assert off["tf32"] > 0


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("layers, shape", MARKETS)
def test_the_same_run_twice(layers, shape, dtype):
    first, second = (run(layers, shape, GPUS[0], dtype=dtype) for _ in range(2))
    for mine, theirs in zip(first[0], second[0], strict=True):
        same_bits(mine, theirs)


def test_a_cap_on_memory_changes_no_bits():
    free, _ = run(MLP, MLP_SHAPE, GPUS[0])
    capped, _ = run(MLP, MLP_SHAPE, GPUS[0], max_memory_bytes=1 << 17)
    for mine, theirs in zip(capped, free, strict=True):
        same_bits(mine, theirs)


def test_a_cap_that_nothing_fits():
    _, optimizer = make(MLP, GPUS[0], max_memory_bytes=4096)
    with pytest.raises(MemoryError, match="device memory: expected .* bytes"):
        optimizer.probe(*batch(MLP_SHAPE))


@pytest.mark.skipif(len(GPUS) < 2, reason="one GPU only")
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("plan", ["tree", "star"])
@pytest.mark.parametrize("layers, shape", MARKETS)
def test_several_devices_give_the_bits_of_one(layers, shape, plan, count):
    one = run(layers, shape, GPUS[0], plan=plan)
    many = run(layers, shape, GPUS[:count], plan=plan)
    for mine, theirs in zip(many[0], one[0], strict=True):
        same_bits(mine, theirs)
    for mine, theirs in zip(many[1], one[1], strict=True):
        for key, value in theirs.items():
            same_bits(mine[key], value)


@pytest.mark.skipif(not EMULATED, reason="counts the bytes of the emulated GPU")
@pytest.mark.parametrize("update", ["adam", "meta", "replicas", "v1"])
def test_a_step_moves_no_bytes_that_follow_from_the_number_of_weights(update):
    moved = {}
    for width in (8, 128):
        layers = [nn.Linear(16, width), nn.relu, nn.Linear(width, 4)]
        specs = [mp.Spec(nn.Model(*layers), 3), mp.Spec(nn.Model(nn.Linear(4, 3)), 4)]
        options = {"adam": {"update": "adam"}, "meta": {"meta_learning_rate": 0.5}}.get(update, {})
        opt = mp.Optimizer(specs, 0.1, seed=1, plan="star", device=GPUS[:2], **options)
        x, y = np.ones((4, 16), np.float32), np.arange(4) % 3
        replicas = 2 if update == "replicas" else 1
        for _ in range(2):
            before = call("host_copied_bytes")
            if update == "v1":
                opt.keep_best(*opt.probe(x, y))
            else:
                opt.train_step(x, y, marketplace_replica=replicas)
            moved[width] = call("host_copied_bytes") - before
        count = sum(spec.model.parameter_count for spec in specs)
        before = call("host_copied_bytes")
        for spec in specs:
            spec.model.state_dict()
        assert call("host_copied_bytes") - before == 4 * count
    assert moved[8] == moved[128]


def test_weights_that_are_read_and_set_between_steps():
    both = {}
    for device in (GPUS[:2], "cpu"):
        built, optimizer = make(MLP, device, seeds=None)
        for step in range(4):
            loss, paths = optimizer.probe(*batch(MLP_SHAPE))
            optimizer.step(np.linspace(1, 2, len(loss), dtype=np.float32), paths)
            if step % 2:
                model = built.specs[1].model
                model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})
        both[str(device)] = built.weights
    for mine, theirs in zip(*both.values(), strict=True):
        for key, value in theirs.items():
            same_bits(mine[key], value)
