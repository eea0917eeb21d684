"""How losses become scores: z, centred ranks and signs, against NumPy, on every plan."""

import marketplace as mp
import numpy as np
import pytest
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from marketplace import replay
from markets import (
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    MODES,
    VENDORS,
    batch,
    build,
    close,
    fresh_seeds,
    optimizer,
    same_bits,
    same_states,
    states,
)
from recorded import same_arrays

SHAPINGS = ("z", "rank", "sign")


def rank_scores(loss):
    """0.5 less the share of the others that are lower, equal ones counting half."""
    lower = (loss[None] < loss[:, None]).sum(1) + ((loss[None] == loss[:, None]).sum(1) - 1) / 2
    return 0.5 - lower / (len(loss) - 1)


def sign_scores(loss):
    """The side of the median."""
    return np.sign(np.median(loss) - loss)


SCORES = {"z": oracle.z_scores, "rank": rank_scores, "sign": sign_scores}


def coefficients(loss, paths, vendors, mode, plan, shaping):
    """Sums of scores over the paths through each vendor, by their definition."""
    loss, sums = np.asarray(loss, np.float64), []
    for spec, count in enumerate(vendors):
        own = np.zeros(count)
        rows = np.arange(len(paths))
        if plan == "star" and mode == "per_spec":
            rows = np.array([p for p in rows if not np.delete(paths[p], spec).any()])
        if len(rows) > 1:
            np.add.at(own, paths[rows, spec], SCORES[shaping](loss[rows]))
        sums.append(own)
    return sums


def paths_of(plan, vendors):
    """All paths of a plan; of a scatter, those of 33 samples."""
    if plan == "scatter":
        return oracle.scatter_paths(5, 0, 33, vendors)
    return oracle.tree_paths(vendors) if plan == "tree" else oracle.star_paths(vendors)


def check(loss, plan, mode, shaping, vendors=VENDORS):
    """Compare the engine's coefficients to NumPy's."""
    paths = paths_of(plan, vendors)
    opt = optimizer(build(MLP, vendors), seed=5, plan=plan, shaping=shaping)
    actual = opt._native.coefficients(loss, paths, mode.value)
    expected = coefficients(loss, paths, vendors, mode.value, plan, shaping)
    for mine, theirs in zip(actual, expected, strict=True):
        assert np.array_equal(mine, np.float32(mine))
        close(mine, theirs, relative=2**-22, scale=max(np.abs(theirs).max(), 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", ["tree", "star", "scatter"])
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_coefficients_against_numpy(shaping, plan, mode):
    count = len(paths_of(plan, VENDORS))
    loss = np.random.default_rng(3).exponential(size=count).astype(np.float32)
    check(loss, plan, mode, shaping)
    check(loss[::-1].copy(), plan, mode, shaping)


@given(
    arrays.arrays(np.float32, 7, elements=st.integers(-2, 2).map(float)),
    st.sampled_from(MODES),
    st.sampled_from(["rank", "sign"]),
)
def test_equal_losses_share_a_score(loss, mode, shaping):
    check(loss, "star", mode, shaping, vendors=(1, 3, 5))


@pytest.mark.parametrize("shaping", ["rank", "sign"])
def test_only_the_order_counts(shaping):
    loss = np.random.default_rng(4).normal(size=60).astype(np.float32)
    opt = optimizer(build(MLP, VENDORS), seed=5, shaping=shaping)
    paths = oracle.tree_paths(VENDORS)
    plain, bent = (opt._native.coefficients(x, paths, "whole") for x in (loss, np.exp(3 * loss)))
    for a, b in zip(plain, bent, strict=True):
        same_bits(a, b)


def test_shapings_differ():
    built = build(MLP, VENDORS)
    found = []
    for shaping in SHAPINGS:
        opt = optimizer(build(MLP, VENDORS), seed=5, shaping=shaping)
        opt.train_step(*batch(MLP_SHAPE))
        found.append(opt.marketplace[0].model.state_dict()["layers.0.weight"])
        assert opt.shaping == shaping
    assert not any(np.array_equal(found[i], found[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    built_opt = optimizer(built, seed=5)
    built_opt.train_step(*batch(MLP_SHAPE))
    same_bits(built.specs[0].model.state_dict()["layers.0.weight"], found[0])  # z as ever


@pytest.mark.parametrize("shaping", SHAPINGS)
@pytest.mark.parametrize("plan", ["tree", "star"])
def test_equal_losses_say_nothing(plan, shaping):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=5, plan=plan, shaping=shaping)
    paths, before = paths_of(plan, VENDORS), states(built)
    with pytest.warns(RuntimeWarning, match="all losses are equal"):
        opt.step(np.full(len(paths), 0.7, np.float32), paths)
    same_states(before, states(built))


@pytest.mark.parametrize("shaping", SHAPINGS)
@pytest.mark.parametrize("plan", ["tree", "star", "scatter"])
def test_replay_to_the_bit(tmp_path, plan, shaping):
    opt = optimizer(build(CONV, VENDORS), seed=3, plan=plan, shaping=shaping)
    seen = []
    with replay.Recorder(tmp_path / "log", opt):
        for step in range(3):
            opt.train_step(*batch(CONV_SHAPE, seed=step), marketplace_replica=1 + step)
            seen.append([spec.model.state_dict() for spec in opt.marketplace])
    for step, specs in enumerate(seen, start=1):
        same_arrays(replay.rebuild(tmp_path / "log", step), specs, step)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_resumes_to_the_bit(tmp_path, shaping):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=3, plan="star", shaping=shaping)
    opt.train_step(*batch(MLP_SHAPE))
    opt.save(tmp_path / "state")
    opt.train_step(*batch(MLP_SHAPE, seed=2))
    other = build(MLP, VENDORS, seed=9)
    again = mp.Optimizer.resume(tmp_path / "state", other.specs, threads=1)
    assert again.shaping == shaping
    again.train_step(*batch(MLP_SHAPE, seed=2))
    same_states(states(built), states(other))


def test_unknown_shapings_are_refused():
    with pytest.raises(ValueError, match="shaping: expected 'z', 'rank' or 'sign', received 'Z'"):
        optimizer(build(MLP, VENDORS), shaping="Z")


@pytest.mark.parametrize("shaping", ["rank", "sign"])
def test_node_perturbation_has_no_scores(shaping):
    with pytest.raises(ValueError, match=f"'z' with plan 'node'.*received '{shaping}'"):
        optimizer(build(MLP, VENDORS), fresh_seeds(VENDORS), plan="node", shaping=shaping)
