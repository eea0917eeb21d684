"""The loop that the examples of continual learning share: a base model, then answer and learn.

Everything a step does is a function of the seed and the step's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import random
from .._allocation import spec_flops
from ..callbacks import Watch
from ..checkpoint import load_checkpoint, write_checkpoint
from ..continual import Learner, Lesson
from ..optimizers import Optimizer
from ..schedules import cosine
from ..training import Spec
from ._batches import batch_indices
from ._continual_cli import STRUCTURES, Options
from ._digits import IMAGE_SHAPE
from ._interrupt import Interrupt
from ._markets import copy_weights, digit_structure
from ._replay import ReplayFile
from ._run import measure_accuracy
from ._stream import Samples, Stream, Task

PERIODIC_IMAGES = 1_000
TARGET_NEW = 90.0  # percent of the new class's test images
TARGET_LOSS = 1.0  # points of old accuracy that it may cost
NEAR = 2.0  # points by which 1,000 images may misjudge that

# The old is learnt by node perturbation, as in the MNIST example.
BASE_BATCH, BASE_LR = 64, 0.003

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Percent of the test images that the base weights classify rightly."""

    old: float
    new: float

    def reaches(self, start: Accuracy, slack: float = 0.0) -> bool:
        """Whether the new class is known and the old ones have not been forgotten, nearly."""
        old_least = start.old - TARGET_LOSS - slack
        return self.new >= TARGET_NEW - slack and self.old >= old_least


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of the curves.

    Attributes
    ----------
    step : int
        Batches learnt from.
    accuracy : Accuracy
        On test images.
    old_loss, new_loss : float or None
        Mean cross-entropy of the answers since the last point; None at the start.
    """

    step: int
    accuracy: Accuracy
    old_loss: float | None
    new_loss: float | None


@dataclasses.dataclass
class Outcome:
    """What a run ends with.

    Attributes
    ----------
    start, end : Accuracy
        Before and after, on all test images.
    history : list of Point
        By ascending step from 0, on at most 1,000 test images of each kind.
    seconds : float
        Time of the steps and the evaluations between them.
    signum : int
        The signal that ended it early, SIGINT or SIGTERM; 0 for none.
    steps_to_target : int or None
        The first point with 90 % of the new class and at most 1 point of the old lost, as measured
        on all test images.
    checkpoint_error : OSError or None
        Why the checkpoint could not be written.
    """

    start: Accuracy
    end: Accuracy
    history: list[Point]
    seconds: float
    signum: int
    steps_to_target: int | None
    checkpoint_error: OSError | None


def set_up(options: Options, task: Task, tell: Tell) -> tuple[list[Spec], Optimizer]:
    """Build a market that knows the old classes, and the optimizer that will teach it.

    Raises
    ------
    ValueError, OSError
        The base checkpoint cannot be read, or is of another market; or the one that was trained
        cannot be written.
    RuntimeError
        There is no such device.
    """
    random.manual_seed(options.seed)
    structure = digit_structure(STRUCTURES.get(len(options.vendors), "depth-3"))
    market = structure.specs(options.plan, options.vendors)
    opt = Optimizer(
        market,
        options.lr,
        probe_scale=options.probe_scale,
        plan=options.plan,
        device=options.device,
        dtype=options.dtype,
        seed=options.seed,
        threads=options.threads,
        control_variate=options.control_variate,
    )
    if options.base is not None:
        _load_base(market, options.base)
        return market, opt
    _train_base(market, task.old_train, options, tell)
    if options.save_base is not None:
        write_checkpoint(market, options.base_steps, options.save_base)
    return market, opt


def _load_base(market: list[Spec], path: Path) -> None:
    """Load a base model, into however many specs it was cut."""
    try:
        load_checkpoint(market, path)
    except ValueError:
        if not _load_other_cut(market, path):
            raise


def _load_other_cut(market: list[Spec], path: Path) -> bool:
    """Say whether the checkpoint is of the same layers cut otherwise; load it then."""
    for name in STRUCTURES.values():
        other = digit_structure(name).specs("star")
        with contextlib.suppress(ValueError):
            load_checkpoint(other, path)
            copy_weights(other, market)
            return True
    return False


def _train_base(market: Sequence[Spec], known: Samples, options: Options, tell: Tell) -> None:
    """Train the market's weights on what is old, with specs and vendors of its own."""
    specs = digit_structure("depth-5").specs("node")
    copy_weights(market, specs)
    opt = Optimizer(
        specs,
        BASE_LR,
        plan="node",
        dtype=options.dtype,
        seed=options.seed,
        threads=options.threads,
    )
    rate = cosine(BASE_LR, max(1, options.base_steps))
    losses = []
    for step in range(options.base_steps):
        opt.learning_rate = rate(step)
        chosen = known.chosen(batch_indices(options.seed, step, BASE_BATCH, len(known)))
        loss, _ = opt.train_step(chosen.x, chosen.y)
        losses.append(float(loss[0]))
        if len(losses) == 50:
            tell(f"base model, step {step + 1}/{options.base_steps} · loss {np.mean(losses):6.4f}")
            losses.clear()
    copy_weights(specs, market)


