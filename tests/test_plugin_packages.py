"""``marketplace-cuda`` and ``marketplace-hip`` beside the core, with and without a GPU."""

import importlib.metadata
import importlib.util
import pathlib

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn


@pytest.fixture(params=["cuda", "hip"])
def kind(request):
    """Name a plugin that is installed as a distribution."""
    if importlib.util.find_spec(f"marketplace_{request.param}") is None:
        pytest.skip(f"marketplace-{request.param} is not installed")
    return request.param


def train(device):
    """Losses and weights of three steps."""
    market = [mp.Spec(nn.Model(nn.Linear(6, 5), nn.relu, nn.Linear(5, 3)), vendor_count=4)]
    optimizer = mp.Optimizer(market, learning_rate=0.1, probe_scale=0.1, device=device, seed=1)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    losses = []
    for _ in range(3):
        loss, paths = optimizer.probe(x, np.arange(8) % 3)
        optimizer.step(loss, paths)
        losses.append(loss)
    return losses, market[0].model.state_dict()


def test_it_is_made_for_this_core_and_found_in_its_own_folder(kind):
    version = importlib.metadata.version("marketplace")
    assert importlib.metadata.version(f"marketplace-{kind}") == version
    assert f"marketplace=={version}" in importlib.metadata.requires(f"marketplace-{kind}")
    folder = pathlib.Path(importlib.util.find_spec(f"marketplace_{kind}").origin).parent
    assert mp.build_info()["plugins"][kind]["path"] == str(folder / f"libmarketplace_{kind}.so")
    assert kind in mp.build_info()["backends"]


def test_without_a_gpu_it_says_why_and_all_else_works(kind):
    problem = mp.build_info()["plugins"][kind]["problem"]
    if problem is None:
        pytest.skip(f"this machine has a device for {kind}")
    assert "expected" in problem or "does not load" in problem
    assert [device["name"] for device in mp.devices()][0] == "cpu"
    with pytest.raises(RuntimeError, match=f"device: expected .*{kind}:0"):
        mp.Optimizer([mp.Spec(nn.Model(nn.Linear(2, 2)), 2)], 0.1, device=f"{kind}:0")
    losses, weights = train("cpu")
    assert np.isfinite(losses).all()
    assert all(np.isfinite(array).all() for array in weights.values())
