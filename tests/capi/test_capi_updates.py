"""Line searches, replicas, several batches and V1 through the C ABI give Python's bits."""

import ctypes as c

import numpy as np
import pairs
import pytest
from clibrary import (
    RUNTIME,
    VALUE,
    COptimizer,
    OptimizerOptions,
    call,
    lib,
    refused,
    tensor,
)
from marketplace.optimizers import Optimizer

TREE, STAR, SCATTER, NODE = range(4)
RATE = 0.05
PLANS = {"tree": TREE, "star": STAR}


def batch(seed: int = 3, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (size, 1, 12, 12), dtype=np.uint8), draw.integers(0, 5, size)


def both(plan: str, seed: int = 11, **options: float) -> tuple[Optimizer, COptimizer, object]:
    """Make Python's optimizer and the C ABI's, of equal markets."""
    python, market = pairs.digits()
    first = Optimizer(python, RATE, seed=seed, plan=plan, device="cpu", **options)
    second = COptimizer(market, 3, seed=seed, learning_rate=RATE, plan=PLANS[plan], **options)
    return first, second, market


def assert_alike(first: Optimizer, market: object) -> None:
    for index, spec in enumerate(first.marketplace):
        for key, value in spec.model.state_dict().items():
            np.testing.assert_array_equal(market.get(index, key), value, err_msg=key)