def measure(market: Sequence[Spec], task: Task, most: int | None = None) -> Accuracy:
    """Measure both accuracies, on all test images or on at most ``most`` of each kind."""
    parts = (task.old_test, task.new_test)
    old, new = (part if most is None else _thinned(part, most) for part in parts)
    return Accuracy(measure_accuracy(market, old.x, old.y), measure_accuracy(market, new.x, new.y))


def make_learner(opt: Optimizer, task: Task, options: Options) -> Learner:
    """Make what answers and learns, as the command line asks for it."""
    return Learner(
        opt,
        balance_labels=options.balance_labels,
        new_classes=[task.new_class],
        new_class_weight=options.new_class_weight,
        probe_share=options.probe_share,
        focus=options.focus,
    )


def count_flops(opt: Optimizer, learner: Learner, batch_size: int) -> int:
    """Count the floating point operations of answering a batch and learning from it."""
    if opt.plan == "node":
        answering = batch_size * sum(spec_flops(opt.marketplace, IMAGE_SHAPE))
        return answering + opt.flops_per_step(IMAGE_SHAPE, batch_size)
    passes = 2 if opt.control_variate else 1  # of the optimizer's own step
    one = opt.flops_per_step(IMAGE_SHAPE, 1) // passes
    return one * (batch_size + learner.probe_count(batch_size))


def learn(
    market: Sequence[Spec],
    learner: Learner,
    task: Task,
    options: Options,
    replay: ReplayFile | None,
    interrupt: Interrupt,
    tell: Tell,
    watch: Watch,
) -> Outcome:
    """Answer and learn from the stream until ``options.steps`` or a signal.

    Parameters
    ----------
    market : sequence of Spec
        The market that learns.
    learner : Learner
        What teaches it.
    task : Task
        What is old, and what is new.
    options : Options
        Steps, batches, weights, decay and evaluations.
    replay : ReplayFile, optional
        Told of every step.
    interrupt : Interrupt
        Asked before each step.
    tell : callable
        Called with a line at each evaluation.
    watch : Watch
        Told of every step, under the names that the reference logs.

    Returns
    -------
    Outcome
        What was measured.

    Raises
    ------
    OSError
        The replay file cannot be written.
    """
    stream = Stream(task, options.batch_size, options.new_per_batch, options.seed, options.augment)
    opt = learner.optimizer
    start = measure(market, task)
    curves = _Curves(measure(market, task, PERIODIC_IMAGES))
    reached: int | None = None
    started = time.perf_counter()
    while opt.global_step < options.steps and not interrupt.requested:
        batch = stream.batch(opt.global_step)
        lesson = learner.learn(learner.answer(batch.x), batch.y)
        _decay(opt, options.lr_decay)
        curves.met(lesson, len(batch.old_indices))
        evaluate = None
        if opt.global_step % options.eval_every == 0 or opt.global_step == options.steps:
            evaluate = functools.partial(measure, market, task, PERIODIC_IMAGES)
        status = functools.partial(_status, opt, lesson, len(batch.old_indices), curves, evaluate)
        watch.step(None, status)
        if evaluate is not None:
            tell(_state(curves.points[-1], options.steps, time.perf_counter() - started))
            near = reached is None and curves.near_target()
            if near and measure(market, task).reaches(start):
                reached = opt.global_step
        if replay is not None:
            replay.write(opt.global_step, batch, lesson, curves.points[-1].accuracy)
    seconds = time.perf_counter() - started
    # before the last measurement, which who sent SIGTERM may not wait for
    error = _keep(opt, options.checkpoint)
    end = measure(market, task)
    return Outcome(start, end, curves.points, seconds, interrupt.signum, reached, error)


