"""The scatter: every sample on a path of its own, against the float64 oracle and golden numbers."""

import marketplace as mp
import numpy as np
import pytest
import reference
import reference_market as oracle
from emulated import GPUS
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    DEEP,
    MLP,
    MLP_SHAPE,
    SHALLOW,
    batch,
    build,
    close,
    close_parameters,
    fresh_seeds,
    linear,
    norm,
    optimizer,
    same_bits,
    states,
)
from refusals import Trained, refusal

MARKETS = [
    pytest.param(CONV, (23, 1, 8, 8), (3, 4, 2), id="conv-3,4,2"),
    pytest.param(CONV, CONV_SHAPE, (7, 1, 9), id="more-vendors-than-samples"),
    pytest.param(MLP, MLP_SHAPE, (1, 1, 1), id="leaders-alone"),
    pytest.param(SHALLOW, (1, 6), (6,), id="one-sample"),
    pytest.param(DEEP, (33, 6), (2, 3, 2, 4), id="depth4"),
]


def scatter(built, seeds=None, **options):
    return optimizer(built, seeds, plan="scatter", **options)


def oracle_losses(built, seeds, x, y, paths):
    """Every sample through its own path in float64."""
    deltas = built.deltas(seeds, AMPLITUDE)
    logits = oracle.forward_with_paths(built.models, built.weights, deltas, x, paths)
    return np.array(
        [reference.cross_entropy(logits[b : b + 1], y[b : b + 1]) for b in range(len(y))]
    )


def base_loss(built, x, y):
    return reference.cross_entropy(np.asarray(mp.straight_forward(built.specs, x)), y)


# -- losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("description, shape, vendors", MARKETS)
def test_probe_is_every_sample_on_its_own(description, shape, vendors):
    built, seeds = build(description, vendors), fresh_seeds(vendors)
    x, y = batch(shape)
    loss, paths = scatter(built, seeds, seed=3).probe(x, y)
    assert loss.dtype == np.float32 and paths.dtype == np.int32
    assert np.array_equal(paths, oracle.scatter_paths(3, 0, shape[0], vendors))
    close(loss, oracle_losses(built, seeds, x, y, paths))


def test_the_control_variate_takes_the_base_loss_away():
    vendors = (3, 4, 2)
    built, seeds = build(CONV, vendors), fresh_seeds(vendors)
    x, y = batch((23, 1, 8, 8))
    loss, paths = scatter(built, seeds, seed=3, control_variate=True).probe(x, y)
    assert np.array_equal(paths, oracle.scatter_paths(3, 0, 23, vendors))
    plain = oracle_losses(built, seeds, x, y, paths)
    base = oracle_losses(built, seeds, x, y, np.zeros_like(paths))
    close(loss, plain - base, scale=np.abs(plain).max())
    leaders = ~paths.any(axis=1)
    assert leaders.any() and not loss[leaders].any()


def test_ignored_labels_are_left_out():
    built, seeds = build(MLP, (3, 2, 2)), fresh_seeds((3, 2, 2))
    x, y = batch((17, 6))
    kept = y != 1
    for control in (False, True):
        opt = scatter(built, seeds, seed=3, control_variate=control)
        loss, paths = opt.probe(x, y, ignore_index=1)
        every, every_path = opt.probe(x, np.where(kept, y, 0))
        assert 0 < kept.sum() < 17
        same_bits(loss, every[kept])
        assert np.array_equal(paths, every_path[kept])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_are_those_of_forward_with_paths(dtype):
    built = build(CONV, (3, 4, 2))
    x, y = batch((23, 1, 8, 8))
    opt = scatter(built, seed=3, dtype=dtype)
    loss, paths = opt.probe(x, y)
    logits = mp.continual.forward_with_paths(built.specs, x, paths, opt)
    close(loss, mp.functional.cross_entropy(logits, y, reduction="none"), relative=1e-6)


def test_panels_on_demand_change_no_bits():
    """Nine vendors of the second spec outgrow what is packed at once; two do not."""
    wide, x_y = [[linear(6, 1300)], [linear(1300, 1300)], [linear(1300, 3)]], batch((9, 6))
    paths = oracle.scatter_paths(1, 0, 9, (2, 2, 2))
    results = []
    for count in (2, 9):
        built = build(wide, (2, count, 2))
        seeds = fresh_seeds((2, 9, 2))
        seeds[1] = seeds[1][:count]
        opt = scatter(built, seeds, threads=2)
        results.append(mp.continual.forward_with_paths(built.specs, x_y[0], paths, opt))
    same_bits(*results)


# -- paths -----------------------------------------------------------------------------------------


def test_paths_are_a_function_of_seed_and_generation():
    built = build(MLP, (3, 4, 5))
    x, y = batch((40, 6))
    opt = scatter(built, seed=9)
    for generation in range(3):
        loss, paths = opt.probe(x, y)
        assert np.array_equal(paths, oracle.scatter_paths(9, generation, 40, (3, 4, 5)))
        same_bits(opt.probe(x, y)[0], loss)
        opt.step(loss, paths)
    assert not np.array_equal(scatter(built, seed=10).probe(x, y)[1], paths)


