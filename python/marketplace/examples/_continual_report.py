"""What a run of continual learning tells: lines for people, JSON for programs, a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..optimizers import Optimizer
from ..training import Spec
from ._continual import TARGET_LOSS, TARGET_NEW, Accuracy, Outcome, Point
from ._continual_cli import Options
from ._stream import Task

_BLUE, _ORANGE, _GREY = "#1f6feb", "#d9730d", "#57606a"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: what it was asked, what it works on, and what it costs.

    Attributes
    ----------
    options : Options
        The command line.
    task : Task
        What is old, and what is new.
    market : sequence of Spec
        What learns.
    opt : Optimizer
        What teaches it.
    flops_per_step : int
        Floating-point operations of one step: answering a batch and learning from it.
    """

    options: Options
    task: Task
    market: Sequence[Spec]
    opt: Optimizer
    flops_per_step: int

    @property
    def vendors(self) -> list[int]:
        """Vendors of each spec."""
        return [int(spec.vendor_count) for spec in self.market]


def opening_lines(run: Run) -> list[str]:
    """Say what is about to be learnt, from what."""
    task, options = run.task, run.options
    base = options.plan == "node" or options.control_variate
    answers = "base weights" if base else "paths"
    work = f"{run.flops_per_step / 1e9:.1f} GFLOP a step"
    return [
        f"{task.name}: {len(task.old_train):,} old and {len(task.new_train):,} new training images",
        f"{options.new_per_batch} new images in a batch of {options.batch_size}, plan "
        f"{options.plan}, vendors {','.join(map(str, run.vendors))}, {work}, "
        f"{run.opt.dtype} on {run.opt.device}; the {answers} answer",
    ]


def summary(run: Run, outcome: Outcome) -> str:
    """Say in one line how it ended."""
    start, end, done = outcome.start, outcome.end, outcome.history[-1].step
    reached = outcome.steps_to_target
    goal = f"new {TARGET_NEW:g} % and old less {TARGET_LOSS:g} point at most: "
    return (
        f"{'interrupted: ' if outcome.signum else ''}"
        f"test accuracy old {start.old:.2f} -> {end.old:.2f} %, "
        f"new {start.new:.2f} -> {end.new:.2f} % after {run.opt.global_step} steps in "
        f"{outcome.seconds:.1f} s; {goal}"
        f"{f'from step {reached}' if reached is not None else f'not up to step {done}'}"
    )


def write_json(path: Path, run: Run, outcome: Outcome) -> None:
    """Write settings, results and history as one JSON object.

    Parameters
    ----------
    path : Path
        The file; replaced when it exists.
    run : Run
        Settings.
    outcome : Outcome
        Results.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    task = run.task
    content = {
        "task": task.name,
        "new_class": task.new_class,
        **_accuracy("start_", outcome.start),
        **_accuracy("", outcome.end),
        "steps_to_target": outcome.steps_to_target,
        "steps": run.opt.global_step,
        "seconds": outcome.seconds,
        "flops_per_step": run.flops_per_step,
        "images": {
            name: len(getattr(task, name))
            for name in ("old_train", "old_test", "new_train", "new_test")
        },
        "device": run.opt.device,
        "dtype": run.opt.dtype,
        "plan": run.opt.plan,
        "vendors": run.vendors,
        "control_variate": run.opt.control_variate,
        "history": [_point(point) for point in outcome.history],
        "options": _options(run.options),
        "interrupted": outcome.signum != 0,
    }
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_plot(path: Path, run: Run, outcome: Outcome) -> None:
    """Draw the accuracies on old and new test images, and the losses, over the steps.

    Parameters
    ----------
    path : Path
        The picture; its suffix tells the format (.png, .svg, .pdf).
    run : Run
        What the lines above the picture say.
    outcome : Outcome
        What is drawn.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    # The Figure class by itself needs no display and changes no global state, unlike pyplot.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), dpi=130, layout="constrained")
    figure.suptitle(f"{run.task.name}: learnt while answering\n", fontsize=12, fontweight="bold")
    figure.text(0.5, 0.905, _subtitle(run), ha="center", fontsize=9, color=_GREY)
    left, right = figure.subplots(1, 2)
    points = outcome.history
    steps = [point.step for point in points]
    _draw(left, steps, [p.accuracy.old for p in points], [p.accuracy.new for p in points])
    left.set_title("test accuracy, %", fontsize=10, loc="left")
    left.axhline(points[0].accuracy.old - TARGET_LOSS, color=_GREY, linewidth=0.8, linestyle=":")
    left.axhline(TARGET_NEW, color=_GREY, linewidth=0.8, linestyle="--")
    later = points[1:]
    losses = [[p.old_loss for p in later], [p.new_loss for p in later]]
    _draw(right, steps[1:], losses[0], losses[1])
    right.set_title("loss of the answers (cross-entropy)", fontsize=10, loc="left")
    figure.savefig(path)


def _draw(axes: Any, steps: list[int], old: Sequence[Any], new: Sequence[Any]) -> None:
    for values, label, color in ((old, "old", _BLUE), (new, "new", _ORANGE)):
        axes.plot(steps, values, color=color, label=label, linewidth=1.8, marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _subtitle(run: Run) -> str:
    options = run.options
    text = (
        f"{options.new_per_batch} new of {options.batch_size} images a step · plan {options.plan} "
        f"· vendors {','.join(map(str, run.vendors))}"
    )
    if options.plan == "node":
        return text
    return (
        f"{text} · {'with' if options.control_variate else 'no'} control variate · new class × "
        f"{options.new_class_weight:g}"
    )


def _accuracy(prefix: str, accuracy: Accuracy) -> dict[str, float]:
    return {
        f"{prefix}old_accuracy": accuracy.old,
        f"{prefix}new_accuracy": accuracy.new,
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "step": point.step,
        **_accuracy("", point.accuracy),
        "old_loss": point.old_loss,
        "new_loss": point.new_loss,
    }


def _options(options: Options) -> dict[str, Any]:
    """Collect the settings that decide the result and have no key of their own."""
    names = (
        "plan", "new_per_batch", "augment", "batch_size", "lr", "lr_decay", "probe_scale",
        "balance_labels", "new_class_weight", "probe_share", "focus", "seed", "base_steps",
        "eval_every",
    )  # fmt: skip
    chosen = {name: getattr(options, name) for name in names}
    return chosen | {"base": None if options.base is None else str(options.base)}
