"""A worker's side: the same program as everywhere, its probes answered from outside."""

import queue
import threading
from collections.abc import Callable
from typing import Any

from .. import _core
from .._arrays import F32
from .._sharing import Minibatch
from ..optimizers import Optimizer
from ._evaluate import evaluate
from ._report import Report

Step = Callable[[Optimizer], Any]


class Follower:
    """Takes one step after another, each probe waiting for its losses.

    Parameters
    ----------
    optimizer : Optimizer
        The worker's own.
    step : callable
        Takes one step of it.
    """

    def __init__(self, optimizer: Optimizer, step: Step) -> None:
        self._optimizer, self._step = optimizer, step
        self._probes: queue.SimpleQueue[Minibatch | BaseException] = queue.SimpleQueue()
        self._losses: queue.SimpleQueue[F32] = queue.SimpleQueue()
        self._minibatch: Minibatch | BaseException | None = None
        optimizer._sharing = self
        threading.Thread(target=self._run, daemon=True).start()

    def advance(self, losses: F32 | None) -> None:
        """Answer the present probe, and go on to the next; with None, to the first.

        Raises
        ------
        BaseException
            What the program ended with.
        """
        if not isinstance(self._minibatch, BaseException):
            if losses is not None:
                self._losses.put(losses)
            self._minibatch = self._probes.get()
        if isinstance(self._minibatch, BaseException):
            raise self._minibatch

    def evaluate(self, first: int, last: int, check: bool) -> Report:
        """Evaluate some paths of the present probe."""
        assert isinstance(self._minibatch, tuple)
        return evaluate(self._optimizer, self._minibatch, first, last, check)

    # -- on the program's thread -------------------------------------------------------------------

    def losses(
        self, native: _core.Optimizer, minibatch: Minibatch, further: bool, between: bool
    ) -> F32:
        """Wait for the losses of all paths."""
        native.probe_leader(*minibatch, further)
        self._probes.put(minibatch)
        return self._losses.get()

    def _run(self) -> None:
        try:
            while True:
                self._step(self._optimizer)
        except BaseException as error:
            self._probes.put(error)
