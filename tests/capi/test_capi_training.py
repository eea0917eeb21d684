"""Training through the C ABI gives Python's bits: losses, paths, weights, files."""

import ctypes as c
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pairs
import pytest
from clibrary import VALUE, COptimizer, call, lib, refused, tensor
from marketplace.checkpoint import load_checkpoint, write_checkpoint
from marketplace.optimizers import Optimizer
from marketplace.training import Spec, straight_forward

TREE, STAR, SCATTER, NODE = range(4)
# Python's options, the C ABI's
RUNS = {
    "tree": ({"plan": "tree"}, {"plan": TREE}),
    "star": ({"plan": "star", "probe_scale": 0.1}, {"plan": STAR, "probe_scale": 0.1}),
    "star-adam": ({"plan": "star", "update": "adam"}, {"plan": STAR, "update": 4}),
    "tree-rank-momentum": (
        {"plan": "tree", "shaping": "rank", "update": "momentum", "momentum": 0.5},
        {"plan": TREE, "shaping": 1, "update": 2, "momentum": 0.5},
    ),
    "star-sign-clipup": (
        {"plan": "star", "shaping": "sign", "update": "clipup"},
        {"plan": STAR, "shaping": 2, "update": 3},
    ),
    "star-antithetic": ({"plan": "star", "antithetic": True}, {"plan": STAR, "antithetic": 1}),
    "scatter": (
        {"plan": "scatter", "control_variate": True},
        {"plan": SCATTER, "control_variate": 1},
    ),
    "node": ({"plan": "node"}, {"plan": NODE}),
}


def check_weights(python: list[Spec], market: pairs.CMarket) -> None:
    for index, spec in enumerate(python):
        for key, value in spec.model.state_dict().items():
            np.testing.assert_array_equal(market.get(index, key), value, err_msg=key)


def batches(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    return draw.integers(0, 256, shape, dtype=np.uint8), draw.integers(0, classes, shape[:1])


@pytest.mark.parametrize("run", RUNS)
def test_steps_have_the_same_bits(run: str) -> None:
    python, market = pairs.digits()
    own, given = RUNS[run]
    first = Optimizer(python, 0.05, seed=2**63 + 9, device="cpu", **own)
    second = COptimizer(market, 3, seed=2**63 + 9, learning_rate=0.05, **given)
    for step in range(4):
        x, y = batches((6, 1, 12, 12), 5)
        rate = np.float32(0.05 / (1 + step))
        expected, rows = first.probe(x, y)
        loss, paths = second.probe(tensor(x), tensor(y))
        np.testing.assert_array_equal(loss, expected)
        np.testing.assert_array_equal(paths, rows)
        first.learning_rate = rate
        first.step(expected, rows)
        assert second.step(loss, paths, rate) is False
        check_weights(python, market)


@pytest.mark.parametrize("run", [*RUNS, "meta"])
def test_a_step_in_one_call_has_the_same_bits(run: str) -> None:
    python, market = pairs.digits()
    search = {"meta_learning_rate": 0.1}
    own, given = (RUNS | {"meta": ({"plan": "star"} | search, {"plan": STAR} | search)})[run]
    first = Optimizer(python, 0.05, seed=7, device="cpu", **own)
    second = COptimizer(market, 3, seed=7, learning_rate=0.05, **given)
    for step in range(3):
        x, y = batches((6, 1, 12, 12), 5)
        first.learning_rate = rate = np.float32(0.05 / (1 + step))
        expected, rows = first.train_step(x, y)
        loss, paths, equal = second.train_step(tensor(x), tensor(y), rate)
        np.testing.assert_array_equal(loss, expected)
        np.testing.assert_array_equal(paths, rows)
        assert equal is False
        check_weights(python, market)


def test_every_layer_trains_to_the_same_bits() -> None:
    python, market = pairs.every_layer()
    x = np.random.default_rng(1).normal(size=(5, 4, 9, 11)).astype(np.float32)
    y = np.array([0, 6, 2, 3, 1], np.int16)
    first = Optimizer(python, 0.1, plan="tree", seed=4, device="cpu")
    second = COptimizer(market, 2, seed=4, learning_rate=0.1)
    for _ in range(3):
        expected, rows = first.probe(x, y)
        loss, paths = second.probe(tensor(x), tensor(y))
        np.testing.assert_array_equal(loss, expected)
        first.step(expected, rows)
        second.step(loss, paths, 0.1)
    check_weights(python, market)
    assert market.get(0, "layers.1.num_batches_tracked") == 3
    np.testing.assert_array_equal(market.infer(x), straight_forward(python, x))


def test_ignored_labels_count_for_nothing() -> None:
    python, market = pairs.digits()
    x, y = batches((8, 1, 12, 12), 5)
    y[::2] = 9
    first = Optimizer(python, 0.1, plan="scatter", seed=1, device="cpu")
    options = {"plan": SCATTER, "use_ignore_index": 1, "ignore_index": 9}
    second = COptimizer(market, 3, seed=1, learning_rate=0.1, **options)
    expected, rows = first.probe(x, y, ignore_index=9)
    loss, paths = second.probe(tensor(x), tensor(y))
    assert len(loss) == 4
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(paths, rows)


def test_equal_losses_are_told() -> None:
    _, market = pairs.digits()
    optimizer = COptimizer(market, 3, plan=STAR, learning_rate=0.1)
    paths = np.zeros((10, 3), np.int32)
    paths[1:3, 0], paths[3:6, 1], paths[6:, 2] = [1, 2], [1, 2, 3], [1, 2, 3, 4]
    assert optimizer.step(np.full(10, 2, np.float32), paths, 0.1) is True


def test_a_market_outlives_its_handle_in_its_optimizer() -> None:
    _, market = pairs.digits()
    optimizer = COptimizer(market, 3, plan=STAR, learning_rate=0.1)
    x, y = batches((4, 1, 12, 12), 5)
    del market
    loss, paths = optimizer.probe(tensor(x), tensor(y))
    optimizer.step(loss, paths, 0.1)
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("make", [pairs.digits, pairs.every_layer])
def test_files_are_pythons_to_the_byte(make, tmp_path) -> None:
    python, market = make()
    write_checkpoint(python, 12345, tmp_path / "python")
    market.save(tmp_path / "c", 12345)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "python").read_bytes()


