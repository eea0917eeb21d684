"""Steps of V2 against the oracle, in both plans and unit vector modes; losses that say nothing."""

import gc
import weakref

import numpy as np
import pytest
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    MODES,
    PLANS,
    VENDORS,
    batch,
    build,
    close,
    close_parameters,
    fresh_seeds,
    linear,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("description, shape", [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)])
def test_a_step_against_the_oracle(description, shape, plan, mode):
    built, seeds = build(description, VENDORS), fresh_seeds(VENDORS)
    x, y = batch(shape)
    opt = optimizer(built, seeds, plan=plan)
    deltas, weights = built.deltas(seeds, AMPLITUDE), built.weights
    loss, paths = opt.probe(x, y)
    expected = oracle.path_losses(built.models, weights, deltas, x, y, paths)
    direction = oracle.directions(expected, paths, deltas, mode.value, plan)
    opt.update_weights(opt.compute_direction_vectors(loss, paths, mode))
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
def test_directions_from_any_losses(plan, mode):
    built, seeds = build(MLP, VENDORS), fresh_seeds(VENDORS)
    paths = oracle.tree_paths(VENDORS) if plan == "tree" else oracle.star_paths(VENDORS)
    loss = np.random.default_rng(3).exponential(size=len(paths)).astype(np.float32)
    actual = optimizer(built, seeds, plan=plan).compute_direction_vectors(loss, paths, mode)
    deltas = built.deltas(seeds, AMPLITUDE)
    expected = oracle.directions(loss, paths, deltas, mode.value, plan)
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.keys() == theirs.keys()
        peak = max(np.abs(value).max() for value in theirs.values())
        for key, value in theirs.items():
            assert mine[key].dtype == np.float32
            close(mine[key], value, scale=peak)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
def test_coefficients_are_sums_of_z(plan, mode):
    """Normalising hides the scale of z, so it is read where the engine keeps it, in float32."""
    built, paths = build(MLP, VENDORS), PLANS[plan](VENDORS)
    loss = np.random.default_rng(3).exponential(size=len(paths)).astype(np.float32)
    opt = optimizer(built, fresh_seeds(VENDORS), plan=plan)
    actual = opt._native.coefficients(loss, paths, mode.value)
    expected = oracle.coefficients(loss, paths, VENDORS, mode.value, plan)
    for mine, theirs in zip(actual, expected, strict=True):
        assert np.array_equal(mine, np.float32(mine))
        close(mine, theirs, relative=2**-24 + 1e-12)


@pytest.mark.parametrize("plan", PLANS)
def test_directions_are_unit_vectors(plan):
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=1, plan=plan)
    loss, paths = opt.probe(x, y)
    for mode in MODES:
        direction = opt.compute_direction_vectors(loss, paths, mode)
        squares = [sum((np.float64(v) ** 2).sum() for v in d.values()) for d in direction]
        norms = [sum(squares)] if mode.value == "whole" else squares
        assert np.abs(np.sqrt(norms) - 1).max() < 1e-6


def test_better_vendors_pull_harder():
    """A spec of one linear layer: the direction leans towards the vendor with the lowest loss."""
    built, seeds = build([[linear(4, 3)]], (3,)), fresh_seeds((3,))
    opt = optimizer(built, seeds)
    loss = np.array([1.0, 0.5, 1.5], np.float32)
    direction = opt.compute_direction_vectors(loss, np.array([[0], [1], [2]], np.int32))[0]
    delta = opt.spec_context[0].delta
    lean = [sum((direction[k] * delta[k][v]).sum() for k in delta) for v in range(3)]
    assert lean[1] > 0 > lean[2]


@pytest.mark.parametrize("plan", PLANS)
def test_step_is_its_three_parts(plan):
    x, y = batch(CONV_SHAPE)
    one, other = build(CONV, VENDORS), build(CONV, VENDORS)
    whole, parts = (optimizer(built, seed=8, plan=plan) for built in (one, other))
    for _ in range(3):
        loss, paths = whole.probe(x, y)
        whole.step(loss, paths)
        same_bits(parts.probe(x, y)[0], loss)
        parts.update_weights(parts.compute_direction_vectors(loss, paths))
        parts.update_seeds(keep_leader=True)
    same_states(states(one), states(other))
    for a, b in zip(seeds_of(whole), seeds_of(parts), strict=True):
        same_bits(a, b)


