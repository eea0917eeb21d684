"""Continual learning: a model answers batch after batch, and learns from what it answered.

With plan ``node`` the base weights answer, and a step of node perturbation on the same batch
teaches them: the output layer by its exact gradient, layers before it from their probes.

With plan ``scatter`` every sample takes a path of its own while the model answers. Their losses
become a step: ``z`` over all, ``g = sum z delta`` over their vendors, one unit vector for the whole
market. A loss tells less of its deltas than of its sample. Three things help:

- weights ``w`` that give rare labels their say, see ``label_weights``;
- the control variate: the base weights' loss on the same sample, known where they gave the answer;
- with it, the choice of samples: path p runs sample b with a probability ``q[b]`` that grows with
  the base weights' doubt ``1 - softmax(logits)[label]`` (importance sampling), and

      z from  w[b] / q[b] * (loss(path[p], sample b) - loss(base, sample b))

  has the same mean as if every sample were run. So half as many paths as samples will do:
  answering and learning together take 1.5 times the operations of answering.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import (
    F32,
    I32,
    integer,
    labels_input,
    market_input,
    paths_input,
    refusal,
    scalar,
)
from ._gpu_arrays import Call
from ._market import Spec, check_market
from ._scores import cross_entropy
from ._weights import choose, label_weights
from .optimizers import Optimizer, UnitVectorMode
from .tensor import Tensor

# Samples whose answer is right beyond doubt are run once in a while too: a path may spoil them.
LEAST_DOUBT = 0.02

__all__ = ["Answer", "Learner", "Lesson", "forward_with_paths", "label_weights"]


def forward_with_paths(
    marketplace: Sequence[Spec],
    x: Any,
    paths: ArrayLike,
    optimizer: Optimizer,
    *,
    stream: Any = None,
) -> Tensor:
    """Run every sample through the vendors of its own path.

    Per-sample losses of the result, with the same paths, go to ``optimizer.step`` in ``whole``
    mode. Batch norms use their running statistics.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market that the optimizer was made for.
    x : array (B, ...)
        Samples, of which there may be none; of dtypes as for ``Optimizer.probe``.
    paths : integer array (B, S)
        For every sample, one vendor index per spec.
    optimizer : Optimizer
        Whose vendors to run.
    stream : int or object, optional
        As for ``Optimizer.probe``.

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
    batch = Call("forward_with_paths", optimizer._market.engine, stream).samples(x)
    rows = paths_input(paths, "forward_with_paths", len(specs), batch.shape[0])
    return Tensor.wrap(optimizer._forward_paths(batch, rows))


@dataclass(frozen=True, eq=False)
class Answer:
    """What a ``Learner`` says of a batch, and what it needs to learn from it later."""

    logits: F32
    """The answer (B, classes): of the paths with plan ``scatter`` and no control variate, else of
    the base weights."""
    x: NDArray[Any]
    """The batch (B, ...), not copied."""
    generation: int
    """Which draw of the optimizer's vendors it was."""
    paths: I32 | None
    """The vendors that every sample met (B, S); None where the base weights answered."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a batch has taught."""

    logits: F32
    """The answer (B, classes) that was given."""
    correct: NDArray[np.bool_]
    """Whether each sample's largest logit was its label's, (B,)."""
    loss: F32
    """Cross-entropy of every answer (B,); 0 where the label does not count."""
    samples: NDArray[np.int64]
    """Which samples were run through which paths to learn, (P,): ``paths`` (P, S). Plan ``node``
    runs the leader's, with all samples that count."""
    paths: I32
    scores: F32
    """What the step was made from (P,): weighed losses, less the base weights' under a control
    variate."""