def probed(first: Optimizer, second: COptimizer, x: np.ndarray, y: np.ndarray) -> tuple:
    """Probe with both; give what Python got."""
    expected = first.probe(x, y)
    for mine, theirs in zip(second.probe(tensor(x), tensor(y)), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    return expected


def take_step(first: Optimizer, second: COptimizer, seed: int) -> None:
    loss, paths = probed(first, second, *batch(seed))
    first.step(loss, paths)
    second.step(loss, paths, RATE)


@pytest.mark.parametrize("plan", PLANS)
def test_a_meta_learning_rate(plan: str) -> None:
    first, second, market = both(plan, meta_learning_rate=0.2)
    for step in range(4):
        first.meta_learning_rate = 0.2 / (1 + step)
        second.set_rate("meta_learning_rate", 0.2 / (1 + step))
        take_step(first, second, step)
        assert_alike(first, market)
        rates = [context.learning_rate for context in first.spec_context]
        np.testing.assert_array_equal(second.learning_rates(), np.float32(rates))
    assert len(set(second.learning_rates())) > 1


def test_several_batches_an_update() -> None:
    for options in ({}, {"meta_learning_rate": 0.2}):
        first, second, market = both("star", **options)
        for _ in range(3):
            for seed in range(3):
                x, y = batch(seed)
                loss, paths = first.accumulate(x, y)
                mean, rows = second.accumulate(tensor(x), tensor(y))
                np.testing.assert_array_equal(mean, loss)
                np.testing.assert_array_equal(rows, paths)
            first.step(loss, paths)
            second.step(mean, rows, RATE)
            assert_alike(first, market)


@pytest.mark.parametrize("options", [{}, {"meta_learning_rate": 0.2}], ids=["plain", "searched"])
def test_replicas(options: dict[str, float]) -> None:
    first, second, market = both("star", **options)
    for step in range(3):
        for _ in range(2):
            loss, paths = probed(first, second, *batch(step))
            first.add_replica(loss, paths)
            assert second.add_replica(loss, paths, RATE) is False
        take_step(first, second, step)
        assert_alike(first, market)


def test_dropped_replicas_leave_no_trace() -> None:
    first, second, market = both("star")
    second.add_replica(*second.probe(*map(tensor, batch())), RATE)
    second.drop_replicas()
    take_step(first, second, 1)
    assert_alike(first, market)


@pytest.mark.parametrize("plan", PLANS)
def test_the_best_vendors_are_kept(plan: str) -> None:
    first, second, market = both(plan)
    for step in range(3):
        loss, paths = probed(first, second, *batch(step))
        assert second.keep_best(loss, paths, RATE) == first.keep_best(loss, paths)
        assert_alike(first, market)


def test_a_probe_scale_that_changes() -> None:
    first, second, market = both("star")
    for scale in (0.5, 0.1):
        first.probe_scale = scale
        second.set_rate("probe_scale", scale)
        take_step(first, second, 1)
    first.probe_scale = None
    second.set_rate("probe_scale", 0)
    take_step(first, second, 2)
    take_step(first, second, 3)
    assert_alike(first, market)


def test_given_seeds() -> None:
    python, market = pairs.digits()
    counts = [spec.vendor_count for spec in python]
    seeds = [np.arange(count, dtype=np.uint64) * 7 for count in counts]
    first = Optimizer(python, RATE, seeds=seeds, seed=1, plan="star", device="cpu")
    row = (c.c_uint64 * sum(counts))(*map(int, np.concatenate(seeds)))
    given = {"plan": STAR, "learning_rate": RATE, "seed": 1, "seeds": row}
    second = COptimizer(market, 3, seed_count=len(row), **given)
    take_step(first, second, 1)
    take_step(first, second, 2)
    assert_alike(first, market)
    with refused(VALUE, "seed_count, vendors of all specs"):
        COptimizer(market, 3, seed_count=len(row) - 1, **given)
    with refused(VALUE, "expected seeds, received NULL"):
        COptimizer(market, 3, plan=STAR, learning_rate=RATE, seed_count=len(row))


def test_a_line_search_goes_on_from_files(tmp_path) -> None:
    first, second, market = both("star", meta_learning_rate=0.2)
    take_step(first, second, 1)
    first.save(tmp_path / "python")
    second.save(tmp_path / "c", 1)
    assert (tmp_path / "c").stat().st_size > 0
    take_step(first, second, 2)
    third, fourth, other = both("star", seed=99, meta_learning_rate=0.7)
    assert fourth.load(tmp_path / "python") == 1
    resumed = Optimizer.resume(tmp_path / "c", third.marketplace, device="cpu")
    assert resumed.meta_learning_rate == np.float32(0.2)
    take_step(resumed, fourth, 2)
    assert_alike(first, other)
    np.testing.assert_array_equal(fourth.learning_rates(), second.learning_rates())
    _, plain, _ = both("star")
    with refused(VALUE, "an optimizer without meta_learning_rate, received one with it"):
        plain.load(tmp_path / "c")


def test_an_older_program_has_no_line_search_and_no_seeds() -> None:
    """One that was compiled when the struct ended behind ignore_index."""
    _, market = pairs.digits()
    made, handle = OptimizerOptions(learning_rate=RATE, plan=STAR), c.c_void_p()
    made.size, made.seed_count = 64, 3  # what lies behind is none of the struct
    call("optimizer_create", market.handle, c.byref(made), c.byref(handle))
    lib.mp_optimizer_free(handle)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    first, second, market = both("star", meta_learning_rate=0.2)
    loss, paths = probed(first, second, *batch(1))
    with refused(VALUE, "finite learning_rate"):
        second.add_replica(loss, paths, float("nan"))
    with refused(VALUE, "vendors of spec 0 below"):
        second.keep_best(loss, paths + 100, RATE)
    with refused(VALUE, "count, one rate for each spec"):
        call("get_learning_rates", second.handle, c.c_void_p(loss.ctypes.data), c.c_int64(2))
    second.step(loss, paths, RATE)
    first.step(loss, paths)
    with refused(RUNTIME, "a probe before every step of a line search"):
        second.step(loss, paths, RATE)
    assert_alike(first, market)


def test_what_does_not_go_together_is_refused(tmp_path) -> None:
    _, second, market = both("star")
    result = second.probe(*map(tensor, batch()))
    second.add_replica(*result, RATE)
    with refused(RUNTIME, "no update under way, received 1 replicas"):
        second.save(tmp_path / "c", 1)
    with refused(RUNTIME, "an update without earlier replicas"):
        second.keep_best(*result, RATE)
    with refused(RUNTIME, "an optimizer that was made with one, received one without"):
        second.set_rate("meta_learning_rate", 0.1)
    with refused(VALUE, "'tree' or 'star' with meta_learning_rate"):
        COptimizer(market, 3, plan=SCATTER, learning_rate=RATE, meta_learning_rate=0.1)
    scatter = COptimizer(market, 3, plan=SCATTER, learning_rate=RATE)
    with refused(VALUE, "plan tree or star, received scatter"):
        scatter.keep_best(*scatter.probe(*map(tensor, batch())), RATE)
    with refused(VALUE, "6 samples that count, as in the batches before, received 4"):
        scatter.accumulate(*map(tensor, batch(1, 6)))
        scatter.accumulate(*map(tensor, batch(1, 4)))