def test_train_step_is_probe_and_step():
    x, y = batch(MLP_SHAPE)
    one, other = build(MLP, VENDORS), build(MLP, VENDORS)
    whole, parts = optimizer(one, seed=8), optimizer(other, seed=8)
    for _ in range(3):
        whole.train_step(x, y)
        parts.step(*parts.probe(x, y))
    same_states(states(one), states(other))


@pytest.mark.parametrize("plan", PLANS)
def test_training_learns(plan):
    """Two classes told apart by one input: the loss falls to less than half."""
    built = build(MLP, (4, 4, 4))
    x, _ = batch((64, 6))
    y = (x[:, 0] > 0).astype(np.int32)
    opt = optimizer(built, seed=1, plan=plan, learning_rate=0.2, probe_scale=0.1)
    first = opt.probe(x, y)[0][0]
    for _ in range(60):
        opt.step(*opt.probe(x, y))
    assert opt.probe(x, y)[0][0] < first / 2


def test_global_step_counts_steps():
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=1)
    for expected in (1, 2):
        opt.step(*opt.probe(*batch(MLP_SHAPE)))
        assert opt.global_step == expected


# -- losses that say nothing, or nonsense ----------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
def test_equal_losses_give_no_direction(plan, mode):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=3, plan=plan)
    _, paths = opt.probe(*batch(MLP_SHAPE))
    loss = np.full(len(paths), 1.25, np.float32)
    with pytest.warns(RuntimeWarning, match="equal"):
        direction = opt.compute_direction_vectors(loss, paths, mode)
    assert all((value == 0).all() for vectors in direction for value in vectors.values())


def test_a_step_on_equal_losses_moves_nothing_but_the_seeds():
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=3)
    paths, before, seeds = oracle.tree_paths(VENDORS), states(built), seeds_of(opt)
    with pytest.warns(RuntimeWarning, match="step: all losses are equal"):
        opt.step(np.full(len(paths), 1.25, np.float32), paths)
    same_states(before, states(built))
    assert not np.array_equal(seeds[0], seeds_of(opt)[0])


def test_a_single_path_gives_no_direction():
    built = build(MLP, (1, 1, 1))
    opt = optimizer(built, seed=3)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    before = states(built)
    with pytest.warns(RuntimeWarning, match="equal"):
        opt.step(loss, paths)
    same_states(before, states(built))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("plan", PLANS)
def test_losses_that_are_not_finite_change_nothing(plan, bad):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=3, plan=plan)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    loss[2] = bad
    before, seeds = states(built), seeds_of(opt)
    with pytest.raises(ValueError, match=r"step: expected finite losses, received .*path"):
        opt.step(loss, paths)
    same_states(before, states(built))
    for a, b in zip(seeds, seeds_of(opt), strict=True):
        same_bits(a, b)


@given(st.lists(st.floats(0, 100, width=32), min_size=60, max_size=60))
def test_any_finite_losses_give_finite_unit_directions(values):
    loss, paths = np.array(values, np.float32), oracle.tree_paths(VENDORS)
    opt = optimizer(build(MLP, VENDORS), fresh_seeds(VENDORS))
    if len(set(values)) == 1:
        return
    coefficients = opt._native.coefficients(loss, paths, "per_spec")
    directions = opt.compute_direction_vectors(loss, paths)
    for vectors, shares in zip(directions, coefficients, strict=True):
        total = sum((np.float64(value) ** 2).sum() for value in vectors.values())
        if np.any(shares[1:]):
            assert abs(total - 1) < 1e-5
        else:  # this spec's vendors are all as good
            assert total == 0


def test_writing_into_what_a_spec_shows_is_refused():
    opt = optimizer(build(MLP, VENDORS), fresh_seeds(VENDORS), meta_learning_rate=0.1)
    context = opt.spec_context[0]
    for shown in (context.seeds, context.learning_rate_scales, *context.delta.values()):
        with pytest.raises(ValueError, match="read-only"):
            shown[...] = 1
    assert opt.get_seeds([0, 0, 0]).flags.writeable
    direction = opt.compute_direction_vectors(np.arange(60.0), oracle.tree_paths(VENDORS))
    assert all(part.flags.writeable for spec in direction for part in spec.values())


@pytest.mark.parametrize("plan", ["tree", "star", "node", "scatter"])
def test_its_memory_goes_with_its_last_name(plan):
    """A GPU's memory does not wait for the collector of cycles."""
    opt = optimizer(build(MLP, VENDORS), seed=1, plan=plan)
    opt.train_step(*batch(MLP_SHAPE))
    gone = weakref.ref(opt)
    gc.disable()
    try:
        del opt
        assert gone() is None
    finally:
        gc.enable()
