"""What a run tells at its start and its end: lines for people, JSON for programs, a picture."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..optimizers import Optimizer
from ..training import Spec
from ._cli import Options
from ._plot import plot_learning_curve
from ._run import Outcome

# Options that decide nothing, or that the report has keys of their own for.
_ELSEWHERE = frozenset(
    "steps vendors plan dtype device seed lr probe_scale meta_lr threads "
    "checkpoint checkpoint_every resume plot json log mlflow tensorboard replay_log quiet".split()
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: what it was asked, what it works on, and what it costs.

    Attributes
    ----------
    options : Options
        The command line.
    dataset : Dataset
        Training and test images.
    market : sequence of Spec
        What is trained.
    opt : Optimizer
        What trains it.
    flops_per_step : int
        Floating-point operations of one step.
    """

    options: Options
    dataset: Dataset
    market: Sequence[Spec]
    opt: Optimizer
    flops_per_step: int

    @property
    def vendors(self) -> list[int]:
        """Vendors of each spec."""
        return [int(spec.vendor_count) for spec in self.market if spec.vendor_count is not None]


def opening_lines(run: Run) -> list[str]:
    """Say what is about to be trained, on what, and where."""
    data, opt = run.dataset, run.opt
    reason = run.options.reason_for(opt.plan)
    lines = [
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test images, "
        f"from {data.directory}",
        *([] if reason is None else [f"plan {opt.plan}, because of {reason}"]),
        f"plan {opt.plan}, vendors {_comma(run.vendors)}, batch {run.options.batch_size}, "
        f"{run.flops_per_step / 1e9:.1f} GFLOP a step, {opt.dtype} on {opt.device}",
    ]
    if run.options.resume is not None:
        lines.append(f"resumed from {run.options.resume} at step {opt.global_step}")
    return lines


def summary(run: Run, outcome: Outcome) -> str:
    """Say in one line how it ended."""
    last = outcome.history[-1]
    done = last.step - outcome.first_step
    speed = done / outcome.seconds if done else 0.0
    return (
        f"{'interrupted: ' if outcome.signum else ''}"
        f"test accuracy {last.test_accuracy:.2f} % on {len(run.dataset.x_test):,} images "
        f"after {last.step} steps; {done} steps in {outcome.seconds:.1f} s, "
        f"{speed:.2f} steps/s, {speed * run.flops_per_step / 1e9:.1f} GFLOP/s"
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
        Results. A loss that is not finite becomes null.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    last = outcome.history[-1]
    content = {
        "test_accuracy": last.test_accuracy,
        "test_images": len(run.dataset.x_test),
        "train_images": len(run.dataset.x_train),
        "steps": last.step,
        "seconds": outcome.seconds,
        "flops_per_step": run.flops_per_step,
        "device": run.opt.device,
        "dtype": run.opt.dtype,
        "plan": run.opt.plan,
        "vendors": run.vendors,
        "history": [_finite(dataclasses.asdict(point)) for point in outcome.history],
        "options": _options(run),
        "interrupted": outcome.signum != 0,
    }
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_plot(path: Path, run: Run, outcome: Outcome) -> None:
    """Draw the learning curve; see `plot_learning_curve`."""
    plot_learning_curve(
        path,
        outcome.history,
        title=f"{run.dataset.name}, learnt with forward passes only",
        subtitle=f"{len(run.dataset.x_train):,} training images · plan {run.opt.plan} · vendors "
        f"{_comma(run.vendors)} · batch {run.options.batch_size} · "
        f"{outcome.seconds:.0f} s on {run.opt.device}",
    )


def _comma(counts: Sequence[int]) -> str:
    return ",".join(map(str, counts))


def _finite(point: dict[str, Any]) -> dict[str, Any]:
    loss = point["loss"]
    return point | {"loss": loss if loss is not None and math.isfinite(loss) else None}


def _options(run: Run) -> dict[str, Any]:
    """Collect the settings that decide the result and have no key of their own."""
    chosen: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(run.options).items()
        if name not in _ELSEWHERE
    }
    for name in ("learning_rate", "probe_scale", "meta_learning_rate"):
        value = getattr(run.opt, name)
        chosen[f"final_{name}"] = None if value is None else float(value)
    return chosen | {"seed": run.opt.seed}
