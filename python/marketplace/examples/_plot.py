"""The learning curve of an example's run as a picture. Needs the extra ``[plot]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plot
from ..plot import require_matplotlib

if TYPE_CHECKING:
    from ._run import Evaluation

__all__ = ["plot_learning_curve", "require_matplotlib"]


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
    metrics = {
        "testing/accuracy": [point.test_accuracy for point in history],
        "training/loss": [math.nan if p.loss is None else p.loss for p in history],
    }
    run = plot.make_run("run", metrics, step=[point.step for point in history])
    plot.save(plot.learning_curves([run], title=title, subtitle=subtitle), path)
