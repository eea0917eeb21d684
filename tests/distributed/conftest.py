"""Lets Ray's workers import the programs of these tests."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session", autouse=True)
def environment():
    """Set what the workers inherit."""
    with pytest.MonkeyPatch.context() as patch:
        here = str(pathlib.Path(__file__).parent)
        patch.setenv("PYTHONPATH", here, prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield
