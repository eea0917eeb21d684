"""What all benchmarks share: timing, and the record of where and how a figure was measured."""

import contextlib
import datetime
import gc
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "marketplace", "numpy", "torch", "jax", "jaxlib", "evosax", "optax", "tinygrad", "matplotlib",
)  # fmt: skip

# Runs shorter than this are preceded by one that is not timed: the contender before them has taken
# the caches, which a training loop would not suffer.
SHORT_SECONDS = 0.15
# A contender's threads may spin for a moment after its run.
PAUSE_SECONDS = 0.005

Run = Callable[[], Any]


# -- threads ---------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Hold this process, and libraries that it imports from now on, to some threads.

    Not every library takes a number, so the process itself is kept to as many cores.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity") and threads < usable_cores():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


# -- timing ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, and not while the block runs."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def timed(run: Run) -> tuple[float, Any]:
    """Run once; seconds taken, and what it returned."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def warm_up(run: Run, runs: int) -> float:
    """Run a few times; seconds of the fastest."""
    return min(timed(run)[0] for _ in range(runs))


def interleaved(
    runs: Mapping[str, Run],
    repeats: int,
    warm_up_runs: int = 2,
    seconds: dict[str, list[float]] | None = None,
) -> dict[str, list[float]]:
    """Time several functions turn by turn (A B C A B C ...), so that drift meets all of them.

    Each must return only when its work is done. Seconds of every repeat, by name; a dict that is
    given is filled as they come, so that an interrupt does not take them.
    """
    expected = {name: warm_up(run, warm_up_runs) for name, run in runs.items()}
    seconds = {} if seconds is None else seconds
    seconds.update({name: [] for name in runs})
    with no_garbage_collection():
        for _ in range(repeats):
            for name, run in runs.items():
                time.sleep(PAUSE_SECONDS)
                if expected[name] < SHORT_SECONDS:
                    run()
                seconds[name].append(timed(run)[0])
    return seconds


def statistics_ms(seconds: list[float]) -> dict[str, float]:
    """Median and range of some times, in milliseconds."""
    return {
        "median_ms": statistics.median(seconds) * 1e3,
        "min_ms": min(seconds) * 1e3,
        "max_ms": max(seconds) * 1e3,
    }


def import_times_ms(package: str, repeats: int = 5) -> dict[str, float]:
    """Time the import of a package in fresh processes."""
    code = f"import time; t = time.perf_counter(); import {package}; print(time.perf_counter() - t)"
    seconds = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"import: expected to import {package}, received {done.stderr}")
        seconds.append(float(done.stdout))
    return statistics_ms(seconds)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt while the block runs, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- the record ------------------------------------------------------------------------------------


def _first_match(path: str, pattern: str) -> str | None:
    try:
        found = re.search(pattern, pathlib.Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None


def caches() -> dict[str, str]:
    """Name the first core's caches and their sizes, where the system tells."""
    found = {}
    for index in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            found[f"L{level} {kind.lower()}"] = size
    return found


def machine() -> dict[str, Any]:
    """Describe the machine and the software that runs on it; nothing that names its owner."""
    import marketplace

    build = marketplace.build_info()
    memory = _first_match("/proc/meminfo", r"MemTotal:\s*(\d+)")
    return {
        "cpu": _first_match("/proc/cpuinfo", r"model name\s*:\s*(.*)") or platform.processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "caches": caches(),
        "memory_gib": round(int(memory) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "isa": build.get("isa"),
        "compiler": build.get("compiler"),
        "devices": marketplace.devices(),
        "packages": _versions(),
    }


def _versions() -> dict[str, str]:
    import marketplace

    found = {"marketplace": marketplace.__version__}
    for name in PACKAGES[1:]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str:
    """Name the checkout's commit, with "+changes" where files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    ignoring = ("--", ".", ":!benchmarks/results")
    return head + ("+changes" if _git("status", "--porcelain", *ignoring) else "")


def record(module: str, arguments: list[str]) -> dict[str, Any]:
    """Say when, where and how a measurement was made; to be called before it starts."""
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{module}", *arguments]),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_average_before": list(os.getloadavg()),
        "machine": machine(),
    }


def heading(made: Mapping[str, Any]) -> str:
    """Give a record as a line or two of text."""
    at = made["machine"]
    return (
        f"{made['command']}\n{at['cpu']}, {at['cores']} cores, kernels for {at['isa']}; "
        f"commit {made['commit']}; {made['date']}"
    )


def result_path(stem: str, made: Mapping[str, Any]) -> pathlib.Path:
    """Name the file that keeps a result: by benchmark, processor and commit."""
    cpu = re.sub(r"[^a-z0-9]+", "-", str(made["machine"]["cpu"]).lower()).strip("-")
    cores = made["machine"]["cores"]
    return RESULTS / f"{stem}-{cpu}-{cores}cores-{made['commit'].replace('+', '-')}.json"


def write_result(path: pathlib.Path, result: Mapping[str, Any], text: str) -> None:
    """Keep a result as JSON, and beside it the text that was printed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_whole(path, json.dumps(result, indent=1))
    _write_whole(path.with_suffix(".txt"), text.rstrip())


def _write_whole(path: pathlib.Path, text: str) -> None:
    # whoever is killed meanwhile leaves the file of before
    draft = path.with_name(path.name + ".part")
    draft.write_text(text + "\n")
    draft.replace(path)
