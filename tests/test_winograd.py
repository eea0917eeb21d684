"""Convolutions with many channels run by minimal filtering: fewer products, same results."""

import marketplace as mp
import numpy as np
import pytest
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from markets import (
    AMPLITUDE,
    FLATTEN,
    POOL,
    RELU,
    batch,
    build,
    close,
    conv,
    fresh_seeds,
    linear,
    norm,
    optimizer,
    same_bits,
    same_states,
    states,
)
from ops import OPS, Case
from test_execution import run_with, usable_isas
from test_layers import U16, bfloat16, check, draw_input, draw_params, run_market

CONV2D = OPS["conv2d"]
DTYPES = ("float32", "bfloat16")


def case_of(samples, channels, out, height, width, padding, bias=True, kernel=3):
    options = {"in": channels, "out": out, "kernel": kernel, "padding": padding, "bias": bias}
    return Case((samples, channels, height, width), options)


def check_rounding(case, actual, x, weights):
    """In bfloat16, transformed inputs and weights are rounded, once.

    A rounding adds at most U16 / sqrt(3) of a number's size, in the mean square. For independent
    inputs and weights, what the products of 2 x 2 outputs hold is 5 / 3 of the result, so two
    operands and the result come to 1.5 U16; those of larger tiles hold more than twice as much.
    """
    expected = CONV2D.oracle(np.float64(bfloat16(x)), weights, case.options)
    error, size = np.float64(actual) - expected, np.sqrt(np.mean(expected**2))
    assert actual.shape == expected.shape
    assert np.sqrt(np.mean(error**2)) <= 1.5 * U16 * size
    assert np.abs(error).max() <= 10 * U16 * size


def check_case(case, dtype, vendors=2, threads=2):
    x, params = draw_input(case.shape, 1), draw_params(CONV2D, case, 2)
    result, weights = run_market(CONV2D, case, x, params, vendors, dtype, threads)
    for actual, vendor in zip(result, weights, strict=True):
        if dtype == "float32":
            check(CONV2D, case, actual, x, vendor)
        else:
            check_rounding(case, actual, x, vendor)


