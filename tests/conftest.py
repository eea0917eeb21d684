"""Fixtures that several test files share."""

import os
import pathlib

import hypothesis
import marketplace
import numpy as np
import pytest
from marketplace import data
from marketplace.data import _cache

GOLDEN = pathlib.Path(__file__).parent / "golden"

# One example may wait for a thread pool to start; runs repeat exactly.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("suite")


def pytest_configure(config):
    """Name the mark of tests that a sanitizer would slow down, or whose figures it would spoil."""
    config.addinivalue_line("markers", "slow: nested test runs and measurements of this process")
    # where GPUs are to be tested, tests that find none must not pass by skipping
    if wanted := os.environ.get("MARKETPLACE_TEST_GPUS"):
        found = sum(device["kind"] != "cpu" for device in marketplace.devices())
        if found != int(wanted):
            raise pytest.UsageError(f"MARKETPLACE_TEST_GPUS: expected {wanted} GPUs, found {found}")


def _load(name):
    with np.load(GOLDEN / name) as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def golden_random():
    """Random numbers of the reference."""
    return _load("rng.npz")


@pytest.fixture(scope="session")
def golden():
    """A small market's results, as the reference computed them."""
    return _load("market.npz")


@pytest.fixture
def small_data(monkeypatch, tmp_path_factory):
    """Let a run learn 40 real digits and be tested on 20: the whole subset takes too long."""
    directory = tmp_path_factory.mktemp("cache")
    full = data.load("mnist", "bundled")
    for folder in ("mnist", "fashion-mnist"):
        (directory / folder).mkdir()
        arrays = (full.x_train[:40, 0], full.y_train[:40], full.x_test[:20, 0], full.y_test[:20])
        for name, array in zip(_cache.IDX_NAMES, arrays, strict=True):
            data.write_idx(directory / folder / name, array.astype(np.uint8))
    monkeypatch.setenv("MARKETPLACE_DATA", str(directory))
    return directory
