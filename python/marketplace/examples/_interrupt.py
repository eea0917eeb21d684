"""Ctrl-C as a request to stop, honoured between two training steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Context in which the first SIGINT sets ``requested`` instead of raising.

    A KeyboardInterrupt could strike between a step and its bookkeeping, and the checkpoint
    written then would not be that of a run which never stopped. The second SIGINT raises
    as usual, for who does not want to wait.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        # Python only lets the main thread set handlers; elsewhere no SIGINT arrives anyway.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