def _keep(opt: Optimizer, path: Path | None) -> OSError | None:
    """Write the checkpoint; a full disk costs the checkpoint, not the results."""
    try:
        if path is not None:
            opt.save(path)
    except OSError as error:
        return error
    return None


class _Curves:
    """The points so far, and the losses since the last one."""

    def __init__(self, start: Accuracy) -> None:
        self.points = [Point(0, start, None, None)]
        self._old: list[float] = []
        self._new: list[float] = []

    def met(self, lesson: Lesson, old_count: int) -> None:
        self._old += lesson.loss[:old_count].tolist()
        self._new += lesson.loss[old_count:].tolist()

    def near_target(self) -> bool:
        """Whether all test images might tell what the few of the last point do not."""
        return self.points[-1].accuracy.reaches(self.points[0].accuracy, NEAR)

    def add(self, step: int, accuracy: Accuracy) -> None:
        point = Point(step, accuracy, float(np.mean(self._old)), float(np.mean(self._new)))
        self.points.append(point)
        self._old.clear()
        self._new.clear()


def _status(
    opt: Optimizer,
    lesson: Lesson,
    old_count: int,
    curves: _Curves,
    evaluate: Callable[[], Accuracy] | None,
) -> dict[str, float]:
    """Tell a step's metrics; an evaluation that is due becomes a point of the curves."""
    old, new = slice(None, old_count), slice(old_count, None)
    metrics = {
        "learning/old_loss": lesson.loss[old].mean(),
        "learning/old_accuracy": 100 * lesson.correct[old].mean(),
        "learning/new_loss": lesson.loss[new].mean(),
        "learning/new_accuracy": 100 * lesson.correct[new].mean(),
        "learning/lr": opt.learning_rate,
    }
    if evaluate is not None:
        curves.add(opt.global_step, evaluate())
        accuracy = curves.points[-1].accuracy
        metrics["testing/old_accuracy"] = accuracy.old
        metrics["testing/new_accuracy"] = accuracy.new
    return {name: float(value) for name, value in metrics.items()}


def _decay(opt: Optimizer, share: float) -> None:
    """Shorten the steps to come; deltas and noise keep their size, for so does what they probe."""
    if share == 0:
        return
    assert opt.probe_scale is not None
    amplitude = float(opt.learning_rate) * float(opt.probe_scale)
    opt.learning_rate = float(opt.learning_rate) * (1.0 - share)
    if opt.plan == "scatter":
        opt.probe_scale = amplitude / float(opt.learning_rate)


def _thinned(samples: Samples, most: int) -> Samples:
    """At most so many, evenly spread: MNIST's first half is easier than its second."""
    return samples.chosen(np.arange(0, len(samples), -(-len(samples) // most)))


def _state(point: Point, total: int, seconds: float) -> str:
    return (
        f"step {point.step:{len(str(total))}d}/{total} · "
        f"test accuracy old {point.accuracy.old:5.2f} %, new {point.accuracy.new:5.2f} % · "
        f"loss {point.old_loss:.3f}, {point.new_loss:.3f} · {point.step / seconds:.2f} steps/s"
    )
