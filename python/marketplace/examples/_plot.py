"""The learning curve as a picture. Needs the extra ``[plot]`` (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._run import Evaluation

_BLUE = "#1f6feb"
_GREY = "#57606a"


def require_matplotlib() -> None:
    """Import matplotlib now, so that its absence shows before the training and not after.

    Raises
    ------
    RuntimeError
        matplotlib is not installed, or broken.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f'--plot needs matplotlib ({error}): install it with pip install "marketplace[plot]"'
        ) from error


def plot_learning_curve(
    path: Path, history: Sequence[Evaluation], *, title: str, subtitle: str
) -> None:
    """Draw test accuracy and training loss over the steps.

    Parameters
    ----------
    path : Path
        The picture; its suffix tells the format (.png, .svg, .pdf).
    history : sequence of Evaluation
        What was measured, by ascending step; at least one.
    title, subtitle : str
        Lines above the picture.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    # The Figure class by itself needs no display and changes no global state, unlike pyplot.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), dpi=130, layout="constrained")
    figure.suptitle(f"{title}\n", fontsize=12, fontweight="bold")
    figure.text(0.5, 0.905, subtitle, ha="center", fontsize=9, color=_GREY)
    left, right = figure.subplots(1, 2)
    steps = [point.step for point in history]
    losses = [math.nan if point.loss is None else point.loss for point in history]
    _draw(left, steps, [point.test_accuracy for point in history], "test accuracy, %")
    _draw(right, steps, losses, "training loss (cross-entropy)")
    _state_result(left, history[-1].test_accuracy)
    figure.savefig(path)


def _draw(axes: Any, steps: list[int], values: list[float], label: str) -> None:
    axes.plot(steps, values, color=_BLUE, linewidth=1.8, marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.set_title(label, fontsize=10, loc="left")
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _state_result(axes: Any, accuracy: float) -> None:
    """Write it into the corner that a learning curve leaves empty."""
    axes.text(
        0.97,
        0.06,
        f"{accuracy:.2f} % on all test images",
        transform=axes.transAxes,
        ha="right",
        fontweight="bold",
    )
