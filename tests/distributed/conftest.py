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


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for all tests of a file: it takes seconds to start."""
    import ray

    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(params=["channels", "tasks"])
def way(request, monkeypatch):
    """How messages go to Ray's actors: through shared memory, or as to other machines."""
    from marketplace.distributed import _ray_exchange

    if request.param == "tasks":
        monkeypatch.setattr(_ray_exchange, "is_far", lambda: True)
    return request.param
