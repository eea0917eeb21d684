"""The allocator: vendors within a number of operations, none that a spec cannot use."""

import re

import marketplace as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketplace.examples._markets import digit_structure
from marketplace.training import allocate_vendors
from markets import CONV, CONV_SHAPE, FLATTEN, MLP, RELU, build, conv, linear, norm

IMAGE = (1, 28, 28)
SMALL = CONV_SHAPE[1:]
CHAIN = [[conv(1, 3, 3), RELU], [conv(3, 4, 3), RELU, FLATTEN], [linear(64, 3)]]


def digits(name="depth-3"):
    """The beautiful-MNIST market."""
    return digit_structure(name).specs("star")


def flops_of(market, counts, plan, shape):
    """What a step of one sample costs, as the optimizer counts it."""
    for spec, count in zip(market, counts, strict=True):
        spec.vendor_count = count
    return mp.Optimizer(market, 0.1, plan=plan, seed=0).flops_per_step(shape, 1)


@pytest.mark.parametrize("budget", [5.3e7, 1e8, 413_259_776, 2e9, 1e11])
def test_a_star_within_its_budget(budget):
    market = digits()
    counts = allocate_vendors(market, IMAGE, plan="star", flops=budget)
    assert flops_of(market, counts, "star", IMAGE) <= budget
    for spec, count in zip(market, counts, strict=True):
        assert 1 <= count <= 1 + spec.model.parameter_count // 10


def test_a_star_shares_evenly_until_a_spec_has_enough():
    """Probes cost the specs from theirs on; the last has 5,770 parameters."""
    suffix = [26_426_624, 5_025_024, 11_520]
    counts = allocate_vendors(digits(), IMAGE, plan="star", flops=413_000_000)
    assert counts[2] == 1 + 577
    spent = [(count - 1) * cost for count, cost in zip(counts, suffix, strict=True)]
    assert abs(spent[0] - spent[1]) <= max(suffix)
    # one probe more of either of the others would be too much
    assert suffix[0] + sum(spent) + max(suffix) > 413_000_000


@given(st.integers(0, 3_000_000), st.integers(0, 3_000_000), st.sampled_from(["star", "node"]))
def test_more_operations_never_mean_fewer_vendors(a, b, plan):
    market, least = build(CHAIN, (1, 1, 1)).specs, 40_000
    fewer, more = (
        allocate_vendors(market, SMALL, plan=plan, flops=least + extra) for extra in sorted([a, b])
    )
    assert all(x <= y for x, y in zip(fewer, more, strict=True))
    assert flops_of(market, fewer, plan, SMALL) <= least + min(a, b)


def test_everything_has_enough_in_the_end():
    market = build(CHAIN, (1, 1, 1)).specs
    star = allocate_vendors(market, SMALL, plan="star", flops=1e12)
    assert star == [1 + max(spec.model.parameter_count // 10, 1) for spec in market]
    # 36 and 16 pixels of the convolutions' outputs; the output layer needs no probes
    assert allocate_vendors(market, SMALL, plan="node", flops=1e12) == [65, 17, 1]


def test_norms_have_columns_of_their_own():
    market = build([[conv(1, 3, 3), norm(3), FLATTEN], [linear(48, 3)]], (1, 1)).specs
    # 16 pixels, a weight and a bias
    assert allocate_vendors(market, (1, 6, 6), plan="node", flops=1e12) == [33, 1]


def test_a_linear_layer_needs_one_node_probe():
    market = build(MLP, (1, 1, 1)).specs
    assert allocate_vendors(market, (6,), plan="node", flops=1e9) == [2, 2, 1]


@pytest.mark.parametrize("budget", [2.7e7, 3e7, 5e7, 1.05e8, 4e8])
def test_node_probes_within_their_budget_go_where_they_are_cheap(budget):
    market = digits("depth-5")
    counts = allocate_vendors(market, IMAGE, plan="node", flops=budget)
    assert flops_of(market, counts, "node", IMAGE) <= budget
    assert counts[0] == 1 and counts[4] == 1 and counts[3] <= 65 and counts[2] <= 65
    assert counts[3] > counts[2] or counts[3] in (1, 65)


@pytest.mark.parametrize("budget", [3e7, 1.05e8, 4.1e8])
def test_the_next_node_probe_is_too_dear(budget):
    """The next is that of the spec that will then have taken the least."""
    market, caps = digits("depth-5"), [1025, 513, 65, 65, 1]
    counts = allocate_vendors(market, IMAGE, plan="node", flops=budget)

    def taken(spec):
        alone = [counts[spec] + 1 if other == spec else 1 for other in range(5)]
        return flops_of(market, alone, "node", IMAGE)

    spec = min((spec for spec in range(5) if counts[spec] < caps[spec]), key=taken)
    more = [count + (spec == other) for other, count in enumerate(counts)]
    assert flops_of(market, more, "node", IMAGE) > budget


def test_own_vendor_counts_do_not_matter_and_stay():
    one, other = digits(), digits()
    for spec, count in zip(other, (3, 1, 9), strict=True):
        spec.vendor_count = count
    found = [allocate_vendors(market, IMAGE, plan="star", flops=1e9) for market in (one, other)]
    assert found[0] == found[1]
    assert [spec.vendor_count for spec in other] == [3, 1, 9]


def test_a_spec_without_parameters_gets_its_leader_alone():
    market = build([[RELU], [linear(6, 4)]], (2, 2)).specs
    assert allocate_vendors(market, (6,), plan="star", flops=1e6) == [1, 3]


def test_the_least_that_a_plan_can_do():
    market = digits()
    with pytest.raises(ValueError, match=r"flops of at least 26438144, received 26438143"):
        allocate_vendors(market, IMAGE, plan="star", flops=26_438_143)
    assert allocate_vendors(market, IMAGE, plan="star", flops=26_438_144) == [1, 1, 2]
    with pytest.raises(ValueError, match=r"flops of at least 26438144"):
        allocate_vendors(market, IMAGE, plan="node", flops=26_438_143)
    assert allocate_vendors(market, IMAGE, plan="node", flops=26_438_144) == [1, 1, 1]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"plan": "tree"}, ValueError, "plan 'star' or 'node', received 'tree'"),
        ({"plan": "scatter"}, ValueError, "plan 'star' or 'node'"),
        ({"flops": float("nan")}, ValueError, "flops"),
        ({"flops": float("inf")}, ValueError, "flops"),
        ({"flops": -1}, ValueError, "flops of at least"),
        ({"flops": "many"}, TypeError, "flops"),
        ({"sample_shape": (3, 28, 28)}, ValueError, r"expected \(B, 1, H, W\)"),
        ({"sample_shape": (1, 28.5, 28)}, TypeError, "sample_shape as an integer"),
        ({"sample_shape": (1, 0, 28)}, ValueError, "sample_shape of at least 1"),
        ({"marketplace": []}, ValueError, "at least one Spec"),
        ({"marketplace": [3]}, TypeError, "a list of Spec"),
    ],
)
def test_bad_input(given, error, words):
    options = {"marketplace": digits(), "sample_shape": IMAGE, "plan": "star", "flops": 1e9}
    options |= given
    with pytest.raises(error, match=words):
        allocate_vendors(options.pop("marketplace"), options.pop("sample_shape"), **options)


def test_nothing_to_probe():
    market = build([[RELU]], (2,)).specs
    with pytest.raises(ValueError, match="a market with parameters"):
        allocate_vendors(market, (6,), plan="star", flops=1e9)


def test_a_market_that_node_perturbation_cannot_run():
    market = build(CONV[:2], (2, 2)).specs
    with pytest.raises(ValueError, match=re.escape("plan 'node'")):
        allocate_vendors(market, SMALL, plan="node", flops=1e9)


def test_trains_with_what_it_chose():
    market = build(CHAIN, (1, 1, 1)).specs
    counts = allocate_vendors(market, SMALL, plan="star", flops=200_000)
    for spec, count in zip(market, counts, strict=True):
        spec.vendor_count = count
    opt = mp.Optimizer(market, 0.1, probe_scale=0.1, plan="star", seed=1, threads=1)
    x = np.random.default_rng(0).normal(size=(4, *SMALL)).astype(np.float32)
    loss, _ = opt.train_step(x, np.array([0, 1, 2, 0]))
    assert len(loss) == 1 + sum(count - 1 for count in counts)
