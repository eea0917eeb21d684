"""What a callback is, and what calls it."""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, SupportsFloat, TypeAlias

from .._arrays import integer, listed, refusal
from ..optimizers import Optimizer

Status: TypeAlias = dict[str, float]
Metrics: TypeAlias = Mapping[str, SupportsFloat]

COORDINATES = ("step", "steps", "seconds", "flops")


class Callback:
    """Told how a run goes on; override what is of interest.

    An OSError that a method raises ends the callback, with a warning, and not the training.

    Attributes
    ----------
    seconds_before : float
        Training time of the steps before this run, where the callback knows it from a log that it
        continues.
    """

    seconds_before = 0.0

    def on_train_begin(self, status: Status, settings: Mapping[str, Any]) -> None:
        """Begin; ``status["step"]`` is the step that the run goes on from.

        Parameters
        ----------
        status : dict of str to number
            ``step``, ``steps`` if known.
        settings : mapping of str to anything
            What the run is: ``Watch``'s ``settings``.
        """

    def on_step_end(self, status: Status) -> None:
        """Take the status after one step.

        Parameters
        ----------
        status : dict of str to number
            Coordinates (``step``, ``steps``, ``seconds``, ``flops``) and metrics, whose names have
            a slash. Shared by all callbacks: not to be changed.
        """

    def on_train_end(self, status: Status) -> None:
        """End; ``status`` is the last one."""


class _Function(Callback):
    """A callback of one function of the status."""

    def __init__(self, function: Callable[[Status], object]) -> None:
        self._function = function

    def __repr__(self) -> str:
        return repr(self._function)

    def on_step_end(self, status: Status) -> None:
        self._function(status)


class Watch:
    """Tells callbacks how an optimizer's run goes on.

    Parameters
    ----------
    optimizer : Optimizer
        Whose steps and learning rates are told.
    callbacks : sequence of Callback or of callable
        A function is called with every step's status.
    steps : int, optional
        The step that the run goes to, for displays.
    flops_per_step : int, optional
        ``optimizer.flops_per_step(...)``, for ``flops`` and ``training/gflops``.
    settings : mapping of str to anything, optional
        What the run is, for logs that keep it.
    warn : callable
        Told in one line of a callback that failed; by default a RuntimeWarning.

    Attributes
    ----------
    status : dict of str to number
        The last one.
    errors : list of OSError
        Of the callbacks that failed, such as a log on a full disk.

    Raises
    ------
    TypeError
        For what is no list, or no callback in it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        callbacks: Sequence[Callback | Callable[[Status], object]],
        *,
        steps: int | None = None,
        flops_per_step: int | None = None,
        settings: Mapping[str, Any] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._optimizer = optimizer
        given = listed(callbacks, "Watch", "a list of callbacks")
        self._callbacks = [_as_callback(callback) for callback in given]
        self._steps = None if steps is None else integer(steps, "Watch", "steps", 0)
        self._flops = flops_per_step
        self._settings = dict(settings or {})
        self._warn = warn or _warn
        self._seconds = 0.0
        self._since: float | None = None  # None outside the with statement
        self.status: Status = {}
        self.errors: list[OSError] = []

    def __repr__(self) -> str:
        """Name the optimizer and the callbacks."""
        return f"Watch({self._optimizer!r}, {self._callbacks})"

    def __enter__(self) -> "Watch":
        """Begin: tell the callbacks, start the clock."""
        self.status = {"step": self._optimizer.global_step}
        if self._steps is not None:
            self.status["steps"] = self._steps
        # whatever cannot begin is refused here, before the training
        with contextlib.ExitStack() as begun:
            for callback in self._callbacks:
                callback.on_train_begin(self.status, self._settings)
                begun.callback(self._end, callback)
            begun.pop_all()
        self._seconds = max((c.seconds_before for c in self._callbacks), default=0.0)
        self._since = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, however the training went."""
        self._since = None
        self._tell("on_train_end")

    def step(
        self,
        loss: SupportsFloat | None = None,
        metrics: Metrics | Callable[[], Metrics] | None = None,
    ) -> Status:
        """Tell that a step was done.

        Parameters
        ----------
        loss : float, optional
            Its loss; the leader's is ``probe``'s first.
        metrics : mapping of str to float, or callable that gives one, optional
            What else was measured, such as ``{"testing/accuracy": 93.1}``. A function is called
            while the clock stands still, so that evaluations do not count as training.

        Returns
        -------
        dict of str to float
            What the callbacks were told.

        Raises
        ------
        ValueError
            For a metric whose name has no slash.
        RuntimeError
            Outside the ``with`` statement, which starts the clock and opens the logs.
        """
        if self._since is None:
            wanted = "steps inside the with statement of the Watch"
            raise refusal(RuntimeError, "Watch", wanted, "one outside")
        elapsed = time.perf_counter() - self._since
        self._seconds += elapsed
        self.status = self._measured(elapsed)
        if loss is not None:
            self.status["training/loss"] = float(loss)
        self.status |= _checked(metrics() if callable(metrics) else metrics or {})
        self._tell("on_step_end")
        self._since = time.perf_counter()
        return self.status

    def _measured(self, elapsed: float) -> Status:
        opt = self._optimizer
        status: Status = {"step": opt.global_step, "seconds": round(self._seconds, 6)}
        if self._steps is not None:
            status["steps"] = self._steps
        if self._flops is not None:
            status["flops"] = float(opt.global_step * self._flops)
            status["training/gflops"] = self._flops * 1e-9 / max(elapsed, 1e-9)
        status["training/lr"] = float(opt.learning_rate)
        if opt.meta_learning_rate is not None:
            status["testing/meta_lr"] = float(opt.meta_learning_rate)
            for index, context in enumerate(opt.spec_context):
                status[f"training/adaptive_lr_{index}"] = context.learning_rate
        return status

    def _tell(self, event: str) -> None:
        for callback in tuple(self._callbacks):
            try:
                getattr(callback, event)(self.status)
            except OSError as error:
                self._callbacks.remove(callback)
                self.errors.append(error)
                if event != "on_train_end":
                    self._end(callback)
                self._warn(f"step {self.status['step']}: {type(callback).__name__} ends: {error}")

    def _end(self, callback: Callback) -> None:
        """End a callback that is given up; its first error is the one that counts."""
        with contextlib.suppress(OSError):
            callback.on_train_end(self.status)


def _as_callback(callback: Callback | Callable[[Status], object]) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, type) or not callable(callback):
        received = (
            f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
        )
        raise refusal(TypeError, "Watch", "callbacks or functions of a status", received)
    return _Function(callback)


def _checked(metrics: Metrics) -> Status:
    for name in metrics:
        if "/" not in name or not name.isprintable():
            wanted = "metrics with names such as 'testing/accuracy'"
            raise refusal(ValueError, "Watch", wanted, repr(name))
    return {name: float(value) for name, value in metrics.items()}


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)