def test_files_are_read_both_ways(tmp_path) -> None:
    python, market = pairs.every_layer()
    market.initialize(99)
    market.save(tmp_path / "c", 7)
    assert load_checkpoint(python, tmp_path / "c") == 7
    check_weights(python, market)
    market.initialize(98)
    optimizer = Optimizer(python, 0.1, update="adam", device="cpu", seed=0)
    optimizer.global_step = 8
    optimizer.save(tmp_path / "python")  # with the state of an optimizer, which is passed over
    assert market.load(tmp_path / "python") == 8
    check_weights(python, market)


@pytest.mark.parametrize("run", RUNS)
def test_training_goes_on_in_the_other_language(run: str, tmp_path) -> None:
    python, market = pairs.digits()
    own, given = RUNS[run]
    x, y = batches((6, 1, 12, 12), 5)
    first = Optimizer(python, 0.05, seed=7, device="cpu", **own)
    first.train_step(x, y)
    first.save(tmp_path / "python")
    second = COptimizer(market, 3, seed=8, learning_rate=0.5, **given)
    assert second.load(tmp_path / "python") == 1
    loss, paths = second.probe(tensor(x), tensor(y))
    second.step(loss, paths, 0.05)
    np.testing.assert_array_equal(first.train_step(x, y)[0], loss)
    check_weights(python, market)
    second.save(tmp_path / "c", 2)
    resumed = Optimizer.resume(tmp_path / "c", pairs.digits()[0], device="cpu")
    assert resumed.global_step == 2
    loss, paths = second.probe(tensor(x), tensor(y))
    second.step(loss, paths, 0.05)
    np.testing.assert_array_equal(resumed.train_step(x, y)[0], loss)
    check_weights(resumed.marketplace, market)


def test_markets_are_independent_of_one_another() -> None:
    def train(seed: int) -> list[np.ndarray]:
        _, market = pairs.digits()
        x, y = batches((6, 1, 12, 12), 5)
        optimizer = COptimizer(market, 3, plan=STAR, learning_rate=0.1, seed=seed)
        losses = []
        for _ in range(5):
            loss, paths = optimizer.probe(tensor(x), tensor(y))
            optimizer.step(loss, paths, 0.1)
            losses.append(loss)
        return losses

    seeds = [1, 2, 3, 4]
    alone = [train(seed) for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(train, seeds)), alone)


def test_every_thread_has_its_own_last_error() -> None:
    _, market = pairs.digits()
    with refused(VALUE, "get_weights: expected spec"):
        call("get_weights", market.handle, c.c_int64(9), b"", None, c.c_int64(0))
    own = lib.mp_last_error()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lib.mp_last_error).result() == b""
        pool.submit(lib.mp_market_create, None).result()
    assert lib.mp_last_error() == own
