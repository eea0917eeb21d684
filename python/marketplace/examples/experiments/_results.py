"""What a sweep tells: a table for people, JSON for programs, a picture of the learning curves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._experiment import Experiment, Trial

_LEGEND_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Result:
    """A run and what its example reported.

    Attributes
    ----------
    trial : Trial
        The run.
    command : tuple of str
        The command line that it had at last.
    report : mapping or None
        The example's JSON object; None for a run that failed.
    """

    trial: Trial
    command: tuple[str, ...]
    report: Mapping[str, Any] | None

    @property
    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Test accuracies by step, of one kind or of old and new images."""
        history = [] if self.report is None else self.report["history"]
        kinds = {"test_accuracy": "", "new_accuracy": "new", "old_accuracy": "old"}
        return {
            label: ([point["step"] for point in history], [point[key] for point in history])
            for key, label in kinds.items()
            if history and key in history[0]
        }


def table(experiment: Experiment, results: Sequence[Result]) -> str:
    """Write the results as a table, one line a run.

    Parameters
    ----------
    experiment : Experiment
        What was run.
    results : sequence of Result
        Its results so far, at least one.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    keys = list(dict.fromkeys(key for result in results for key in result.trial.values))
    figures = [_figures(result.report) for result in results]
    shown = list(dict.fromkeys(name for row in figures for name in row))
    rows = [[*keys, *shown]]
    for result, row in zip(results, figures, strict=True):
        values = [str(result.trial.values.get(key, "")) for key in keys]
        failed = ["failed"] if result.report is None else []
        rows.append([*values, *failed, *(row.get(name, "") for name in shown[len(failed) :])])
    if rows[0] == keys:  # every run has failed
        rows[0].append("result")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([f"{experiment.name}: {experiment.summary}", *lines])


def write_json(path: Path, experiment: Experiment, results: Sequence[Result]) -> None:
    """Write all results as one JSON object.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    content = {
        "experiment": experiment.name,
        "summary": experiment.summary,
        "note": experiment.note,
        "runs": [
            {
                "values": dict(result.trial.values),
                "program": result.trial.program,
                "arguments": list(result.command),
                "report": result.report,
            }
            for result in results
        ],
    }
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_plot(path: Path, experiment: Experiment, results: Sequence[Result]) -> None:
    """Draw the test accuracy of every run over the steps.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    # The Figure class by itself needs no display and changes no global state, unlike pyplot.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=130, layout="constrained")
    axes = figure.subplots()
    done = [result for result in results if result.curves]
    for place, result in enumerate(done):
        colour = colormaps["viridis"](place / max(len(done) - 1, 1) * 0.9)
        for kind, (steps, accuracies) in result.curves.items():
            label = result.trial.name + (f" ({kind})" if kind else "")
            style = "--" if kind == "old" else "-"
            axes.plot(steps, accuracies, style, color=colour, linewidth=1.3, label=label)
    axes.set_title(f"{experiment.name}: {experiment.summary}", fontsize=10, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel("test accuracy, %")
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        columns = -(-len(handles) // _LEGEND_ROWS)
        figure.legend(loc="outside right upper", fontsize=6, ncols=columns, frameon=False)
    figure.savefig(path)


def _figures(report: Mapping[str, Any] | None) -> dict[str, str]:
    """Choose what the table shows of a report, as text."""
    if report is None:
        return {}
    shown: dict[str, str] = {}
    for key, name in (
        ("test_accuracy", "test accuracy %"),
        ("old_accuracy", "old %"),
        ("new_accuracy", "new %"),
    ):
        if key in report:
            shown[name] = f"{report[key]:.2f}"
    if "steps_to_target" in report:
        shown["steps to 90 % new"] = str(report["steps_to_target"] or "never")
    shown["steps"] = str(report["steps"])
    shown["s"] = f"{report['seconds']:.1f}"
    shown["GFLOP a step"] = f"{report['flops_per_step'] / 1e9:.1f}"
    return shown
