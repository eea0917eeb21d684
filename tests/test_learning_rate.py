"""Learning rates: given, live, per spec, and found by the line search."""

import marketplace as mp
import numpy as np
import pytest
import reference_market as oracle
from markets import (
    AMPLITUDE,
    MLP,
    MLP_SHAPE,
    PLANS,
    VENDORS,
    batch,
    build,
    close,
    close_parameters,
    fresh_seeds,
    optimizer,
    same_states,
    seeds_of,
    states,
)


def test_learning_rate_may_be_a_live_array():
    rate = mp.Tensor(0.3)
    built, seeds = build(MLP, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds, learning_rate=rate)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    deltas, weights = built.deltas(seeds, AMPLITUDE), built.weights
    direction = oracle.directions(loss, paths, deltas)
    rate.assign(rate * 0.5)
    opt.update_weights(opt.compute_direction_vectors(loss, paths))
    close_parameters(built, oracle.step(weights, direction, [0.15] * 3))
    opt.update_seeds()
    delta = oracle.delta(built.shapes(1), int(seeds_of(opt)[1][2]), 0.15 * 0.4)
    for key, value in delta.items():
        close(opt.spec_context[1].delta[key][2], value)


def test_learning_rate_may_be_assigned():
    built, seeds = build(MLP, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    direction = oracle.directions(loss, paths, built.deltas(seeds, AMPLITUDE))
    weights = built.weights
    opt.learning_rate = 0.05
    opt.step(loss, paths)
    close_parameters(built, oracle.step(weights, direction, [0.05] * 3))


def test_learning_rate_per_spec():
    built, seeds = build(MLP, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    direction = oracle.directions(loss, paths, built.deltas(seeds, AMPLITUDE))
    weights = built.weights
    opt.update_weights(opt.compute_direction_vectors(loss, paths), [0.1, 0.0, 0.4])
    close_parameters(built, oracle.step(weights, direction, [0.1, 0.0, 0.4]))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("mode", ["per_spec", "whole"])
def test_meta_learning_rate_against_the_oracle(plan, mode):
    """Two steps: the second probes with each spec's own learning rate."""
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=13, meta_learning_rate=0.5, plan=plan)
    rates = np.full(3, 0.3)
    for _ in range(2):
        weights, seeds = built.weights, seeds_of(opt)
        deltas = oracle.all_deltas(weights, seeds, rates * 0.4)
        loss, paths = opt.probe(x, y)
        close(loss, oracle.path_losses(built.models, weights, deltas, x, y, paths))
        direction = oracle.directions(loss, paths, deltas, mode, plan=plan)
        scales = [oracle.meta_scales(built.shapes(i), seeds[i], 0.5) for i in range(3)]
        trial = [oracle.meta_deltas(direction[i], rates[i], scales[i]) for i in range(3)]
        second = oracle.path_losses(built.models, weights, trial, x, y, paths)
        rates = oracle.meta_learning_rates(rates, scales, paths[np.argmin(second)])
        opt.step(loss, paths, mode)
        close_parameters(built, oracle.step(weights, direction, rates))
        close([context.learning_rate for context in opt.spec_context], rates)


def test_meta_learning_rate_honours_the_unit_vector_mode():
    built, seeds = build(MLP, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds, meta_learning_rate=0.5)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    direction = opt.compute_direction_vectors(loss, paths, mp.UnitVectorMode.whole)
    opt.update_lr_scales(direction)
    for context, vectors in zip(opt.spec_context, direction, strict=True):
        for key, value in vectors.items():
            close(context.delta[key][0], 0.3 * value, relative=1e-6)


def test_meta_scales_of_the_leader_are_zero():
    opt = optimizer(build(MLP, VENDORS), seed=2, meta_learning_rate=0.5)
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    opt.update_lr_scales(opt.compute_direction_vectors(loss, paths))
    for context in opt.spec_context:
        scales = np.asarray(context.learning_rate_scales)
        assert scales[0] == 0 and (scales[1:] != 0).all() and (np.abs(scales) <= 0.5).all()
    assert opt.get_learning_rates([0, 0, 0]).tolist() == [np.float32(0.3)] * 3


def test_lr_scales_need_a_meta_learning_rate():
    opt = optimizer(build(MLP, VENDORS), seed=2)
    direction = opt.compute_direction_vectors(*opt.probe(*batch(MLP_SHAPE)))
    with pytest.raises(RuntimeError, match=r"expected .*meta_learning_rate.* received"):
        opt.update_lr_scales(direction)


def test_meta_step_needs_a_probed_batch():
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=2, meta_learning_rate=0.5)
    paths = oracle.tree_paths(VENDORS)
    before = states(built)
    with pytest.raises(RuntimeError, match=r"expected .*probe.* received"):
        opt.step(np.arange(len(paths), dtype=np.float32), paths)
    same_states(before, states(built))
