"""Ctrl-C and SIGTERM as requests to stop, honoured between two training steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Context in which signals set ``signum`` instead of ending the process.

    Either could strike between a step and its bookkeeping, and the checkpoint written then would
    not be that of a run which never stopped. The next SIGINT raises as usual, for who does not want
    to wait. A further SIGTERM changes nothing: ``timeout`` sends it twice, and who does not want to
    wait sends SIGKILL.

    Parameters
    ----------
    signals : sequence of int
        Which ones.

    Attributes
    ----------
    signum : int
        The first of them that came; 0 for none.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self.signum = 0
        self._signals = signals
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self.signum != 0

    def __enter__(self) -> Interrupt:
        # Python only lets the main thread set handlers; elsewhere no signal arrives anyway.
        if threading.current_thread() is threading.main_thread():
            for signum in self._signals:
                self._previous[signum] = signal.signal(signum, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._previous.items():
            if handler is not None:  # else one that Python did not set, and cannot
                signal.signal(signum, handler)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
