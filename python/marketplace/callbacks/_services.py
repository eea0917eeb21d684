"""Logs for MLflow and TensorBoard; both packages are extras, imported when they are used."""

import contextlib
import importlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._arrays import integer
from .._disk import FilePath
from ._base import COORDINATES, Callback, Status

_LONGEST_SETTING = 500  # characters that every version of MLflow takes
_MLFLOW_AT_ONCE = 100  # parameters of one request


class _Sparse(Callback):
    """Passes on the metrics of every so many steps, and of all with an evaluation."""

    def __init__(self, every: int, op: str) -> None:
        self._every = integer(every, op, "every", 1)

    def _metrics(self, status: Status) -> Status:
        """Give the metrics that are numbers; none where the step is passed over."""
        if int(status["step"]) % self._every and not _evaluated(status):
            return {}
        return {
            name: value
            for name, value in status.items()
            if name not in COORDINATES and math.isfinite(value)
        }


class MLflowLogger(_Sparse):
    """Metrics and settings of a run for MLflow. Needs the extra ``[mlflow]``.

    Goes into the run that is active (``with mlflow.start_run():``), else into a new one, ended with
    the training. Where the server is, and everything else, is MLflow's business:
    ``MLFLOW_TRACKING_URI``, ``mlflow.set_tracking_uri``. To continue a run of MLflow after a
    resume, give its id here or in ``MLFLOW_RUN_ID``.

    Parameters
    ----------
    experiment : str, optional
        Name of the experiment, made if there is none; MLflow's present one if not given.
    run_name : str, optional
        Name of a new run.
    run_id : str, optional
        A run to continue.
    every : int
        Log every so many steps, and every evaluation.

    Raises
    ------
    RuntimeError
        Without the package.
    """

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        run_id: str | None = None,
        every: int = 10,
    ) -> None:
        super().__init__(every, "MLflowLogger")
        self._mlflow = _require("mlflow", "mlflow", "MLflowLogger")
        self._experiment = experiment
        self._run_name = run_name
        self._own = False
        self.run_id = run_id

    def on_train_begin(self, status: Status, settings: Mapping[str, Any]) -> None:
        """Find or begin the run, and log the settings that it does not have.

        Raises
        ------
        OSError
            For a server that does not answer, or answers with an error.
        """
        mlflow = self._mlflow
        with self._translated():
            if self._experiment is not None:
                mlflow.set_experiment(self._experiment)
            run = mlflow.active_run()
            if run is None or self.run_id not in (None, run.info.run_id):
                run = mlflow.start_run(self.run_id, run_name=self._run_name, nested=run is not None)
                self._own = True
            self.run_id = run.info.run_id
            self._client = mlflow.MlflowClient()
            known = self._client.get_run(self.run_id).data.params
            self._log_settings({k: v for k, v in settings.items() if k not in known})

    def on_step_end(self, status: Status) -> None:
        """Log the metrics of one step."""
        metrics = self._metrics(status)
        if not metrics:
            return
        entity, now = self._mlflow.entities.Metric, int(time.time() * 1000)
        step = int(status["step"])
        batch = [entity(name, value, now, step) for name, value in metrics.items()]
        with self._translated():
            self._client.log_batch(self.run_id, metrics=batch)

    def on_train_end(self, status: Status) -> None:
        """End the run if this began it."""
        if self._own:
            with self._translated():
                self._mlflow.end_run()

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        entity = self._mlflow.entities.Param
        params = [entity(name, str(value)[:_LONGEST_SETTING]) for name, value in settings.items()]
        for start in range(0, len(params), _MLFLOW_AT_ONCE):
            self._client.log_batch(self.run_id, params=params[start : start + _MLFLOW_AT_ONCE])

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Let MLflow's errors end the log, as errors of files do."""
        try:
            yield
        except self._mlflow.exceptions.MlflowException as error:
            raise OSError(f"MLflow: {error}") from error


class TensorBoardLogger(_Sparse):
    """Event files for TensorBoard. Needs the extra ``[tensorboard]``, and no TensorFlow.

    A resumed run may go into the same folder: TensorBoard then hides what was logged of its steps
    before.

    Parameters
    ----------
    directory : path-like
        Folder of the event files, made if there is none.
    every : int
        Log every so many steps, and every evaluation.

    Raises
    ------
    RuntimeError
        Without the package.
    """

    def __init__(self, directory: FilePath, every: int = 1) -> None:
        super().__init__(every, "TensorBoardLogger")
        self._directory = Path(directory)
        name = "tensorboard.summary.writer.event_file_writer"
        self._writers = _require(name, "tensorboard", "TensorBoardLogger")
        self._events = _require("tensorboard.compat.proto.event_pb2", "tensorboard", "")
        self._summaries = _require("tensorboard.compat.proto.summary_pb2", "tensorboard", "")
        self._writer: Any = None

    def on_train_begin(self, status: Status, settings: Mapping[str, Any]) -> None:
        """Begin an event file.

        Raises
        ------
        OSError
            For a folder that cannot be written to.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._writer = self._writers.EventFileWriter(str(self._directory))
        log = self._events.SessionLog(status=self._events.SessionLog.START)
        self._add(int(status["step"]) + 1, session_log=log)

    def on_step_end(self, status: Status) -> None:
        """Write the metrics of one step."""
        metrics = self._metrics(status)
        if metrics:
            value = self._summaries.Summary.Value
            values = [value(tag=name, simple_value=number) for name, number in metrics.items()]
            self._add(int(status["step"]), summary=self._summaries.Summary(value=values))

    def on_train_end(self, status: Status) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def _evaluated(status: Status) -> bool:
    return any(name.startswith("testing/") and name != "testing/meta_lr" for name in status)


def _require(module: str, extra: str, op: str) -> Any:
    """Import a module of an extra, or say which one is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(
            f'{op} needs {extra} ({error}): install it with pip install "marketplace[{extra}]"'
        ) from error
