"""The file of finished runs: each is kept at once, so an interruption costs one run at most."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks.learning.pace import PACE, find
from benchmarks.learning.train import Record, Task


class Store:
    """Finished runs, in a JSON file if there is a path for one."""

    def __init__(self, path: pathlib.Path | None, made: Mapping[str, Any]) -> None:
        self.path = path
        self.header = dict(made)
        self.runs: list[Record] = []
        if path is not None and path.exists():
            self.runs = _read(path)

    def find(self, task: Task) -> Record | None:
        """Give the record of a run, if it is done."""
        wanted = task.key()
        for run in self.runs:
            if all(run.get(name) == value for name, value in wanted.items()):
                return run
        return None

    def add(self, run: Record) -> None:
        """Keep a finished run, with the commit and the date of this invocation."""
        about = {name: self.header[name] for name in ("commit", "date") if name in self.header}
        self.runs.append({**run, **about})
        self.write({})

    def replace(self, pace: Record) -> None:
        """Keep a pace instead of an older one of the same method and settings."""
        old = find(pace, self.runs)
        self.runs = [run for run in self.runs if run is not old]
        self.add(pace)

    def write(self, more: Mapping[str, Any]) -> None:
        """Replace the file by a whole new one."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps({**self.header, **more, "runs": self.runs}, indent=1) + "\n")
        os.replace(partial, self.path)


def _read(path: pathlib.Path) -> list[Record]:
    try:
        runs = json.loads(path.read_text())["runs"]
        if not all(run["kind"] == PACE or isinstance(run["curve"], list) for run in runs):
            raise TypeError("a run has no curve")
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"--out: expected {path} to hold the runs of an earlier invocation, "
            f"received {type(error).__name__}: {error}"
        ) from error
    found: list[Record] = runs
    return found