class Learner:
    """Answers batches, and learns from them when their labels are known.

    >>> learner = Learner(optimizer, new_classes=[9])
    >>> answer = learner.answer(x)
    >>> lesson = learner.learn(answer, y)

    With plan ``node`` the base weights answer, and every sample teaches alike. With plan
    ``scatter`` and ``optimizer.control_variate`` the base weights answer, and learning runs paths
    for the samples that have something to teach. Without, the paths answer and that pass is all
    there is.

    Parameters
    ----------
    optimizer : Optimizer
        With plan ``node`` or ``scatter``.
    balance_labels : bool, optional
        Weigh samples against their labels' frequency in the batch, see ``label_weights``; if not
        given, with plan ``scatter``.
    new_classes : sequence of int
        Labels that the model is to learn.
    new_class_weight : float
        What their samples weigh, times.
    probe_share : float
        Under a control variate: paths to run, as a share of the samples.
    focus : bool
        Under a control variate: run samples in proportion to their weight and doubt, some several
        times; otherwise all alike.
    unit_vector_mode : UnitVectorMode or its value
        As for ``Optimizer.step``.

    Raises
    ------
    TypeError, ValueError
        For an optimizer of another plan, classes that are no integers, a negative weight or share,
        or weights of samples with plan ``node``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        balance_labels: bool | None = None,
        new_classes: Sequence[int] = (),
        new_class_weight: float = 1.0,
        probe_share: float = 0.5,
        focus: bool = True,
        unit_vector_mode: UnitVectorMode | str = UnitVectorMode.whole,
    ) -> None:
        if optimizer.plan not in ("node", "scatter"):
            wanted = "an optimizer with plan 'node' or 'scatter'"
            raise refusal(ValueError, "Learner", wanted, repr(optimizer.plan))
        self.optimizer = optimizer
        scatter = optimizer.plan == "scatter"
        self.balance_labels = scatter if balance_labels is None else bool(balance_labels)
        self.new_classes = tuple(integer(c, "Learner", "a new class", 0) for c in new_classes)
        self.new_class_weight = scalar(new_class_weight, "Learner", "new_class_weight")
        self.probe_share = scalar(probe_share, "Learner", "probe_share")
        self.focus = bool(focus)
        names = [mode.value for mode in UnitVectorMode]
        if unit_vector_mode not in (*UnitVectorMode, *names):
            wanted = "unit_vector_mode 'whole' or 'per_spec'"
            raise refusal(ValueError, "Learner", wanted, repr(unit_vector_mode))
        self.unit_vector_mode = UnitVectorMode(unit_vector_mode)
        if not scatter and (self.balance_labels or self.new_class_weight != 1):
            wanted = "samples that all weigh the same with plan 'node'"
            received = f"balance_labels={balance_labels}, new_class_weight={new_class_weight}"
            raise refusal(ValueError, "Learner", wanted, received)

    def __repr__(self) -> str:
        """Name the optimizer and the new classes."""
        return f"Learner({self.optimizer!r}, new_classes={list(self.new_classes)})"

    def answer(self, x: ArrayLike) -> Answer:
        """Answer a batch; nothing is learnt yet.

        Parameters
        ----------
        x : array (B, ...)
            Samples; of dtypes as for ``Optimizer.probe``.

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
        if len(batch) == 0:
            raise refusal(ValueError, "answer", "at least one sample", "an empty batch")
        opt = self.optimizer
        base = opt.plan == "node" or opt.control_variate
        paths = None if base else opt._sample_paths(batch.shape[0])
        logits = opt._infer(batch) if paths is None else opt._forward_paths(batch, paths)
        self._check_outputs(logits)
        return Answer(logits, batch, opt.generation, paths)

    def learn(self, answer: Answer, y: ArrayLike, *, ignore_index: int | None = None) -> Lesson:
        """Learn from an answered batch: one step of the optimizer.

        Parameters
        ----------
        answer : Answer
            Of the present weights: the step makes every other answer too old to learn from.
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
            For an answer of earlier weights.

        Warns
        -----
        RuntimeWarning
            If all losses are equal; the weights stay.
        """
        opt = self.optimizer
        if answer.generation != opt.generation:
            wanted = f"an answer of the present vendors (draw {opt.generation})"
            raise refusal(RuntimeError, "learn", wanted, f"one of draw {answer.generation}")
        labels = labels_input(y, "learn", len(answer.x))
        counts = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
        if not counts.any():
            wanted = "a label other than ignore_index"
            raise refusal(ValueError, "learn", wanted, f"{labels.size} labels, none of them")
        loss = cross_entropy(answer.logits, labels, "none", ignore_index)
        if opt.plan == "node":
            chosen = np.flatnonzero(counts)
            paths, scores = np.zeros((len(chosen), len(opt.marketplace)), np.int32), loss[chosen]
            opt.step(*opt.probe(answer.x, labels, ignore_index=ignore_index))
        else:
            weights = self.weights(labels, ignore_index=ignore_index)
            chosen, paths, scores = self._scores(answer, labels, loss, weights, counts)
            opt.step(scores, paths, self.unit_vector_mode)
        correct = (answer.logits.argmax(axis=1) == labels) & counts
        return Lesson(answer.logits, correct, loss, chosen, paths, scores)

    def weights(self, y: ArrayLike, *, ignore_index: int | None = None) -> F32:
        """Weigh the samples of a batch as ``learn`` does.

        Parameters
        ----------
        y, ignore_index
            As for ``learn``.

        Returns
        -------
        float32 array (B,)
            As of ``label_weights``, whose errors are raised too.
        """
        return label_weights(
            y,
            balance=self.balance_labels,
            new_classes=self.new_classes,
            new_class_weight=self.new_class_weight,
            ignore_index=ignore_index,
        )

    def probe_count(self, samples: int) -> int:
        """Count the paths that ``learn`` runs beside the answers.

        Parameters
        ----------
        samples : int
            Answers in the batch.

        Returns
        -------
        int
            Paths, at least 2; 0 without a control variate.
        """
        if not self.optimizer.control_variate:
            return 0
        return max(2, round(self.probe_share * samples))  # one score would have no deviation

    def _scores(
        self, answer: Answer, labels: I32, loss: F32, weights: F32, counts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], I32, F32]:
        """Give the samples that tell of paths, their paths, and what they tell."""
        if answer.paths is None:
            return self._probe(answer, labels, loss, weights, counts)
        chosen = np.flatnonzero(counts)
        return chosen, answer.paths[chosen], (loss * weights)[chosen]

    def _probe(
        self, answer: Answer, labels: I32, base_loss: F32, weights: F32, counts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], I32, F32]:
        """Run paths for some samples: which, their paths, and their scores."""
        opt = self.optimizer
        share = self._shares(base_loss, weights, counts)
        count = self.probe_count(len(labels))
        chosen = choose(share / share.sum(), count, opt.seed, opt.generation)
        paths = opt._sample_paths(count)
        logits = opt._forward_paths(np.ascontiguousarray(answer.x[chosen]), paths)
        gain = cross_entropy(logits, labels[chosen], "none") - base_loss[chosen]
        # relative to the mean, for the scores' size does not matter, but float32's range does
        factor = weights[chosen] / share[chosen] * share.mean()
        return chosen, paths, (gain * factor).astype(np.float32)

    def _shares(
        self, base_loss: F32, weights: F32, counts: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Give every sample's share of the paths, (B,); 0 where the label does not count."""
        doubt = -np.expm1(-np.float64(base_loss))
        share = np.where(counts, weights * (LEAST_DOUBT + doubt), 0.0)
        return share if self.focus and share.any() else counts.astype(np.float64)

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
            yield self.learn(self.answer(x), y, ignore_index=ignore_index)
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
