"""The training loop that the examples share.

Everything a step does is a function of the optimizer's state and the step's number, so a run
that stops and one that goes on from its checkpoint agree to the bit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset, ImageFiles
from ..optimizers import Optimizer
from ..training import Spec, straight_forward
from ._batches import batch_indices
from ._cli import Options
from ._interrupt import Interrupt
from ._progress import Progress
from ._setup import rate_change

PERIODIC_IMAGES = 1_000
_EVALUATION_BATCH = 500

F32 = NDArray[np.float32]
Images = NDArray[np.uint8] | ImageFiles


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One point of the learning curve.

    Attributes
    ----------
    step : int
        Steps done.
    loss : float or None
        Mean of the leader's loss on the batches since the last point; None without any.
    test_accuracy : float
        Percent.
    """

    step: int
    loss: float | None
    test_accuracy: float


@dataclasses.dataclass
class Outcome:
    """What a run ends with.

    Attributes
    ----------
    history : list of Evaluation
        By ascending step; the last one is on all test images.
    seconds : float
        Time of the training steps and the evaluations between them.
    first_step : int
        The step the run started from: 0, or that of the checkpoint.
    interrupted : bool
        Ctrl-C ended it.
    checkpoint_error : OSError or None
        Why the last checkpoint could not be written.
    """

    history: list[Evaluation]
    seconds: float
    first_step: int
    interrupted: bool
    checkpoint_error: OSError | None


def train(
    market: Sequence[Spec],
    opt: Optimizer,
    dataset: Dataset,
    options: Options,
    progress: Progress,
    interrupt: Interrupt,
) -> Outcome:
    """Train until ``options.steps`` or Ctrl-C, with checkpoints and evaluations on the way.

    Parameters
    ----------
    market : sequence of Spec
        The market that ``opt`` trains.
    opt : Optimizer
        Fresh or resumed; training goes on from its ``global_step``.
    dataset : Dataset
        Training and test images.
    options : Options
        Steps, batch size, decay, evaluations and checkpoints.
    progress : Progress
        Told after each step and evaluation.
    interrupt : Interrupt
        Asked before each step.

    Returns
    -------
    Outcome
        What was measured.
    """
    first_step = opt.global_step
    curve = _Curve()
    started = time.perf_counter()
    while opt.global_step < options.steps and not interrupt.requested:
        loss = _step(opt, dataset, options)
        curve.losses.append(loss)
        progress.stepped(opt.global_step, loss)
        if _is_due(opt.global_step, options.eval_every, options.steps):
            point = curve.add(opt.global_step, measure_accuracy(market, *_thinned(dataset)))
            progress.evaluated(point.step, point.loss or loss, point.test_accuracy)
        if _is_due(opt.global_step, options.checkpoint_every, options.steps):
            _save(opt, options.checkpoint, progress)
    seconds = time.perf_counter() - started
    checkpoint_error = _save(opt, options.checkpoint, progress)
    curve.add(opt.global_step, measure_accuracy(market, dataset.x_test, dataset.y_test))
    return Outcome(curve.points, seconds, first_step, interrupt.requested, checkpoint_error)


def measure_accuracy(market: Sequence[Spec], x: Images, y: NDArray[np.int32]) -> float:
    """Measure how many images the base weights classify rightly.

    Parameters
    ----------
    market : sequence of Spec
        The market.
    x : ndarray or ImageFiles
        Images (N, C, H, W), uint8.
    y : ndarray
        Labels (N,), int32.

    Returns
    -------
    float
        Percent.
    """
    right = 0
    for start in range(0, len(x), _EVALUATION_BATCH):
        part = slice(start, start + _EVALUATION_BATCH)
        logits = np.asarray(straight_forward(market, np.asarray(x[part])))
        right += int(np.count_nonzero(logits.argmax(axis=1) == y[part]))
    return 100.0 * right / len(x)


class _Curve:
    """The learning curve so far, and the losses since its last point."""

    def __init__(self) -> None:
        self.points: list[Evaluation] = []
        self.losses: list[float] = []

    def add(self, step: int, accuracy: float) -> Evaluation:
        """Close a point; one at the same step is measured anew, its loss stays."""
        loss = float(np.mean(self.losses)) if self.losses else None
        if self.points and self.points[-1].step == step:
            loss = self.points.pop().loss
        self.losses.clear()
        self.points.append(Evaluation(step, loss, accuracy))
        return self.points[-1]


def _step(opt: Optimizer, dataset: Dataset, options: Options) -> float:
    """One update; return the leader's loss, that of the weights before it."""
    if options.algorithm == "v1":
        loss = _keep_best(opt, dataset, options)
    else:
        indices = _indices(opt, dataset, options.batch_size * options.forward_pass)
        loss, _ = opt.train_step(
            dataset.x_train[indices],
            dataset.y_train[indices],
            options.unit_vector_mode,
            forward_pass=options.forward_pass,
            marketplace_replica=options.marketplace_replica,
        )
    _decay(opt, rate_change(options, opt.global_step))
    # Both plans list the leader's path (all zeros) first.
    return float(loss[0])


def _keep_best(opt: Optimizer, dataset: Dataset, options: Options) -> F32:
    """V1 on the same samples as V2 would take."""
    indices = _indices(opt, dataset, options.batch_size * options.forward_pass)
    for part in indices.reshape(options.forward_pass, options.batch_size):
        loss, paths = opt.accumulate(dataset.x_train[part], dataset.y_train[part])
    opt.keep_best(loss, paths)
    return loss


def _indices(opt: Optimizer, dataset: Dataset, count: int) -> NDArray[np.int64]:
    return batch_indices(opt.seed, opt.global_step, count, len(dataset.x_train))


def _decay(opt: Optimizer, factor: float) -> None:
    """With a line search, the rates of the specs are found by it and only its range shrinks."""
    if opt.meta_learning_rate is None:
        opt.learning_rate = float(opt.learning_rate) * factor
    else:
        opt.meta_learning_rate = float(opt.meta_learning_rate) * factor


def _is_due(step: int, every: int, last: int) -> bool:
    """At the very last step the end of the run sees to it."""
    return step % every == 0 and step < last


def _thinned(dataset: Dataset) -> tuple[Images, NDArray[np.int32]]:
    """At most 1,000 test images, evenly spread: MNIST's first half is easier than its second."""
    stride = -(-len(dataset.x_test) // PERIODIC_IMAGES)
    return dataset.x_test[::stride], dataset.y_test[::stride]


def _save(opt: Optimizer, path: Path | None, progress: Progress) -> OSError | None:
    """Write the checkpoint; a full disk costs the checkpoint, not the training."""
    if path is None:
        return None
    try:
        opt.save(path)
    except OSError as error:
        progress.note(f"step {opt.global_step}: the checkpoint was not written: {error}")
        return error
    return None
