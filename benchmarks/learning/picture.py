"""Learning curves: test accuracy over steps, work and time; mean and spread over the seeds."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.learning.methods import BY_NAME
from benchmarks.learning.report import THRESHOLDS, Group, groups
from benchmarks.learning.train import Record

AXES = {"step": "steps", "tflop": "work, TFLOP", "seconds": "time of training, s"}
TICKS = (10, 50, 80, 90, 94, 96, 97, 98, 99)
LOWEST, HIGHEST = 5.0, 99.5  # percent; the scale is that of the logarithm of the error


def curves(group: Group, cost: str) -> dict[str, Any]:
    """Average a group's runs at the evaluations that all of them reached, without step 0.

    Returns
    -------
    dict
        Arrays ``x``, ``mean`` and ``std`` (0 for one seed), one element per evaluation.
    """
    count = min(len(run["curve"]) for run in group.runs)
    points = [run["curve"][1:count] for run in group.runs]
    x = np.array([[point[cost] for point in run] for run in points])
    accuracy = np.array([[point["test_accuracy"] for point in run] for run in points])
    many = len(points) > 1
    std = accuracy.std(axis=0, ddof=1) if many else np.zeros(accuracy.shape[1])
    return {"x": x.mean(axis=0), "mean": accuracy.mean(axis=0), "std": std}


def plot(runs: Sequence[Record], path: pathlib.Path) -> None:
    """Draw all groups of runs, a panel per cost."""
    # the Figure class by itself needs no display and changes no global state, unlike pyplot
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(AXES), sharey=True)
    found = [group for group in groups(runs) if min(len(r["curve"]) for r in group.runs) > 1]
    for panel, (cost, label) in zip(panels, AXES.items(), strict=True):
        _prepare(panel, label)
        for place, group in enumerate(found):
            _draw(panel, group, cost, place)
    panels[0].set_ylabel("test accuracy, % (scale: log of the error)")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle("One network, one data set, the same first weights: mean ± std over the seeds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _prepare(axes: Any, label: str) -> None:
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(label)
    axes.set_yscale("function", functions=(_to_scale, _from_scale))
    axes.set_ylim(LOWEST, HIGHEST)
    axes.set_yticks(TICKS, [str(tick) for tick in TICKS])
    axes.grid(alpha=0.2)
    for threshold in THRESHOLDS:
        axes.axhline(threshold, color="black", linewidth=0.6, linestyle=":")


def _to_scale(accuracy: Any) -> Any:
    return -np.log10(np.maximum(100.0 - np.asarray(accuracy, float), 1e-3))


def _from_scale(value: Any) -> Any:
    return 100.0 - 10.0 ** -np.asarray(value, float)


def _draw(axes: Any, group: Group, cost: str, place: int) -> None:
    drawn = curves(group, cost)
    method = BY_NAME.get(group.method)
    colour = method.colour if method else f"C{place % 10}"
    ours = group.runs[0]["label"].startswith("ours")
    count = len(group.runs)
    label = f"{group.title} ({count} seed{'s' if count > 1 else ''}): {drawn['mean'][-1]:.2f} %"
    axes.plot(
        drawn["x"], drawn["mean"], color=colour, label=label,
        linewidth=2.0 if ours else 1.3, linestyle="-" if ours else "--",
    )  # fmt: skip
    low, high = drawn["mean"] - drawn["std"], np.minimum(drawn["mean"] + drawn["std"], HIGHEST)
    axes.fill_between(drawn["x"], np.maximum(low, 0.0), high, color=colour, alpha=0.15, linewidth=0)
