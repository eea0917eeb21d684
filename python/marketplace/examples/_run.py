"""The training loop that the examples share.

Everything a step does is a function of the optimizer's state and the step's number, so a run
that stops and one that goes on from its checkpoint agree to the bit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset, ImageFiles
from ..optimizers import Optimizer
from ..training import Spec, straight_forward
from ._batches import batch_indices
from ._cli import Options
from ._interrupt import Interrupt
from ._setup import rate_change
from ._watching import Watching

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
    signum : int
        The signal that ended it early, SIGINT or SIGTERM; 0 for none.
    checkpoint_error : OSError or None
        Why the last checkpoint could not be written.
    log_errors : list of OSError
        Why logs ended early.
    """

    history: list[Evaluation]
    seconds: float
    first_step: int
    signum: int
    checkpoint_error: OSError | None
    log_errors: list[OSError]


def train(
    market: Sequence[Spec],
    opt: Optimizer,
    dataset: Dataset,
    options: Options,
    watching: Watching,
    interrupt: Interrupt,
) -> Outcome:
    """Train until ``options.steps`` or a signal, with checkpoints and evaluations on the way.

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
    watching : Watching
        Displays and logs, told of each step and evaluation.
    interrupt : Interrupt
        Asked before each step.

    Returns
    -------
    Outcome
        What was measured.

    Raises
    ------
    ValueError
        For losses that are not finite; the last good state is in the checkpoint.
    """
    first_step = opt.global_step
    with watching:
        run = _Training(market, opt, dataset, options, watching)
        while opt.global_step < options.steps and not interrupt.requested:
            run.step()
        run.end()
    return Outcome(
        run.curve.points,
        run.seconds,
        first_step,
        interrupt.signum,
        run.checkpoint_error,
        watching.errors,
    )


class _Training:
    """One run's loop: steps, evaluations, checkpoints."""

    def __init__(
        self,
        market: Sequence[Spec],
        opt: Optimizer,
        dataset: Dataset,
        options: Options,
        watching: Watching,
    ) -> None:
        self.market, self.opt, self.dataset = market, opt, dataset
        self.options, self.watching = options, watching
        self.curve = _Curve()
        self.checkpoint_error: OSError | None = None
        self.seconds = 0.0
        self._saved: int | None = None  # the step that the checkpoint is of
        self._tried: int | None = None
        self._started = time.perf_counter()

    def step(self) -> None:
        """Take one step, with what is due after it."""
        opt, options = self.opt, self.options
        indices = _indices(opt, self.dataset, options.batch_size * options.forward_pass)
        try:
            loss = take_step(opt, self.dataset, options)
        except ValueError as error:
            raise self._stopped(error) from error
        self.curve.losses.append(loss)
        if opt.global_step == options.steps or opt.global_step % options.checkpoint_every == 0:
            self._save()
        self.watching.watch.step(loss, lambda: self._evaluate(indices))

    def end(self) -> None:
        """Keep the state, and measure on all test images, unless the last step did both."""
        if self._tried != self.opt.global_step:
            self._save()
        if not self.seconds:
            self._evaluate_all()

    def _stopped(self, error: ValueError) -> ValueError:
        """Say why the training stops; a base model that still answers is kept."""
        if self._answers():
            self._save()
        step = self.opt.global_step
        text = f"step {step + 1}: {error}. Training stops; the weights are those of step {step}"
        if self._saved is not None:
            text += f", {self.options.checkpoint} has those of step {self._saved}"
        return ValueError(text)

    def _answers(self) -> bool:
        """Tell whether the base weights give finite outputs for some test images."""
        x = np.asarray(self.dataset.x_test[:_EVALUATION_BATCH])
        return bool(np.isfinite(np.asarray(straight_forward(self.market, x))).all())

    def _evaluate(self, indices: NDArray[np.int64]) -> dict[str, float]:
        step, data = self.opt.global_step, self.dataset
        if step == self.options.steps:
            point = self._evaluate_all()
        elif step % self.options.eval_every == 0:
            point = self.curve.add(step, measure_accuracy(self.market, *_thinned(data)))
        else:
            return {}
        trained = measure_accuracy(self.market, data.x_train[indices], data.y_train[indices])
        return {
            "training/accuracy": trained,
            "training/forward_pass": float(self.options.forward_pass),
            "testing/accuracy": point.test_accuracy,
        }

    def _evaluate_all(self) -> Evaluation:
        self.seconds = time.perf_counter() - self._started
        data = self.dataset
        accuracy = measure_accuracy(self.market, data.x_test, data.y_test)
        return self.curve.add(self.opt.global_step, accuracy)

    def _save(self) -> None:
        """Write the checkpoint; a full disk costs the checkpoint, not the training."""
        path = self.options.checkpoint
        if path is None:
            return
        self.checkpoint_error, self._tried = None, self.opt.global_step
        try:
            self.watching.mark()
            self.opt.save(path)
            self._saved = self.opt.global_step
        except OSError as error:
            self.checkpoint_error = error
            self.watching.note(
                f"step {self.opt.global_step}: the checkpoint was not written: {error}"
            )


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


def take_step(opt: Optimizer, dataset: Dataset, options: Options) -> float:
    """One update; return the leader's loss, that of the weights before it."""
    if options.algorithm == "v1":
        loss = _keep_best(opt, dataset, options)
    else:
        indices = _indices(opt, dataset, options.batch_size * options.forward_pass)
        loss, _ = opt.train_step(
            dataset.x_train[indices],
            dataset.y_train[indices],
            unit_vector_mode=options.unit_vector_mode,
            forward_pass=options.forward_pass,
            marketplace_replica=options.marketplace_replica,
        )
    _decay(opt, rate_change(options, opt.global_step))
    # Both plans list the leader's path (all zeros) first.
    return float(loss[0])


def _keep_best(opt: Optimizer, dataset: Dataset, options: Options) -> F32:
    """V1 on the same samples as V2 would take."""
    indices = _indices(opt, dataset, options.batch_size * options.forward_pass)
    loss, _ = opt.keep_best_of(
        dataset.x_train[indices], dataset.y_train[indices], forward_pass=options.forward_pass
    )
    return loss


def _indices(opt: Optimizer, dataset: Dataset, count: int) -> NDArray[np.int64]:
    return batch_indices(opt.seed, opt.global_step, count, len(dataset.x_train))


def _decay(opt: Optimizer, factor: float) -> None:
    """With a line search, the rates of the specs are found by it and only its range shrinks."""
    if opt.meta_learning_rate is None:
        opt.learning_rate = float(opt.learning_rate) * factor
    else:
        opt.meta_learning_rate = float(opt.meta_learning_rate) * factor


def _thinned(dataset: Dataset) -> tuple[Images, NDArray[np.int32]]:
    """At most 1,000 test images, evenly spread: MNIST's first half is easier than its second."""
    stride = -(-len(dataset.x_test) // PERIODIC_IMAGES)
    return dataset.x_test[::stride], dataset.y_test[::stride]
