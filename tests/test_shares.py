"""Probes shared out: whoever evaluates a path, its loss has the same bits."""

import marketplace as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import (
    FLATTEN,
    POOL,
    RELU,
    batch,
    build,
    conv,
    linear,
    norm,
    optimizer,
    same_bits,
    same_states,
    states,
)
from refusals import refusal

VENDORS = (3, 4, 40)
SHAPE = (13, 1, 12, 12)


def layers(kind):
    return [
        [conv(1, 7, 3), norm(7, kind), RELU, POOL],
        [conv(7, 5, 3), RELU, norm(5, kind), FLATTEN],
        [linear(45, 3)],
    ]


def make(plan, kind="instance_norm", sampling=0, **options):
    built = build(layers(kind), VENDORS)
    built.specs[1].upstream_sampling = sampling
    return built, optimizer(built, seed=3, plan=plan, learning_rate=0.1, threads=1, **options)


def shared_losses(native, x, y, bounds):
    """What workers with these shares find, back in the order of the paths."""
    parts = [
        native.probe_share(x, y, None, first, last)
        for first, last in zip(bounds, bounds[1:], strict=False)
    ]
    losses = np.empty(native.path_order.size, dtype=np.float32)
    losses[native.path_order] = np.concatenate(parts)
    return losses


CASES = [
    pytest.param("star", {}, id="star"),
    pytest.param("tree", {}, id="tree"),
    pytest.param("tree", {"sampling": 2}, id="sampled"),
    pytest.param("star", {"dtype": "bfloat16"}, id="bfloat16"),
    pytest.param("star", {"kind": "batch_norm"}, id="batch_norm"),
    pytest.param("tree", {"kind": "batch_norm", "sampling": 2}, id="batch_norm_sampled"),
]


@pytest.mark.parametrize(("plan", "options"), CASES)
def test_losses_do_not_depend_on_the_shares(plan, options):
    _, opt = make(plan, **options)
    x, y = batch(SHAPE)
    expected, paths = opt.probe(x, y)
    native = opt._native
    same_bits(native.paths, paths)
    assert sorted(native.path_order) == list(range(len(paths)))

    @settings(max_examples=15)
    @given(st.lists(st.integers(0, len(paths)), max_size=5))
    def check(cuts):
        same_bits(shared_losses(native, x, y, [0, *sorted(cuts), len(paths)]), expected)

    check()


def test_sums_over_a_large_plan_are_cut_like_the_whole_plans():
    """Beyond 32,768 paths the losses of a batch are summed in fewer pieces, for memory's sake."""
    built = build([[linear(6, 5)], [linear(5, 3)]], (2, 40_000))
    opt = optimizer(built, seed=3, plan="tree", learning_rate=0.1, threads=2)
    x, y = batch((64, 6))
    expected = opt.probe(x, y)[0]
    same_bits(shared_losses(opt._native, x, y, [0, 100, 40_000, 80_000]), expected)


@pytest.mark.parametrize(("plan", "options"), CASES[-2:])
def test_the_leaders_statistics_do_not_depend_on_the_shares(plan, options):
    x, y = batch(SHAPE)
    whole, one = make(plan, **options)
    one.step(*one.probe(x, y))
    shared, opt = make(plan, **options)
    native = opt._ready()
    native.probe_leader(x, y, None, False)
    losses = shared_losses(native, x, y, [0, 1, 17, native.path_order.size])
    opt.step(losses, native.paths)
    same_states(states(whole), states(shared))


def share_costs(native, bounds, flops):
    """Count, for every share, the rows that its paths run, each at its spec's cost."""
    paths = native.paths[native.path_order]
    costs = []
    for first, last in zip(bounds, bounds[1:], strict=False):
        rows = [{tuple(path[: i + 1]) for path in paths[first:last]} for i in range(len(flops))]
        costs.append(sum(len(r) * (f + 1) for r, f in zip(rows, flops, strict=True)))
    return costs


@pytest.mark.parametrize("plan", ["tree", "star"])
@given(speeds=st.lists(st.floats(0.2, 5.0), min_size=1, max_size=6))
def test_shares_follow_speeds_and_costs(plan, speeds):
    built, opt = make(plan)
    native = opt._native
    bounds, costs = native.cut(SHAPE[1:], speeds)
    assert bounds[0] == 0 and bounds[-1] == native.path_order.size
    assert (np.diff(bounds) >= 0).all()
    shape, flops = SHAPE[1:], []
    for spec in built.specs:
        flops.append(spec.model._core.flops(shape))
        shape = spec.model._core.output_shape(shape)
    np.testing.assert_allclose(costs, share_costs(native, bounds, flops), rtol=1e-9)
    # no cut is better by more than one path of a whole chain for everybody
    times = np.array(costs) / speeds
    whole = sum(flops) + len(flops)
    total = share_costs(native, [0, native.path_order.size], flops)[0]
    assert times.max() <= (total + len(speeds) * whole) / sum(speeds) + whole / min(speeds)


def test_more_shares_than_paths_leave_some_empty():
    _, opt = make("star")
    count = opt._native.path_order.size
    bounds, costs = opt._native.cut(SHAPE[1:], [1.0] * (count + 3))
    assert np.count_nonzero(np.diff(bounds)) <= count
    assert bounds[-1] == count
    x, y = batch(SHAPE)
    assert opt._native.probe_share(x, y, None, 2, 2).size == 0


@pytest.mark.parametrize("plan", ["node", "scatter"])
def test_plans_without_paths_to_share_are_refused(plan):
    specs = [mp.Spec(mp.nn.Model(mp.nn.Linear(6, 3)), vendor_count=3)]
    opt = mp.Optimizer(specs, 0.1, plan=plan, seed=1, threads=1)
    x, y = batch((5, 6))
    with refusal(ValueError, "'tree' or 'star'", f"'{plan}'"):
        opt._native.probe_share(x, y, None, 0, 1)
    with refusal(ValueError, "'tree' or 'star'", f"'{plan}'"):
        opt._native.cut((6,), [1.0])
    with refusal(ValueError, "'tree' or 'star'", f"'{plan}'"):
        opt._native.probe_leader(x, y, None, False)


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 10_000)])
def test_shares_out_of_range_are_refused(bounds):
    _, opt = make("star")
    with refusal(ValueError, "shares", "45 paths"):
        opt._native.probe_share(*batch(SHAPE), None, *bounds)


@pytest.mark.parametrize("speeds", [[], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_speeds_that_say_nothing_are_refused(speeds):
    _, opt = make("star")
    with refusal(ValueError, "shares"):
        opt._native.cut(SHAPE[1:], speeds)
