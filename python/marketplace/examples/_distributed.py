"""The examples on many machines: who makes which optimizer, and who writes and speaks."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

from ..data import Dataset
from ..distributed import RayCluster, mpi
from ..optimizers import Optimizer
from ._arguments import Defaults
from ._cli import Given
from ._markets import Structure
from ._run import take_step
from ._setup import set_up

_FILES = ("checkpoint", "plot", "json", "log", "mlflow", "tensorboard", "replay_log")
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a process needs for the same run as every other.

    Attributes
    ----------
    options : Options
        The command line.
    defaults : Defaults
        The example's defaults.
    load : callable
        Options, and what may be told of one line of text, to a data set.
    make_structure : callable
        Options and data set to the market's structure.
    """

    options: Any
    defaults: Defaults
    load: Callable[[Any, Report | None], Dataset]
    make_structure: Callable[[Any, Dataset], Structure]


def guarded(options: Given) -> contextlib.AbstractContextManager[None]:
    """Give the context that ends all of an MPI job when one rank fails."""
    return mpi.guard() if _engine(options) == "mpi" else contextlib.nullcontext()


def own_part(options: Given) -> Given:
    """Give this process's options: of an MPI job, the first rank alone writes files."""
    if options.distribution is None:
        return options
    changes: dict[str, Any] = {"threads": options.threads or 1}
    if not speaks(options):
        changes |= dict.fromkeys(_FILES) | {"quiet": True, "eval_every": max(options.steps, 1)}
    return dataclasses.replace(options, **changes)


def stop_signals(options: Given) -> tuple[int, ...]:
    """Give the signals that end a run between two steps.

    mpiexec sends SIGTERM to every rank, and ranks that stop at different steps wait for each other:
    there it ends the job at once.
    """
    mpi_job = _engine(options) == "mpi"
    return (signal.SIGINT,) if mpi_job else (signal.SIGINT, signal.SIGTERM)


def speaks(options: Given) -> bool:
    """Tell whether this process is the one that tells of the run."""
    return _engine(options) != "mpi" or mpi.rank() == 0


@contextlib.contextmanager
def optimizer_of(job: Job, dataset: Dataset) -> Iterator[Optimizer]:
    """Make the optimizer; within the context its probes are shared as the options say."""
    distribution = job.options.distribution
    if distribution is None:
        yield _make_optimizer(job, dataset)
    elif distribution.engine == "mpi":
        optimizer = _make_optimizer(job, dataset)
        with mpi.share(optimizer):
            yield optimizer
    else:
        with RayCluster(
            functools.partial(_make_worker, job),
            functools.partial(_step_worker, job),
            workers=distribution.workers,
            address=distribution.address,
            worker_options={"num_cpus": job.options.threads},
        ) as cluster:
            yield cluster.optimizer


def _engine(options: Given) -> str | None:
    return None if options.distribution is None else options.distribution.engine


def _make_optimizer(job: Job, dataset: Dataset) -> Optimizer:
    structure = job.make_structure(job.options, dataset)
    return set_up(job.options, job.defaults, structure, dataset.x_train.shape[1:])[1]


def _make_worker(job: Job) -> Optimizer:
    return _make_optimizer(job, _loaded(job))


def _step_worker(job: Job, optimizer: Optimizer) -> None:
    take_step(optimizer, _loaded(job), job.options)


@functools.lru_cache(maxsize=1)
def _loaded(job: Job) -> Dataset:
    return job.load(job.options, None)
