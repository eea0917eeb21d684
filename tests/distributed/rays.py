"""What the tests of Ray actors share."""

import re

import programs
import pytest

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")

from marketplace.distributed import RayCluster  # noqa: E402

MARKS = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_ray"),
    # what Ray leaves to the garbage collector when it shuts down
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def cluster(make=programs.make, step=programs.step, **options):
    """Make a cluster of four workers, unless told otherwise."""
    return RayCluster(make, step, **{"workers": 4, "timeout": 60.0} | options)


def pid_of(name):
    """Give the process of a worker's name."""
    return int(re.search(r"pid (\d+)", name)[1])


def in_worker():
    """Tell whether this is an actor."""
    return ray.get_runtime_context().worker.mode == ray.WORKER_MODE