def inner_pixels(case, dtype, crop):
    """Results in the middle of an image whose first `crop` rows and columns are cut off.

    On the CPU: GPUs sum directly.
    """
    x, params = draw_input(case.shape, 1), draw_params(CONV2D, case, 2)
    smaller = np.ascontiguousarray(x[:, :, crop:, crop:])
    result, _ = run_market(CONV2D, case, smaller, params, 1, dtype, 1, device="cpu")
    return result[..., 4 - crop : 10 - crop, 4 - crop : 10 - crop]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(
    ("channels", "out", "size", "filters"),
    [(64, 64, 16, True), (32, 40, 14, True), (16, 64, 16, False), (64, 16, 16, False)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_it_pays(channels, out, size, filters, kernel, dtype):
    """A direct sum does not know where in the image its pixel lies; a filter's tiles do."""
    case = case_of(2, channels, out, size, size, 0, kernel=kernel)
    whole, cropped = (inner_pixels(case, dtype, crop) for crop in (0, 1))
    # bfloat16: too coarse for the inputs of the larger kernel, and matrix units sum sooner
    if dtype == "bfloat16" and (kernel == 5 or mp.build_info()["isa"] == "amx"):
        filters = False
    assert np.array_equal(whole, cropped) != filters


SIZES = [(1, 1, 2), (3, 3, 0), (4, 9, 0), (5, 4, 1), (6, 6, 1), (7, 13, 1), (8, 8, 0), (16, 16, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("height", "width", "padding"), SIZES)
@pytest.mark.parametrize(("channels", "out"), [(32, 32), (33, 47), (128, 65)])
def test_sizes(channels, out, height, width, padding, dtype):
    check_case(case_of(3, channels, out, height, width, padding), dtype)


LARGER = [(1, 1, 2), (5, 5, 0), (6, 9, 0), (7, 6, 1), (8, 13, 2), (16, 16, 2)]


@pytest.mark.parametrize(("height", "width", "padding"), LARGER)
@pytest.mark.parametrize(("channels", "out"), [(32, 32), (33, 47)])
def test_sizes_of_larger_kernels(channels, out, height, width, padding):
    check_case(case_of(3, channels, out, height, width, padding, kernel=5), "float32")


@st.composite
def convolutions(draw):
    channels, out = draw(st.integers(32, 80)), draw(st.integers(32, 80))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    size = [draw(st.integers(max(1, 3 - 2 * p), 14)) for p in padding]
    return case_of(draw(st.integers(1, 4)), channels, out, *size, padding, draw(st.booleans()))


@given(convolutions(), st.sampled_from(DTYPES), st.integers(1, 3), st.integers(1, 3))
def test_any_size(case, dtype, vendors, threads):
    check_case(case, dtype, vendors, threads)


MARKET = [
    [conv(3, 32, 3, padding=1), RELU, conv(32, 48, 5, padding=1), RELU, POOL],
    [conv(48, 40, 3, padding=1), norm(40), RELU, conv(40, 33, 3), RELU, FLATTEN],
    [linear(528, 3)],
]
SHAPE = (5, 3, 14, 14)


@pytest.mark.parametrize("plan", ["tree", "star"])
def test_losses_of_a_market(plan):
    """A fused relu, an instance norm and a flattened result behind it, and vendors' deltas."""
    built, seeds = build(MARKET, (2, 3, 2)), fresh_seeds((2, 3, 2))
    x, y = batch(SHAPE)
    loss, paths = optimizer(built, seeds, plan=plan, threads=2).probe(x, y)
    deltas = built.deltas(seeds, AMPLITUDE)
    close(loss, oracle.path_losses(built.models, built.weights, deltas, x, y, paths))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(dtype):
    runs = []
    for threads in (1, 2, 3, 5):
        built = build(MARKET, (2, 3, 2))
        opt = optimizer(built, seed=3, dtype=dtype, threads=threads)
        losses = [opt.train_step(*batch(SHAPE, seed=step))[0] for step in range(3)]
        runs.append((np.array(losses), states(built)))
    for losses, state in runs[1:]:
        same_bits(losses, runs[0][0])
        same_states(state, runs[0][1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_company_changes_no_bits(dtype):
    """A sample alone, in a batch of many tiles, and among samples with paths of their own."""
    built = build(MARKET, (2, 3, 2))
    opt = optimizer(built, seed=3, dtype=dtype, threads=2)
    x, _ = batch((23, *SHAPE[1:]))
    whole, paths = mp.forward(built.specs, x, vendors=opt.vendors)
    alone, _ = mp.forward(built.specs, x[7:8], vendors=opt.vendors)
    same_bits(whole[:, 7:8], alone)
    rows = np.arange(len(x)) % len(paths)
    own = mp.continual.forward_with_paths(built.specs, x, paths[rows], opt)
    same_bits(own, np.asarray(whole)[rows, np.arange(len(x))])


@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_on_demand_change_no_bits(dtype):
    """Filtered weights of 200 vendors outgrow the budget, those of two do not."""
    layers = [[conv(64, 64, 3), RELU, FLATTEN, linear(6400, 3)]]
    x, _ = batch((2, 64, 12, 12))
    results = []
    for vendors in (2, 200):
        built, seeds = build(layers, (vendors,)), fresh_seeds((200,))
        opt = optimizer(built, [seeds[0][:vendors]], dtype=dtype, threads=2)
        results.append(np.asarray(mp.forward(built.specs, x, vendors=opt.vendors)[0])[:2])
    same_bits(*results)


def test_a_broken_network_shows():
    """NaN in a weight comes out of its channel, and of no other."""
    case = case_of(1, 64, 64, 12, 12, 1)
    x, params = draw_input(case.shape, 1), draw_params(CONV2D, case, 2)
    params["weight"][7, 5, 1, 1] = np.nan
    result, _ = run_market(CONV2D, case, x, params, 1, "float32", 1)
    assert np.isnan(result[0, 0, 7]).all()
    assert np.isfinite(np.delete(result[0, 0], 7, axis=0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("isa", usable_isas())
def test_with_another_instruction_set(isa):
    names = [
        "test_sizes",
        "test_sizes_of_larger_kernels",
        "test_losses_of_a_market",
        "test_company_changes_no_bits",
    ]
    nodes = [f"test_winograd.py::{name}" for name in names]
    few = ["-k", "not 128-65"]  # whose oracle takes its time
    done = run_with(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", *few, *nodes)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
