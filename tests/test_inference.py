"""Plain inference: markets and packed weights that are kept, and never older than the weights."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import marketplace as mp
import numpy as np
import pytest
from marketplace import _core, _inference
from markets import FLATTEN, RELU, batch, build, conv, linear, norm, optimizer, same_bits

NORMED = [[conv(1, 5, 3), norm(5, "batch_norm"), RELU, FLATTEN], [linear(180, 3)]]
SHAPE = (7, 1, 8, 8)


def answers(specs, x):
    return np.asarray(mp.straight_forward(specs, x))


def expected(specs, x, dtype="float32", threads=1):
    """What a market of its own gives, that has never run before."""
    market = _core.Market(_core.Engine("cpu", dtype, threads), [s.model._core for s in specs])
    return market.infer(x)


def double(spec):
    spec.model.load_state_dict({k: 2 * v for k, v in spec.model.state_dict().items()})


def train(built, x, y):
    """Make a step: weights and running statistics move."""
    opt = optimizer(built, seed=3)
    opt.step(*opt.probe(x, y))


def test_every_change_of_a_market_is_seen():
    built = build(NORMED, (2, 2))
    x, y = batch(SHAPE)
    seen = [answers(built.specs, x)]
    changes = [
        lambda: double(built.specs[1]),
        lambda: train(built, x, y),
        lambda: setattr(built.specs[1], "model", build(NORMED, (1, 1), seed=9).specs[1].model),
        lambda: mp.mutate(built.specs, [1, 1], 0.1, seed=1),
        lambda: mp.mutate(built.specs, [1, 1], 0.1, seed=2),
    ]
    for change in changes:
        change()
        seen.append(answers(built.specs, x))
        same_bits(seen[-1], expected(built.specs, x))
        same_bits(seen[-1], answers(built.specs, x))
    assert len({values.tobytes() for values in seen}) >= len(changes)


def test_running_statistics_alone_are_seen():
    built = build(NORMED, (1, 1))
    x, _ = batch(SHAPE)
    before = answers(built.specs, x)
    state = built.specs[0].model.state_dict()
    built.specs[0].model.load_state_dict({**state, "layers.1.running_mean": np.full(5, 0.5)})
    after = answers(built.specs, x)
    assert (before != after).any()
    same_bits(after, expected(built.specs, x))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_calls_of_a_market_take_the_memory(dtype):
    """Other vendors are packed where the base weights were, and inference packs those again."""
    models = [spec.model._core for spec in build(NORMED, (1, 1)).specs]
    market = _core.Market(_core.Engine("cpu", dtype, 2), models)
    x, y = batch(SHAPE)
    wanted = market.infer(x)
    others = [_core.VendorWeights.seeded(np.array([5, 6], np.uint64), 0.5)] * 2
    paths = np.ones((7, 2), np.int32)
    for call in (
        lambda: market.losses(_core.Plan.star([2, 2]), others, x, y, None),
        lambda: market.forward(_core.Plan.tree([2, 2], [None, None]), others, x),
        lambda: market.forward_paths(others, x, paths),
        lambda: market.infer(x[:2]),
    ):
        call()
        same_bits(market.infer(x), wanted)


LARGE = [
    pytest.param([[linear(700, 333)]], (5, 700), id="linear"),
    pytest.param([[conv(70, 83, 3, padding=1)]], (17, 70, 9, 9), id="winograd"),
    pytest.param([[conv(70, 83, 5)]], (3, 70, 9, 9), id="conv"),
    pytest.param([[conv(96, 64, 3, groups=2)]], (2, 96, 5, 5), id="groups"),
    pytest.param([[conv(64, 64, 3, groups=64)]], (2, 64, 5, 5), id="depthwise"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("description, shape", LARGE)
def test_weights_packed_in_pieces(description, shape, dtype):
    """Vendors whose delta is drawn are packed in one go, others piece by piece."""
    model = build(description, (1,)).specs[0].model._core
    x, _ = batch(shape)
    market = _core.Market(_core.Engine("cpu", dtype, 3), [model])
    plan = _core.Plan.rows(np.zeros(1, np.int32), np.zeros(1, np.int32))
    flat = np.concatenate([model.get(key).ravel() for key in sorted(model.parameter_keys)])
    whole = market.forward(
        plan, [_core.VendorWeights.seeded(np.array([5], np.uint64), 0.0)], x[None]
    )
    direction = _core.VendorWeights.scaled(np.ones_like(flat), np.zeros(1, np.float32))
    for weights in (_core.VendorWeights.explicit(flat[None]), direction):
        same_bits(market.forward(plan, [weights], x[None]), whole)
    same_bits(market.infer(x), whole[0])


def test_a_market_is_kept_as_long_as_its_models():
    built = build(NORMED, (1, 1))
    x, _ = batch(SHAPE)
    answers(built.specs, x)
    models = [spec.model._core for spec in built.specs]
    engine = mp._arrays.default_engine()
    market = weakref.ref(_inference.inference_market(engine, models))
    assert market() is not None
    assert _inference.inference_market(engine, models) is market()
    assert _inference.inference_market(engine, models[:1]) is not market()
    del models[1], built.specs[1]
    gc.collect()
    assert market() is None


def test_the_oldest_markets_make_room(monkeypatch):
    engine = mp._arrays.default_engine()
    models = [build([[linear(6, 5)]], (1,)).specs[0].model._core for _ in range(3)]
    monkeypatch.setattr(_inference, "_kept", {})
    monkeypatch.setattr(_inference, "_MOST_BYTES", 2 * 4 * 35)
    markets = [_inference.inference_market(engine, [model]) for model in models]
    assert [_inference.inference_market(engine, [m]) for m in models[1:]] == markets[1:]
    assert _inference.inference_market(engine, models) is not _inference.inference_market(
        engine, models
    )  # larger than all that is kept
    assert len(_inference._kept) == 2
    monkeypatch.setattr(_inference, "_MOST_MARKETS", 1)
    _inference.inference_market(engine, models[:1])
    assert len(_inference._kept) == 1


def test_threads_share_a_market():
    built = build(NORMED, (1, 1))
    batches = [batch(SHAPE, seed=seed)[0] for seed in range(16)]
    wanted = [expected(built.specs, x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for result, want in zip(
            pool.map(lambda x: answers(built.specs, x), batches), wanted, strict=True
        ):
            same_bits(result, want)
