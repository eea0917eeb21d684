"""How long a step takes, measured apart: runs of hours share their machine, a few steps need not.

A pace is a record of its own in the file of runs; with it, a run's seconds are its steps times it.
"""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.learning.methods import BY_NAME, Method
from benchmarks.learning.network import first_weights
from benchmarks.learning.train import Record, Task, batch_of

PACE = "pace"
WARM_STEPS = 3
LEAST_STEPS = 5
ENOUGH_SECONDS = 4.0
SEED = 1


def methods_of(runs: Sequence[Record]) -> list[Method]:
    """Give the methods that some records ran, each with its settings, without repetition."""
    found: list[Method] = []
    for run in runs:
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in run["settings"].items()}
        method = BY_NAME[run["method"]].with_settings(settings)
        if method not in found:
            found.append(method)
    return found


def measure(method: Method, data: Any, threads: int) -> Record:
    """Give the record of a method's pace: the median of its steps' seconds."""
    load_before = list(os.getloadavg())
    trainer = method.module.make(method.settings, first_weights(SEED), SEED, threads)
    seconds: list[float] = []
    while len(seconds) < WARM_STEPS + LEAST_STEPS or sum(seconds[WARM_STEPS:]) < ENOUGH_SECONDS:
        x, y = batch_of(data, SEED, len(seconds), method.settings["batch"])
        start = time.perf_counter()
        trainer.step(x, y, float(method.settings["lr"]))
        seconds.append(time.perf_counter() - start)
    timed = seconds[WARM_STEPS:]
    key = Task(method, SEED, 0, 0, data.name, PACE).key()
    return {
        **{name: key[name] for name in ("method", "kind", "settings", "data")},
        "threads": threads,
        "load_average_before": load_before,
        "load_average_after": list(os.getloadavg()),
        "timed_steps": len(timed),
        "seconds_per_step": statistics.median(timed),
        "seconds_per_step_quartiles": np.quantile(timed, (0.25, 0.75)).tolist(),
    }


def find(run: Record, records: Sequence[Record]) -> Record | None:
    """Find the pace of a run's method and settings."""
    wanted = PACE, run["method"], run["settings"]
    found = (r for r in records if (r["kind"], r["method"], r["settings"]) == wanted)
    return next(found, None)


def apply(records: Sequence[Record]) -> list[Record]:
    """Give the runs, with the seconds and the machine's load of their paces where there are any."""
    runs = [record for record in records if record["kind"] != PACE]
    return [_paced(run, pace) if (pace := find(run, records)) else run for run in runs]


def _paced(run: Record, pace: Mapping[str, Any]) -> Record:
    each = pace["seconds_per_step"]
    curve = [{**point, "seconds": point["step"] * each} for point in run["curve"]]
    loads = {name: pace[name] for name in ("load_average_before", "load_average_after")}
    return {**run, **loads, "curve": curve}
