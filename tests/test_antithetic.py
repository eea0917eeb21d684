"""Antithetic vendors: pairs with one seed and opposite deltas behind the leader."""

import marketplace as mp
import numpy as np
import pytest
import reference_market as oracle
from marketplace import replay
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    MODES,
    PLANS,
    batch,
    build,
    close,
    close_parameters,
    fresh_seeds,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)
from recorded import same_arrays

VENDORS = (3, 4, 5)
MASTER = 19


def paired_seeds(generation=0, replica=0):
    """The documented seeds, vendor 2k taking that of vendor 2k - 1."""
    found = []
    for spec, count in enumerate(VENDORS):
        seeds = oracle.derive_seeds(MASTER, generation, spec, count, replica)
        found.append([seeds[v - 1] if v and v % 2 == 0 else s for v, s in enumerate(seeds)])
    return [np.array(seeds, np.uint64) for seeds in found]


def mirrored(deltas):
    """The oracle's deltas, those of vendors 2, 4, ... turned round."""
    return [
        [
            {key: -value for key, value in delta.items()} if v and v % 2 == 0 else delta
            for v, delta in enumerate(vendors)
        ]
        for vendors in deltas
    ]


def antithetic(built, **options):
    """An optimizer with antithetic vendors."""
    return optimizer(built, **({"seed": MASTER, "antithetic": True} | options))


@pytest.mark.parametrize("description", [CONV, MLP])
def test_deltas_are_exact_opposites(description):
    opt = antithetic(build(description, VENDORS))
    assert opt.antithetic
    for mine, theirs in zip(seeds_of(opt), paired_seeds(), strict=True):
        same_bits(mine, theirs)
    for context in opt.spec_context:
        for value in context.delta.values():
            delta = np.asarray(value)
            assert not delta[0].any() and delta[1].any()
            for v in range(2, len(delta), 2):
                assert np.array_equal(delta[v], -delta[v - 1])
            if len(delta) > 3:
                assert not np.array_equal(np.abs(delta[3]), np.abs(delta[1]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("description, shape", [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)])
def test_a_step_against_the_oracle(description, shape, plan, mode):
    built = build(description, VENDORS)
    x, y = batch(shape)
    opt = antithetic(built, plan=plan)
    deltas = mirrored(built.deltas(paired_seeds(), AMPLITUDE))
    weights = built.weights
    loss, paths = opt.probe(x, y)
    expected = oracle.path_losses(built.models, weights, deltas, x, y, paths)
    close(loss, expected)
    direction = oracle.directions(expected, paths, deltas, mode.value, plan)
    opt.step(loss, paths, mode)
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))
    for mine, theirs in zip(seeds_of(opt), paired_seeds(1), strict=True):
        same_bits(mine, theirs)


def test_replicas_are_paired_too():
    opt, data = antithetic(build(MLP, VENDORS)), batch(MLP_SHAPE)
    opt.add_replica(*opt.probe(*data))
    for mine, theirs in zip(seeds_of(opt), paired_seeds(0, 1), strict=True):
        same_bits(mine, theirs)


def test_keep_best_may_keep_a_mirrored_vendor():
    built = build(MLP, VENDORS)
    opt = antithetic(built)
    paths = oracle.tree_paths(VENDORS)
    deltas, before = mirrored(built.deltas(paired_seeds(), AMPLITUDE)), built.weights
    loss = np.ones(len(paths), np.float32)
    best = int(np.flatnonzero((paths == [2, 2, 4]).all(1))[0])
    loss[best] = 0
    assert opt.keep_best(loss, paths) == best
    expected = [
        {key: value + own[v][key] for key, value in base.items()}
        for base, own, v in zip(before, deltas, (2, 2, 4), strict=True)
    ]
    close_parameters(built, expected)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("plan", ["tree", "star"])
def test_replay_to_the_bit(tmp_path, plan, threads):
    opt = antithetic(build(CONV, VENDORS), plan=plan, threads=threads)
    seen = []
    with replay.Recorder(tmp_path / "log", opt):
        for step in range(3):
            opt.train_step(*batch(CONV_SHAPE, seed=step), marketplace_replica=1 + step)
            seen.append([spec.model.state_dict() for spec in opt.marketplace])
        opt.keep_best(*opt.probe(*batch(CONV_SHAPE)))
        seen.append([spec.model.state_dict() for spec in opt.marketplace])
    for step, specs in enumerate(seen, start=1):
        same_arrays(replay.rebuild(tmp_path / "log", step, threads=2), specs, step)


def test_a_log_of_pairs_is_no_longer_than_another(tmp_path):
    sizes = []
    for pairs in (False, True):
        opt = antithetic(build(MLP, VENDORS), antithetic=pairs)
        with replay.Recorder(tmp_path / str(pairs), opt):
            before = (tmp_path / str(pairs)).stat().st_size
            opt.train_step(*batch(MLP_SHAPE))
            sizes.append((tmp_path / str(pairs)).stat().st_size - before)
    assert sizes[0] == sizes[1]


def test_resumes_to_the_bit(tmp_path):
    built = build(MLP, VENDORS)
    opt = antithetic(built, plan="star")
    opt.train_step(*batch(MLP_SHAPE))
    opt.save(tmp_path / "state")
    opt.train_step(*batch(MLP_SHAPE, seed=2))
    other = build(MLP, VENDORS, seed=9)
    again = mp.Optimizer.resume(tmp_path / "state", other.specs, threads=1)
    assert again.antithetic
    again.train_step(*batch(MLP_SHAPE, seed=2))
    same_states(states(built), states(other))


def test_given_seeds_must_come_in_pairs():
    seeds = paired_seeds()
    opt = antithetic(build(MLP, VENDORS), seeds=seeds)
    for mine, theirs in zip(seeds_of(opt), seeds, strict=True):
        same_bits(mine, theirs)
    words = "the seed of vendor 1 for vendor 2 too, its antithetic one in spec 0"
    with pytest.raises(ValueError, match=words):
        antithetic(build(MLP, VENDORS), seeds=fresh_seeds(VENDORS))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plan": "scatter"}, "'tree' or 'star' with antithetic, received 'scatter'"),
        ({"plan": "node"}, "'tree' or 'star' with antithetic, received 'node'"),
        ({"meta_learning_rate": 0.3}, "antithetic: expected False with meta_learning_rate"),
    ],
)
def test_refused_where_pairs_have_no_meaning(options, words):
    with pytest.raises(ValueError, match=words):
        antithetic(build(MLP, VENDORS), **options)


def test_a_line_search_begun_later_is_refused_too():
    opt = antithetic(build(MLP, VENDORS))
    opt.meta_learning_rate = 0.3
    words = "antithetic: expected False with meta_learning_rate, received True"
    for call in (opt.probe, opt.train_step):
        with pytest.raises(ValueError, match=words):
            call(*batch(MLP_SHAPE))
    opt.meta_learning_rate = None
    opt.step(*opt.probe(*batch(MLP_SHAPE)))
