"""Continual learning: every sample of a batch takes a path of its own while the model answers.

An optimizer with plan ``scatter`` turns the losses of such samples into a step: ``z`` over all of
them, ``g = sum z delta`` over their vendors, one unit vector for the whole market. What a sample's
loss tells of its deltas is small beside what samples differ in anyway. Two things help: weights
that give rare labels their say, and the control variate, the loss of the base weights on the same
sample, which is known where the base weights gave the answer:

    z from  weight[b] * (loss(path[b], sample b) - loss(base, sample b))
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import (
    F32,
    I32,
    int32_input,
    integer,
    labels_input,
    market_input,
    paths_input,
    refusal,
    scalar,
)
from ._market import Spec, check_market
from ._scores import cross_entropy
from .optimizers import Optimizer, UnitVectorMode
from .tensor import Tensor

__all__ = ["Answer", "Learner", "Lesson", "forward_with_paths", "label_weights"]


def forward_with_paths(
    marketplace: Sequence[Spec], x: ArrayLike, paths: ArrayLike, optimizer: Optimizer
) -> Tensor:
    """Run every sample through the vendors of its own path.

    Per-sample losses of the result, with the same paths, go to ``optimizer.step`` in ``whole``
    mode. Batch norms use their running statistics.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market that the optimizer was made for.
    x : array (B, ...)
        Samples; uint8 or float32.
    paths : integer array (B, S)
        For every sample, one vendor index per spec.
    optimizer : Optimizer
        Whose vendors to run.

    Returns
    -------
    Tensor (B, ...)
        One float32 output per sample.

    Raises
    ------
    TypeError, ValueError
        For another market, or input or paths of another dtype, shape or range.
    """
    specs = check_market(marketplace, "forward_with_paths")
    same = len(specs) == len(optimizer.marketplace) and all(
        mine.model is theirs.model
        for mine, theirs in zip(specs, optimizer.marketplace, strict=True)
    )
    if not same:
        raise refusal(ValueError, "forward_with_paths", "the optimizer's own market", "another one")
    batch = market_input(x, "forward_with_paths")
    rows = paths_input(paths, "forward_with_paths", len(specs), batch.shape[0])
    return Tensor.wrap(optimizer._forward_paths(batch, rows))


def label_weights(
    y: ArrayLike,
    *,
    balance: bool = True,
    new_classes: Sequence[int] = (),
    new_class_weight: float = 1.0,
    ignore_index: int | None = None,
) -> F32:
    """Weigh the samples of a batch by their labels.

    With ``balance``, a label that occurs n times among N that count, of K different ones, weighs
    ``N / (K n)``: every label has the same say in all, and the mean weight is 1. Labels of new
    classes weigh ``new_class_weight`` times that.

    Parameters
    ----------
    y : integer array (B,)
        Labels.
    balance : bool
        Whether to weigh against the labels' frequencies; all are 1 otherwise.
    new_classes : sequence of int
        Labels to weigh more.
    new_class_weight : float
        How much more; at least 0.
    ignore_index : int, optional
        A label that does not count; it weighs 0.

    Returns
    -------
    float32 array (B,)
        Weights.

    Raises
    ------
    TypeError, ValueError
        For labels that are no integers or not in one row, or a weight that is negative.
    """
    labels = int32_input(y, "label_weights", "y")
    if labels.ndim != 1:
        raise refusal(ValueError, "label_weights", "y of shape (B,)", labels.shape)
    factor = scalar(new_class_weight, "label_weights", "new_class_weight")
    counts = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    weights = counts.astype(np.float64)
    if balance and counts.any():
        _, which, frequency = np.unique(labels[counts], return_inverse=True, return_counts=True)
        weights[counts] = counts.sum() / (len(frequency) * frequency[which])
    weights[np.isin(labels, list(new_classes))] *= factor
    return weights.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a ``Learner`` says of a batch, and what it needs to learn from it later."""

    logits: F32
    """The answer (B, classes): of the base weights under a control variate, else of the paths."""
    paths: I32
    """The vendors that every sample met, (B, S)."""
    path_logits: F32
    """The outputs of the paths (B, classes)."""
    generation: int
    """Which draw of the optimizer's vendors it was."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a batch has taught."""

    logits: F32
    """The answer (B, classes) that was given."""
    correct: NDArray[np.bool_]
    """Whether each sample's largest logit was its label's, (B,)."""
    loss: F32
    """Cross-entropy of every sample on its path (B,); 0 where the label does not count."""
    base_loss: F32 | None
    """The same of the base weights (B,), under a control variate."""


