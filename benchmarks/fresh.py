"""One contender alone in a process of its own: peak memory, and its first run beside later ones.

Memory is the kernel's high-water mark of resident memory (VmHWM), less what was resident once the
library was imported. The maximum of ``getrusage`` would not do: it includes the parent's memory.
"""

import contextlib
import dataclasses
import multiprocessing
import pathlib
import re
import statistics
from concurrent.futures import ProcessPoolExecutor

from benchmarks import contenders, harness
from benchmarks.problem import Problem


@dataclasses.dataclass(frozen=True)
class Task:
    """What to run, and how often after the first time."""

    contender: str
    problem: Problem
    dtype: str
    threads: int
    later_runs: int = 3


def measure(task: Task) -> dict[str, float]:
    """Run a task in a fresh process.

    Gives ``peak_bytes`` (weights and batch included) and ``ready_bytes`` (before the first run),
    both beyond the imports; ``first_ms``; ``later_ms``, the median of the later runs.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(_measure_here, task).result()


def _measure_here(task: Task) -> dict[str, float]:
    harness.limit_threads(task.threads)
    module = contenders.BY_NAME[task.contender].module
    module.load(task.threads, task.problem.device)
    imported = _status_bytes("VmRSS")
    run = module.prepare(task.contender, task.problem, task.dtype, task.threads)
    ready = _status_bytes("VmRSS")
    with harness.no_garbage_collection():
        _reset_high_water_mark()
        first = harness.timed(run)[0]
        later = [harness.timed(run)[0] for _ in range(task.later_runs)]
    return {
        "peak_bytes": _status_bytes("VmHWM") - imported,
        "ready_bytes": ready - imported,
        "first_ms": first * 1e3,
        "later_ms": statistics.median(later) * 1e3,
    }


def _status_bytes(field: str) -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s*(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"fresh: expected {field} in /proc/self/status, received none")
    return int(found[1]) * 1024


def _reset_high_water_mark() -> None:
    # where the system forbids it, the mark also covers the preparation
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
