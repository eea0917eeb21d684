"""The displays and logs of a run that the command line asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..callbacks import (
    Callback,
    CSVLogger,
    JSONLogger,
    MLflowLogger,
    ProgressBar,
    TensorBoardLogger,
    Watch,
)
from ..optimizers import Optimizer
from ..replay import Recorder
from ._cli import Options


class LogOptions(Protocol):
    """What a command line says about displays and logs."""

    @property
    def steps(self) -> int:
        """The step that the run goes to."""

    @property
    def quiet(self) -> bool:
        """Whether to say nothing on the way."""

    @property
    def log(self) -> Path | None:
        """JSON lines or comma-separated values."""

    @property
    def mlflow(self) -> str | None:
        """An experiment of MLflow."""

    @property
    def tensorboard(self) -> Path | None:
        """A folder for TensorBoard."""

    @property
    def replay_log(self) -> Path | None:
        """Where to write down every step."""


class Watching:
    """Context in which a run is shown and logged.

    Parameters
    ----------
    opt : Optimizer
        What trains.
    options : LogOptions
        The command line.
    flops_per_step : int
        Floating-point operations of one step.
    settings : mapping of str to anything
        What the run is, for logs that keep it.
    shown : bool
        Whether to show a display as well.

    Attributes
    ----------
    watch : Watch
        To be told of each step.

    Raises
    ------
    RuntimeError
        A log's package is not installed.
    """

    def __init__(
        self,
        opt: Optimizer,
        options: LogOptions,
        flops_per_step: int,
        settings: Mapping[str, Any],
        shown: bool = True,
    ) -> None:
        self._opt = opt
        self._options = options
        self._bar = ProgressBar(options.quiet)
        self._recorder: Recorder | None = None
        self._stack = contextlib.ExitStack()
        self.watch = Watch(
            opt,
            [*([self._bar] if shown else []), *_loggers(options)],
            steps=options.steps,
            flops_per_step=flops_per_step,
            settings=settings,
            warn=self.note,
        )

    def __enter__(self) -> Watching:
        """Begin all logs, whatever does not fit being refused now."""
        with contextlib.ExitStack() as stack:
            if self._options.replay_log is not None:
                self._recorder = Recorder(self._options.replay_log, self._opt, warn=self.note)
                stack.enter_context(self._recorder)
            stack.enter_context(self.watch)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all logs."""
        self._stack.__exit__(kind, error, traceback)

    def mark(self) -> None:
        """Let the replay log know the state that a checkpoint is about to keep."""
        if self._recorder is not None:
            self._recorder.mark()

    def note(self, text: str) -> None:
        """Say one line."""
        self._bar.note(text)

    @property
    def errors(self) -> list[OSError]:
        """Why logs ended early."""
        replay = None if self._recorder is None else self._recorder.error
        return self.watch.errors + ([] if replay is None else [replay])


def _loggers(options: LogOptions) -> list[Callback]:
    loggers: list[Callback] = []
    if options.log is not None:
        is_csv = options.log.suffix.lower() == ".csv"
        loggers.append(CSVLogger(options.log) if is_csv else JSONLogger(options.log))
    if options.mlflow is not None:
        loggers.append(MLflowLogger(options.mlflow))
    if options.tensorboard is not None:
        loggers.append(TensorBoardLogger(options.tensorboard))
    return loggers


def settings_of(opt: Optimizer, options: Options) -> dict[str, Any]:
    """Collect the settings under the names that the reference logs, and ours."""
    return {
        "step_count": options.steps,
        "batch_size": options.batch_size,
        "vendor_count": ",".join(str(spec.vendor_count) for spec in opt.marketplace),
        "marketplace_replica": options.marketplace_replica,
        "initial_forward_pass": options.forward_pass,
        "lr": float(opt.learning_rate),
        "lr_decay_rate": options.lr_decay,
        "lr_schedule": options.lr_schedule,
        "meta_lr": None if opt.meta_learning_rate is None else float(opt.meta_learning_rate),
        "probe_scale": None if opt.probe_scale is None else float(opt.probe_scale),
        "metrics_per_steps": options.eval_every,
        "checkpoint_per_steps": options.checkpoint_every,
        "unit_vector_mode": options.unit_vector_mode,
        "manual_seed": opt.seed,
        "algorithm": options.algorithm,
        "plan": opt.plan,
        "device": opt.device,
        "dtype": opt.dtype,
    }
