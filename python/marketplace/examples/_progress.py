"""What a run says while it goes on: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

_BAR = "{n_fmt}/{total_fmt} |{bar}| {desc} · {elapsed}<{remaining}"


class Progress:
    """Progress of a training run on standard error.

    On a terminal it is one bar, redrawn after each step. Anywhere else (a file, a pipe, a CI
    log) it is one line per evaluation, because a log of redrawn bars cannot be read.

    Parameters
    ----------
    first, total : int
        The step the run starts from, and the one it goes to.
    quiet : bool
        Say nothing at all.
    """

    def __init__(self, first: int, total: int, quiet: bool) -> None:
        self._first = first
        self._total = total
        self._quiet = quiet
        self._accuracy: float | None = None
        self._started = time.perf_counter()
        self._bar = _make_bar(first, total) if _is_terminal() and not quiet else None

    def stepped(self, step: int, loss: float) -> None:
        """Tell that ``step`` steps are done; ``loss`` is the leader's on the last batch."""
        if self._bar is not None:
            self._bar.set_description_str(self._state(step, loss), refresh=False)
            self._bar.update(1)

    def evaluated(self, step: int, loss: float, accuracy: float) -> None:
        """Tell a measured test accuracy (percent) and the mean loss since the last one."""
        self._accuracy = accuracy
        if self._bar is not None:
            self._bar.set_description_str(self._state(step, loss))
        elif not self._quiet:
            width = len(str(self._total))
            self.note(f"step {step:{width}d}/{self._total} · test {self._state(step, loss)}")

    def note(self, text: str) -> None:
        """Say one line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        if self._bar is not None:
            self._bar.close()

    def _state(self, step: int, loss: float) -> str:
        accuracy = "  –  " if self._accuracy is None else f"{self._accuracy:5.2f}"
        seconds = max(time.perf_counter() - self._started, 1e-9)
        speed = (step - self._first) / seconds
        return f"accuracy {accuracy} % · loss {loss:6.4f} · {speed:.2f} steps/s"


def _is_terminal() -> bool:
    """Tell whether standard error is a terminal with a size; some have 0 x 0, and hide a bar."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except OSError:
        return False


def _make_bar(first: int, total: int) -> Any:
    # Imported here: only a run on a terminal needs it.
    from tqdm import tqdm

    return tqdm(
        total=total, initial=first, bar_format=_BAR, file=sys.stderr, dynamic_ncols=True,
        mininterval=0.1,
    )  # fmt: skip
