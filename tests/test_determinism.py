"""The same bits for any number of threads, and from run to run."""

import marketplace as mp
import numpy as np
import pytest
from markets import (
    FLATTEN,
    POOL,
    RELU,
    batch,
    build,
    conv,
    fresh_seeds,
    linear,
    norm,
    optimizer,
    same_bits,
    same_states,
    states,
)

DTYPES = ("float32", "bfloat16")
THREADS = (2, 3, 5)
VENDORS = (3, 4, 5)

# Channels and rows that fill no tile evenly, so that every tail of every kernel takes part.
PLAIN = [
    [conv(1, 17, 3), RELU, norm(17), POOL],
    [conv(17, 13, 3), ("gelu", {}), ("layer_norm", {"normalised": (13, 3, 3)}), FLATTEN],
    [linear(117, 33), ("tanh", {}), linear(33, 3)],
]
NORMED = [
    [conv(1, 11, 3), norm(11, "batch_norm"), RELU, POOL],
    [conv(11, 7, 3), norm(7, "batch_norm"), FLATTEN],
    [linear(63, 3)],
]
MARKETS = [pytest.param(PLAIN, id="plain"), pytest.param(NORMED, id="batch_norm")]


def train(description, steps=3, samples=13, vendors=VENDORS, **options):
    """Train a little; return the losses of every probe, the answers and the final state."""
    built = build(description, vendors)
    opt = optimizer(built, seed=17, learning_rate=0.1, **options)
    losses = []
    for step in range(steps):
        x, y = batch((samples, 1, 12, 12), seed=step)
        loss, paths = opt.probe(x, y)
        losses.append(loss)
        opt.step(loss, paths)
    logits, _ = mp.forward(built.specs, x, vendors=opt.vendors)
    return np.array(losses), np.asarray(logits), states(built)


def assert_same_run(one, other):
    same_bits(one[0], other[0])
    same_bits(one[1], other[1])
    same_states(one[2], other[2])


@pytest.mark.parametrize("description", MARKETS)
@pytest.mark.parametrize("plan", ["tree", "star"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(description, plan, dtype):
    alone = train(description, threads=1, plan=plan, dtype=dtype)
    for threads in THREADS:
        assert_same_run(alone, train(description, threads=threads, plan=plan, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_run_to_run(dtype):
    runs = [train(PLAIN, threads=3, dtype=dtype) for _ in range(2)]
    assert_same_run(*runs)


def test_upstream_sampling_with_any_number_of_threads():
    results = []
    for threads in (1, 3):
        built = build(PLAIN, VENDORS, sampling=[0, 2, 3])
        opt = optimizer(built, seed=3, threads=threads)
        results.append(opt.probe(*batch((7, 1, 12, 12))))
    same_bits(results[0][0], results[1][0])
    same_bits(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", (1, *THREADS))
def test_a_sample_does_not_depend_on_its_batch(dtype, threads):
    """Without batch norm a sample's logits have the same bits alone and in company."""
    built, seeds = build(PLAIN, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds, dtype=dtype, threads=threads)
    x, _ = batch((29, 1, 12, 12))
    together = np.asarray(mp.forward(built.specs, x, vendors=opt.vendors)[0])
    for sample in (0, 13, 28):
        alone = mp.forward(built.specs, x[sample : sample + 1], vendors=opt.vendors)[0]
        same_bits(np.asarray(alone)[:, 0], together[:, sample])


def test_the_shape_of_an_earlier_batch_leaves_no_trace():
    built, seeds = build(PLAIN, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds, threads=2)
    first = opt.probe(*batch((5, 1, 12, 12)))[0]
    opt.probe(*batch((31, 1, 12, 12)))
    opt.probe(*batch((2, 1, 12, 12)))
    same_bits(opt.probe(*batch((5, 1, 12, 12)))[0], first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_paths_per_sample_with_any_number_of_threads(dtype):
    x, _ = batch((19, 1, 12, 12))
    paths = np.random.default_rng(0).integers(0, VENDORS, size=(19, 3)).astype(np.int32)
    results = []
    for threads in (1, *THREADS):
        built = build(PLAIN, VENDORS)
        opt = optimizer(built, seed=3, threads=threads, dtype=dtype)
        results.append(np.asarray(mp.continual.forward_with_paths(built.specs, x, paths, opt)))
    for result in results[1:]:
        same_bits(result, results[0])


def test_losses_in_bfloat16_are_near_those_in_float32():
    """Each of the stored results and the operands is off by 2⁻⁹ of itself at most, on average."""
    coarse, fine = (train(PLAIN, steps=1, dtype=dtype)[0] for dtype in ("bfloat16", "float32"))
    difference = np.abs(coarse - fine)
    assert difference.max() > 0
    assert difference.max() < 12 * 2.0**-8 * np.abs(fine).max()


@pytest.mark.parametrize("normed", [False, True])
def test_panels_made_on_demand(normed):
    """55 MB of panels are not kept: the leader's root is cut by its children, not by samples."""
    convolution = [conv(1, 8, 3), *([norm(8, "batch_norm")] if normed else []), FLATTEN]
    description = [convolution, [linear(800, 440), RELU], [linear(440, 3)]]
    runs = [
        train(description, 1, vendors=(2, 40, 5), plan="star", threads=threads)
        for threads in (1, 2, 5)
    ]
    assert_same_run(runs[0], runs[1])
    assert_same_run(runs[0], runs[2])
