"""What a run says while it goes on: a bar on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from ._base import Callback, Status

_BAR = "{n_fmt}/{total_fmt} |{bar}| {desc} · {elapsed}<{remaining}"
_ENDLESS = "{n_fmt} steps · {desc} · {elapsed}"
_NARROW = "{n_fmt} · {desc}"
_NARROW_COLUMNS = 50
_AROUND = len("/ |bar of ten| ") + len(" · 00:00:00<00:00:00")


class ProgressBar(Callback):
    """Progress of a run on standard error.

    On a terminal it is one bar, redrawn after each step: loss, test accuracy, steps a second, GFLOP
    a second, time left; a narrow terminal leaves out what is least needed. Anywhere else (a file, a
    pipe, a CI log) it is one line per evaluation, with the mean loss since the last one, because
    redrawn bars cannot be read there.

    Parameters
    ----------
    quiet : bool
        Say nothing at all.
    every : int
        Without a terminal, a line also every so many steps; 0 for evaluations alone.
    """

    def __init__(self, quiet: bool = False, every: int = 0) -> None:
        self._quiet = quiet
        self._every = every
        self._bar: Any = None
        self._accuracy: float | None = None
        self._losses: list[float] = []
        self._total: int | None = None
        self._first = 0
        self._started = time.perf_counter()

    def on_train_begin(self, status: Status, settings: Mapping[str, Any]) -> None:
        """Show an empty bar, if there is a terminal."""
        self._first = int(status["step"])
        self._total = int(status["steps"]) if "steps" in status else None
        self._started = time.perf_counter()
        if not self._quiet and _columns() > 0:
            self._bar = _make_bar(self._first, self._total)

    def on_step_end(self, status: Status) -> None:
        """Draw the bar anew, or write a line about an evaluation."""
        step = int(status["step"])
        self._accuracy = status.get("testing/accuracy", self._accuracy)
        if "training/loss" in status:
            self._losses.append(status["training/loss"])
        if self._bar is not None:
            self._draw(status)
        elif "testing/accuracy" in status or (self._every and step % self._every == 0):
            total = "" if self._total is None else f"/{self._total}"
            self.note(
                f"step {step:{max(len(total) - 1, 1)}d}{total} · {' · '.join(self._parts(status))}"
            )
            self._losses.clear()

    def on_train_end(self, status: Status) -> None:
        """Leave the bar as it stands and end its line."""
        if self._bar is not None:
            self._bar.close()

    def note(self, text: str) -> None:
        """Say one line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def _draw(self, status: Status) -> None:
        step, columns = int(status["step"]), _columns()
        if columns < _NARROW_COLUMNS:
            self._bar.bar_format = _NARROW
            space = columns - len(f"{step} · ") - 1
        else:
            self._bar.bar_format = _ENDLESS if self._total is None else _BAR
            space = columns - len(f"{step}{self._total or ''}") - _AROUND
        self._bar.set_description_str(_fit(self._parts(status), space), refresh=False)
        self._bar.update(step - self._bar.n)
        self._losses.clear()

    def _parts(self, status: Status) -> list[str]:
        """Give what there is to say, the most wanted first."""
        parts = []
        if self._losses:
            parts.append(f"loss {sum(self._losses) / len(self._losses):6.4f}")
        if self._accuracy is not None:
            parts.append(f"accuracy {self._accuracy:5.2f} %")
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        speed = (status["step"] - self._first) / elapsed
        parts.append(f"{speed:.2f} steps/s")
        if "flops" in status:
            parts.append(f"{status['flops'] / status['step'] * speed * 1e-9:.0f} GFLOP/s")
        return parts


def _fit(parts: list[str], space: int) -> str:
    """Join as many parts as there is space for; the first in any case."""
    while len(parts) > 1 and len(" · ".join(parts)) > space:
        parts = parts[:-1]
    return " · ".join(parts)


def _columns() -> int:
    """Give the width of the terminal that standard error is; 0 where there is none.

    Some terminals have a size of 0 x 0, and would hide a bar.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return 0
    return size.columns if size.lines else 0


def _make_bar(first: int, total: int | None) -> Any:
    # Imported here: only a run on a terminal needs it.
    from tqdm import tqdm

    return tqdm(
        total=total, initial=first, bar_format=_BAR if total is not None else _ENDLESS,
        file=sys.stderr, dynamic_ncols=True, mininterval=0.1,
    )  # fmt: skip
