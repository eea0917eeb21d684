"""The reference's README runs as written, in all its spellings, with its tinygrad imports swapped.

Everything that the blocks of ``readme_blocks.py`` leave to their reader is defined here.
"""

import ast
import json
import subprocess
import sys

import marketplace as mp
import numpy as np
import pytest
from markets import same_bits
from readme_blocks import (
    EXPERIMENT_FORWARD,
    EXPERIMENT_MARKET,
    MUTATE,
    NEWEST_FORWARD,
    NEWEST_MARKET,
    OLDEST_FORWARD,
    OLDEST_MARKET,
)

VENDORS = 2


def run(code, names):
    """Run a block with its imports swapped; give the value of an expression that it ends with."""
    tree = ast.parse(code.replace("from tinygrad", "from marketplace"))
    last = tree.body[-1]
    calls_a_step = isinstance(last, ast.Expr) and ast.unparse(last).endswith("step(best_path)")
    if calls_a_step or not isinstance(last, ast.Expr):
        exec(compile(tree, "README.md", "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), "README.md", "exec"), names)
    return eval(compile(ast.Expression(last.value), "README.md", "eval"), names)


def names_for(spelling):
    """Give what a spelling's README leaves to its reader to define, and its market."""
    rng = np.random.default_rng(2)
    names = {
        "vendor_count": VENDORS,
        "batch_size": 4,
        "X_train": mp.Tensor(rng.integers(0, 256, size=(12, 1, 28, 28)).astype(np.uint8)),
        "Y_train": mp.Tensor(rng.integers(0, 10, size=12).astype(np.int32)),
    }
    if spelling == "oldest":  # which shows these imports only later, or not at all
        exec("from marketplace import Tensor", names)
        exec("from marketplace.multi_model import Spec, mutate", names)
        names["lr"] = mp.Tensor(1e-1)
    else:
        exec("from marketplace.training import mutate", names)
    mp.random.manual_seed(11)
    names["marketplace"] = run(MARKETS[spelling], names)
    return names


MARKETS = {"newest": NEWEST_MARKET, "oldest": OLDEST_MARKET, "experiment": EXPERIMENT_MARKET}
FORWARDS = {"newest": NEWEST_FORWARD, "oldest": OLDEST_FORWARD}
readme = pytest.mark.parametrize("spelling", FORWARDS)


@pytest.mark.parametrize("spelling", ["oldest", "experiment"])
def test_spellings_make_the_same_market(spelling):
    first, second = names_for("newest")["marketplace"], names_for(spelling)["marketplace"]
    assert [spec.vendor_count for spec in second] == [VENDORS] * 3
    for a, b in zip(first, second, strict=True):
        assert list(a.model.state_dict()) == list(b.model.state_dict())
        for key, value in a.model.state_dict().items():
            same_bits(value, b.model.state_dict()[key])


@readme
def test_forward_and_mutate(spelling):
    names = names_for(spelling)
    market = names["marketplace"]
    run(FORWARDS[spelling], names)
    # all vendors equal the base weights, and ties go to the first path
    assert names["best_path"].tolist() == [0, 0, 0]
    assert names["best_loss"].shape == (1,) and 0 <= names["best_accuracy"].item() <= 100

    before = [spec.model.state_dict() for spec in market]
    run(MUTATE, names)
    for spec, state in zip(market, before, strict=True):
        for key, value in spec.model.state_dict().items():
            same_bits(value, state[key])

    logits, paths = mp.forward(market, names["X_train"])
    assert len({tuple(path) for path in paths.tolist()}) == VENDORS**3
    same_bits(logits[0], mp.straight_forward(market, names["X_train"]))
    assert not np.allclose(logits[0], logits[-1])

    best_loss, _, best_path = names["forward_step"]()
    names["mutate_step"](best_path)
    chosen = logits[paths.tolist().index(best_path.tolist())]
    straight = mp.straight_forward(market, names["X_train"])
    np.testing.assert_allclose(straight, chosen, rtol=1e-4, atol=1e-4)


def test_spellings_compute_the_same():
    results = []
    for spelling in FORWARDS:
        names = names_for(spelling)
        run(FORWARDS[spelling], names)
        mp.random.manual_seed(4)
        run(MUTATE, names)
        results.append(names["forward_step"]())
    for one, other in zip(*results, strict=True):
        same_bits(one, other)


@pytest.mark.parametrize("meta_lr", [None, 0.3])
def test_experiment_through_the_optimizer(meta_lr):
    names = names_for("experiment")
    names |= {"initial_lr": 1e-1, "probe_scale": 0.1, "meta_lr": meta_lr}
    run(EXPERIMENT_FORWARD, names)
    opt, market = names["optimizer"], names["marketplace"]
    loss, paths = names["loss"], names["paths"]
    assert loss.shape == (VENDORS**3,) and names["accuracy"].shape == loss.shape
    assert len(set(loss.tolist())) == len(loss)
    x, y = names["X_train"][names["samples"]], names["Y_train"][names["samples"]]
    probed, _ = opt.probe(x, y)
    np.testing.assert_allclose(loss, probed, rtol=1e-5)

    before = market[2].model.state_dict()["layers.0.weight"]
    directions = opt.compute_direction_vectors(loss=loss, paths=paths)
    rates = None
    if meta_lr is not None:
        opt.update_lr_scales(directions)
        second, _, paths = names["forward_step"](names["samples"])
        _, best = second.topk(1, largest=False)
        rates = opt.get_learning_rates(paths[best.squeeze(0)])
    opt.update_weights(direction_delta=directions, learning_rates=rates)
    opt.update_seeds()
    rate = 0.1 if rates is None else rates[2]
    expected = before + rate * directions[2]["layers.0.weight"]
    after = market[2].model.state_dict()["layers.0.weight"]
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7)
    assert 0 <= names["get_test_acc"]().item() <= 100


def test_training_modes_of_the_oldest_spelling():
    from marketplace.multi_model import MultiModelBase

    for mode in (MultiModelBase.train, MultiModelBase.learn):
        with mode():
            pass

        @mode()
        def answer():
            return 42

        assert answer() == 42


def test_info_command():
    command = [sys.executable, "-m", "marketplace", "info"]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    told = json.loads(printed)
    assert told["build"] == mp.build_info() and told["devices"] == mp.devices()
    assert told["build"]["version"] == mp.__version__
    assert any(device["name"] == "cpu" for device in told["devices"])
