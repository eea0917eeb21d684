"""What is drawn: the curves of one run, and the mean of several."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays import refusal, to_array
from .._disk import FilePath
from ..callbacks import read_rows

F64 = NDArray[np.float64]

AXES = ("step", "flops", "seconds")
# How the examples' reports name what logs call by the reference's names.
_REPORT_NAMES = {
    "loss": "training/loss",
    "test_accuracy": "testing/accuracy",
    "old_accuracy": "testing/old_accuracy",
    "new_accuracy": "testing/new_accuracy",
    "old_loss": "learning/old_loss",
    "new_loss": "learning/new_loss",
}


@dataclass(frozen=True, eq=False)
class Run:
    """The curves of one run.

    Attributes
    ----------
    label : str
        Name in the legend; runs that share it are averaged.
    axes : dict of str to float64 array (N,)
        ``step``, and ``flops`` and ``seconds`` where they are known.
    metrics : dict of str to float64 array (N,)
        By name, such as ``testing/accuracy``; NaN where it was not measured.
    """

    label: str
    axes: dict[str, F64]
    metrics: dict[str, F64]


@dataclass(frozen=True, eq=False)
class Curve:
    """One metric of one run, or of several with the same label.

    Attributes
    ----------
    label : str
        Name in the legend.
    count : int
        How many runs.
    x, mean, deviation : float64 array (M,)
        Where it was measured in all runs; the sample standard deviation is 0 for one run.
    """

    label: str
    count: int
    x: F64
    mean: F64
    deviation: F64


def make_run(
    label: str,
    metrics: Mapping[str, ArrayLike],
    *,
    step: ArrayLike,
    flops: ArrayLike | None = None,
    seconds: ArrayLike | None = None,
) -> Run:
    """Make a run of arrays.

    Parameters
    ----------
    label : str
        Name in the legend.
    metrics : mapping of str to array (N,)
        By name, such as ``testing/accuracy`` (percent) or ``training/loss``; NaN where it was not
        measured.
    step : array (N,)
        Steps done, ascending.
    flops, seconds : array (N,), optional
        Floating point operations and training time up to there.

    Returns
    -------
    Run
        To be drawn.

    Raises
    ------
    TypeError
        For arrays of another kind.
    ValueError
        For arrays of other shapes, or steps that do not ascend.
    """
    axes = {"step": _vector(step, "step")}
    for name, values in (("flops", flops), ("seconds", seconds)):
        if values is not None:
            axes[name] = _vector(values, name)
    curves = {name: _vector(values, name) for name, values in metrics.items()}
    count = axes["step"].size
    for name, vector in (axes | curves).items():
        if vector.size != count:
            raise refusal(ValueError, "plot", f"{name} of shape ({count},)", vector.shape)
    if (np.diff(axes["step"]) <= 0).any():
        raise refusal(ValueError, "plot", "ascending steps", "others")
    return Run(str(label), axes, curves)


def load_run(path: FilePath, label: str | None = None) -> Run:
    """Read a run's log (JSON lines or CSV) or an example's JSON report.

    Parameters
    ----------
    path : path-like
        What ``--log`` or ``--json`` wrote, or ``JSONLogger`` or ``CSVLogger``. A report tells only
        the whole time, which is shared out evenly over its steps.
    label : str, optional
        Name in the legend; the file's name without its ending if not given.

    Returns
    -------
    Run
        To be drawn.

    Raises
    ------
    FileNotFoundError, OSError
        For a file that is missing or cannot be read.
    ValueError
        For a file of something else, or one without steps.
    """
    path = Path(path)
    name = path.stem if label is None else label
    report = _read_report(path)
    rows = read_rows(path) if report is None else _report_rows(report, path)
    if not rows:
        raise refusal(ValueError, f"plot {path}", "a log with steps", "none")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [_number(row.get(name)) for row in rows] for name in names}
    return make_run(
        name,
        {key: values for key, values in columns.items() if "/" in key},
        step=columns["step"],
        flops=columns.get("flops"),
        seconds=columns.get("seconds"),
    )


def curves(runs: Sequence[Run], metric: str, axis: str) -> list[Curve]:
    """Give one curve for each label that has a metric, in the order of the labels."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if metric in run.metrics and axis in run.axes:
            groups.setdefault(run.label, []).append(run)
    found = [_curve(label, group, metric, axis) for label, group in groups.items()]
    return [curve for curve in found if curve.x.size]


def _curve(label: str, group: Sequence[Run], metric: str, axis: str) -> Curve:
    """Average where all of a group were measured: at the steps that they share."""
    measured = [np.isfinite(run.metrics[metric]) & np.isfinite(run.axes[axis]) for run in group]
    steps = [run.axes["step"][known] for run, known in zip(group, measured, strict=True)]
    shared = steps[0]
    for other in steps[1:]:
        shared = np.intersect1d(shared, other)
    places = [np.searchsorted(run.axes["step"], shared) for run in group]
    x = np.array([run.axes[axis][at] for run, at in zip(group, places, strict=True)])
    y = np.array([run.metrics[metric][at] for run, at in zip(group, places, strict=True)])
    spread = y.std(axis=0, ddof=1) if len(group) > 1 else np.zeros(shared.size)
    return Curve(label, len(group), x.mean(axis=0), y.mean(axis=0), spread)


def _read_report(path: Path) -> dict[str, Any] | None:
    """Give an example's JSON report; None for a file of lines."""
    if path.suffix.lower() != ".json":
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(report["history"], list)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise refusal(ValueError, f"plot {path}", "a report with a history", error) from error
    return dict(report)


def _report_rows(report: Mapping[str, Any], path: Path) -> Iterable[Any]:
    steps, rows = report.get("steps"), []
    try:
        for point in report["history"]:
            row = {_REPORT_NAMES[k]: v for k, v in point.items() if k in _REPORT_NAMES}
            row["step"] = int(point["step"])
            if "flops_per_step" in report:
                row["flops"] = row["step"] * float(report["flops_per_step"])
            if steps:
                row["seconds"] = row["step"] * float(report["seconds"]) / int(steps)
            rows.append(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise refusal(ValueError, f"plot {path}", "points with a step", error) from error
    return rows


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _vector(value: ArrayLike, name: str) -> F64:
    array = to_array(value, "plot", name)
    if array.dtype.kind not in "fiub":
        raise refusal(TypeError, "plot", f"{name} of a real dtype", array.dtype)
    if array.ndim != 1:
        raise refusal(ValueError, "plot", f"{name} of shape (N,)", array.shape)
    return array.astype(np.float64)
