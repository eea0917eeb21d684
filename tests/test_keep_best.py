"""V1: the best path's vendors become the base weights."""

import numpy as np
import pytest
import reference_market as oracle
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    PLANS,
    VENDORS,
    batch,
    build,
    close_parameters,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)
from updates import MASTER, refused, replica_seeds


@pytest.mark.parametrize("plan", PLANS)
def test_keep_best_against_the_oracle(plan):
    built, (x, y) = build(CONV, VENDORS), batch(CONV_SHAPE)
    opt = optimizer(built, seed=MASTER, plan=plan)
    deltas, weights = built.deltas(replica_seeds(0), AMPLITUDE), built.weights
    paths = PLANS[plan](VENDORS)
    losses = oracle.path_losses(built.models, weights, deltas, x, y, paths)
    best = int(np.argmin(losses))
    assert opt.keep_best(*opt.probe(x, y)) == best
    chosen = [deltas[i][v] for i, v in enumerate(paths[best])]
    close_parameters(
        built, [oracle.vendor_weights(w, d) for w, d in zip(weights, chosen, strict=True)]
    )
    assert (opt.global_step, opt.generation) == (1, 1)
    for actual, expected in zip(seeds_of(opt), replica_seeds(0, generation=1), strict=True):
        same_bits(actual, expected)


def test_keep_best_takes_the_first_of_equals():
    built, paths = build(MLP, VENDORS), oracle.star_paths(VENDORS)
    opt = optimizer(built, seed=MASTER, plan="star")
    loss = np.full(len(paths), 2.0, np.float32)
    loss[[4, 7]] = 1.0
    assert opt.keep_best(loss, paths) == 4


def test_keep_best_of_the_leader_changes_nothing():
    built, paths = build(MLP, VENDORS), oracle.star_paths(VENDORS)
    opt, before = optimizer(built, seed=MASTER, plan="star"), states(built)
    assert opt.keep_best(np.arange(len(paths), dtype=np.float32), paths) == 0
    same_states(before, states(built))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("count", [1, 2])
def test_keep_best_of_is_a_probe_and_keep_best(plan, count):
    markets = [build(CONV, VENDORS) for _ in range(2)]
    whole, parts = (optimizer(built, seed=MASTER, plan=plan) for built in markets)
    for step in range(3):
        x, y = batch((6, *CONV_SHAPE[1:]), seed=step)
        loss, paths = whole.keep_best_of(x, y, forward_pass=count)
        for part in np.split(np.arange(6), count):
            expected, rows = parts.accumulate(x[part], y[part])
        parts.keep_best(expected, rows)
        same_bits(loss, expected)
        same_bits(paths, rows)
    same_states(states(markets[0]), states(markets[1]))
    assert (whole.global_step, whole.generation) == (parts.global_step, parts.generation) == (3, 3)
    for mine, theirs in zip(seeds_of(whole), seeds_of(parts), strict=True):
        same_bits(mine, theirs)


def test_keep_best_of_refuses_what_keep_best_refuses():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    with refused(opt, built, ValueError, "keep_best_of"):
        opt.keep_best_of(x, y, forward_pass=2)  # seven samples
    opt.add_replica(*opt.probe(x, y))
    with pytest.raises(RuntimeError, match="keep_best: expected an update without"):
        opt.keep_best_of(x, y)
    for plan in ("scatter", "node"):
        opt = optimizer(built, seed=MASTER, plan=plan)
        with refused(opt, built, ValueError, "keep_best_of: expected plan 'tree' or 'star'"):
            opt.keep_best_of(x, y)


def test_v1_learns():
    built = build(MLP, (4, 4, 4))
    x, _ = batch((64, 6))
    y = (x[:, 0] > 0).astype(np.int32)
    opt = optimizer(built, seed=1, learning_rate=0.1, probe_scale=None)
    first = opt.probe(x, y)[0][0]
    for _ in range(60):
        opt.keep_best(*opt.probe(x, y))
    assert opt.probe(x, y)[0][0] < 0.5 * first


def test_keep_best_refuses_what_step_refuses():
    built, paths = build(MLP, VENDORS), oracle.star_paths(VENDORS)
    opt = optimizer(built, seed=MASTER, plan="star")
    loss = np.ones(len(paths), np.float32)
    loss[3] = np.nan
    with refused(opt, built, ValueError, r"finite losses.*\(0, 1, 0\)"):
        opt.keep_best(loss, paths)
    far = paths.copy()
    far[2, 1] = 4
    words = "vendors of spec 1 below 4"
    with refused(opt, built, ValueError, words):
        opt.keep_best(np.ones(len(paths)), far)


def test_keep_best_does_not_mix_with_replicas():
    opt, (x, y) = optimizer(build(MLP, VENDORS), seed=MASTER), batch(MLP_SHAPE)
    opt.add_replica(*opt.probe(x, y))
    with pytest.raises(RuntimeError, match="keep_best: expected an update without"):
        opt.keep_best(*opt.probe(x, y))


@pytest.mark.parametrize("plan", ["scatter", "node"])
def test_keep_best_needs_whole_paths(plan):
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER, plan=plan)
    scores = opt.probe(x, y)
    with refused(opt, built, ValueError, "keep_best: expected plan 'tree' or 'star' with V1"):
        opt.keep_best(*scores)
