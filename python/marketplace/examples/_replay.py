"""What a run of continual learning met, one JSON object a line and step.

Keys, the original's: ``global_step``; ``old_samples`` and ``new_samples``, indices into the old and
new training images; ``old_correct`` and ``new_correct``, whether the answers were right;
``old_loss`` and ``new_loss``, a list with the samples' mean loss; ``old_test_acc`` and
``new_test_acc``, percent, as measured last.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..continual import Lesson
from ._stream import MixedBatch

if TYPE_CHECKING:
    from ._continual import Accuracy


class ReplayFile:
    """The file, a context; lines are written as they come, so that a run can be watched.

    Parameters
    ----------
    path : Path
        The file; replaced when it exists.

    Raises
    ------
    OSError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")

    def __enter__(self) -> ReplayFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, step: int, batch: MixedBatch, lesson: Lesson, tested: Accuracy) -> None:
        """Write one step."""
        count = len(batch.old_indices)
        line = {
            "global_step": step,
            **_half("old", batch.old_indices, lesson, slice(None, count), tested.old),
            **_half("new", batch.new_indices, lesson, slice(count, None), tested.new),
        }
        self._file.write(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n")
        self._file.flush()


def _half(
    name: str, indices: NDArray[np.int64], lesson: Lesson, part: slice, accuracy: float
) -> dict[str, Any]:
    return {
        f"{name}_samples": indices.tolist(),
        f"{name}_correct": lesson.correct[part].tolist(),
        f"{name}_loss": [float(lesson.loss[part].mean(dtype=np.float64))],
        f"{name}_test_acc": accuracy,
    }