def test_every_vendor_meets_its_share_of_samples():
    x, y = batch((22, 6))
    paths = scatter(build(MLP, (3, 4, 5)), seed=9).probe(x, y)[1]
    for spec, count in enumerate((3, 4, 5)):
        met = np.bincount(paths[:, spec], minlength=count)
        assert met.sum() == 22 and met.max() - met.min() <= 1


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [None, "per_spec", "whole"])
@pytest.mark.parametrize("control_variate", [False, True])
def test_step_is_the_oracles(mode, control_variate):
    vendors = (3, 4, 2)
    built, seeds = build(CONV, vendors), fresh_seeds(vendors)
    x, y = batch((23, 1, 8, 8))
    opt = scatter(built, seeds, seed=3, control_variate=control_variate)
    loss, paths = opt.probe(x, y)
    deltas = built.deltas(seeds, AMPLITUDE)
    direction = oracle.directions(loss, paths, deltas, mode or "whole")
    expected = oracle.step(built.weights, direction, [0.3] * 3)
    opt.step(loss, paths, *([mode] if mode else []))
    close_parameters(built, expected)
    assert opt.global_step == opt.generation == 1


def test_the_same_bits_for_any_number_of_threads():
    results = []
    for threads in (1, 2, 5):
        built = build(CONV, (3, 4, 2))
        opt = scatter(built, seed=3, threads=threads, control_variate=True)
        for step in range(3):
            loss, paths = opt.train_step(*batch((23, 1, 8, 8), seed=step))
        results.append([loss, *(v for state in states(built) for v in state.values())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            same_bits(a, b)


def test_it_learns():
    built = build(MLP, (4, 4, 4))
    x, _ = batch((96, 6))
    y = np.argmax(x[:, :3], axis=1)
    opt = scatter(built, seed=3, control_variate=True, learning_rate=0.1, probe_scale=0.5)
    before = base_loss(built, x, y)
    steps, share = (120, 0.6) if not GPUS else (20, 0.97)  # an emulated one is slow
    for _ in range(steps):
        opt.train_step(x, y)
    assert base_loss(built, x, y) < share * before


def test_running_statistics_stay():
    """A sample alone has no batch statistics, so none are met and none absorbed."""
    description = [[norm(6, "batch_norm"), linear(6, 3)]]
    built = build(description, (3,))
    before = {k: v for k, v in states(built)[0].items() if "running" in k}
    assert before
    x, y = batch((12, 6))
    scatter(built, seed=3).train_step(x, y)
    for key, value in before.items():
        same_bits(built.specs[0].model.state_dict()[key], value)


def test_flops_are_those_of_inference():
    built = build(MLP, (3, 4, 5))
    once = 2 * (6 * 5 + 5 * 4 + 4 * 3)
    assert scatter(built).flops_per_step((6,), 10) == 10 * once
    opt = scatter(built, control_variate=True)
    assert opt.flops_per_step((6,), 10) == 20 * once
    assert opt.flops_per_step((6,), 10, forward_pass=2, marketplace_replica=3) == 120 * once


# -- bad input -------------------------------------------------------------------------------------


@pytest.fixture
def trained():
    found = Trained(MLP, MLP_SHAPE, plan="scatter", seed=1)
    yield found
    found.assert_unchanged()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_names_its_path(trained, value):
    loss = trained.loss.copy()
    loss[4] = value
    path = "(" + ", ".join(map(str, trained.paths[4])) + ")"
    with refusal(ValueError, "finite", path):
        trained.opt.step(loss, trained.paths)


@pytest.mark.parametrize("rows", [0, 6, 8])
def test_as_many_paths_as_losses(trained, rows):
    with refusal(ValueError, "(7, 3)", f"({rows}, 3)"):
        trained.opt.step(trained.loss, np.zeros((rows, 3), np.int32))


def test_a_vendor_that_is_not_there(trained):
    trained.paths[2, 1] = 3
    with refusal(ValueError, "spec 1", "below 3"):
        trained.opt.step(trained.loss, trained.paths)


def test_labels_out_of_range(trained):
    with refusal(ValueError, "labels from 0 to 2", "3 at sample 5"):
        trained.opt.probe(trained.x, np.array([0, 1, 2, 0, 1, 3, 0]))


def test_only_ignored_labels(trained):
    with refusal(ValueError, "a label other than ignore_index"):
        trained.opt.probe(trained.x, np.zeros(7, np.int32), ignore_index=0)


def test_a_line_search_is_refused(trained):
    with refusal(ValueError, "meta_learning_rate", "'scatter'"):
        optimizer(trained.built, plan="scatter", meta_learning_rate=0.5)
    trained.opt.meta_learning_rate = 0.5
    with refusal(ValueError, "meta_learning_rate", "'scatter'"):
        trained.opt.probe(trained.x, trained.y)
    trained.opt.meta_learning_rate = None


def test_upstream_sampling_is_refused():
    built = build(MLP, (2, 3, 2), sampling=[0, 1, 0])
    with refusal(ValueError, "upstream_sampling", "'scatter'"):
        scatter(built)


@pytest.mark.parametrize("plan", ["tree", "star"])
def test_a_control_variate_needs_a_scatter(plan):
    with refusal(ValueError, "control_variate", repr(plan)):
        optimizer(build(MLP, (2, 3, 2)), plan=plan, control_variate=True)


def test_equal_losses_warn_and_move_nothing():
    built = build(MLP, (2, 3, 2))
    opt = scatter(built, seed=1)
    before = states(built)
    with pytest.warns(RuntimeWarning, match="all losses are equal"):
        opt.step(np.ones(4), np.ones((4, 3), np.int32))
    for a, b in zip(before, states(built), strict=True):
        for key in a:
            same_bits(a[key], b[key])