class Learner:
    """Answers batches, and learns from them when their labels are known.

    >>> learner = Learner(optimizer, balance_labels=True, new_classes=[9])
    >>> answer = learner.answer(x)
    >>> lesson = learner.learn(answer, y)

    Without a control variate the forward pass that answers is all that learning costs. With one,
    answers are those of the base weights, and learning adds the pass over the paths.

    Parameters
    ----------
    optimizer : Optimizer
        With plan ``scatter``; its ``control_variate`` tells what answers.
    balance_labels : bool
        Weigh samples against their labels' frequency in the batch, see ``label_weights``.
    new_classes : sequence of int
        Labels that the model is to learn.
    new_class_weight : float
        What their samples weigh, times.
    unit_vector_mode : UnitVectorMode or its value
        As for ``Optimizer.step``.

    Raises
    ------
    TypeError, ValueError
        For an optimizer of another plan, classes that are no integers, or a negative weight.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        balance_labels: bool = True,
        new_classes: Sequence[int] = (),
        new_class_weight: float = 1.0,
        unit_vector_mode: UnitVectorMode | str = UnitVectorMode.whole,
    ) -> None:
        if optimizer.plan != "scatter":
            wanted = "an optimizer with plan 'scatter'"
            raise refusal(ValueError, "Learner", wanted, repr(optimizer.plan))
        self.optimizer = optimizer
        self.balance_labels = bool(balance_labels)
        self.new_classes = tuple(integer(c, "Learner", "a new class", 0) for c in new_classes)
        self.new_class_weight = scalar(new_class_weight, "Learner", "new_class_weight")
        self.unit_vector_mode = UnitVectorMode(unit_vector_mode)

    def answer(self, x: ArrayLike) -> Answer:
        """Answer a batch; nothing is learnt yet.

        Parameters
        ----------
        x : array (B, ...)
            Samples; uint8 or float32.

        Returns
        -------
        Answer
            Its ``logits`` are what to say.

        Raises
        ------
        TypeError, ValueError
            For an empty batch, another dtype or shape, samples that are not finite, or a market
            that does not tell each of the new classes apart.
        """
        batch = market_input(x, "answer")
        opt = self.optimizer
        paths = opt._sample_paths(batch.shape[0])
        outputs = opt._forward_paths(batch, paths)
        self._check_outputs(outputs)
        base = opt._market.infer(batch) if opt.control_variate else outputs
        return Answer(base, paths, outputs, opt.generation)

    def learn(self, answer: Answer, y: ArrayLike, ignore_index: int | None = None) -> Lesson:
        """Learn from an answered batch: one step of the optimizer.

        Parameters
        ----------
        answer : Answer
            Of the present vendors: the step makes every other answer too old to learn from.
        y : integer array (B,)
            Labels.
        ignore_index : int, optional
            Stands for a label that is not known; such samples teach nothing.

        Returns
        -------
        Lesson
            What came of it.

        Raises
        ------
        TypeError, ValueError
            For labels of another dtype, shape or range, or if none counts. Nothing has changed.
        RuntimeError
            For an answer of earlier vendors.

        Warns
        -----
        RuntimeWarning
            If all losses are equal; the weights stay.
        """
        opt = self.optimizer
        if answer.generation != opt.generation:
            wanted = f"an answer of the present vendors (draw {opt.generation})"
            raise refusal(RuntimeError, "learn", wanted, f"one of draw {answer.generation}")
        labels = labels_input(y, "learn", len(answer.paths))
        counts = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
        if not counts.any():
            wanted = "a label other than ignore_index"
            raise refusal(ValueError, "learn", wanted, f"{labels.size} labels, none of them")
        loss = cross_entropy(answer.path_logits, labels, "none", ignore_index)
        base_loss = None
        if opt.control_variate:
            base_loss = cross_entropy(answer.logits, labels, "none", ignore_index)
        score = loss if base_loss is None else loss - base_loss
        weighed = score * self.weights(labels, ignore_index)
        opt.step(weighed[counts], answer.paths[counts], self.unit_vector_mode)
        correct = answer.logits.argmax(axis=1) == labels
        return Lesson(answer.logits, correct, loss, base_loss)

    def weights(self, y: ArrayLike, ignore_index: int | None = None) -> F32:
        """Weigh the samples of a batch as ``learn`` does, ``(B,)``; see ``label_weights``."""
        return label_weights(
            y,
            balance=self.balance_labels,
            new_classes=self.new_classes,
            new_class_weight=self.new_class_weight,
            ignore_index=ignore_index,
        )

    def follow(
        self, stream: Iterable[tuple[ArrayLike, ArrayLike]], ignore_index: int | None = None
    ) -> Iterator[Lesson]:
        """Answer and learn from a stream of batches, one lesson after the other.

        Parameters
        ----------
        stream : iterable of (x, y)
            Batches ``(B, ...)`` and their labels ``(B,)``; may be endless.
        ignore_index : int, optional
            As for ``learn``.

        Yields
        ------
        Lesson
            Of every batch.

        Raises
        ------
        TypeError, ValueError
            As ``answer`` and ``learn``; for a stream without a batch, or one that ends without a
            single label of one of the new classes. What was learnt until then stays.
        """
        missing, count = set(self.new_classes), 0
        for x, y in stream:
            yield self.learn(self.answer(x), y, ignore_index)
            missing -= set(np.unique(np.asarray(y)).tolist())
            count += 1
        if count == 0:
            raise refusal(ValueError, "follow", "a stream of at least one batch", "an empty one")
        if missing:
            wanted = f"a stream with labels of the new classes {sorted(self.new_classes)}"
            received = f"{count} batches without {sorted(missing)}"
            raise refusal(ValueError, "follow", wanted, received)

    def _check_outputs(self, outputs: F32) -> None:
        """Refuse what has no classes, or too few."""
        if outputs.ndim != 2:
            raise refusal(ValueError, "answer", "outputs (B, classes)", outputs.shape)
        unknown = [label for label in self.new_classes if label >= outputs.shape[1]]
        if unknown:
            wanted = f"new classes below {outputs.shape[1]}, the market's outputs"
            raise refusal(ValueError, "answer", wanted, unknown)
