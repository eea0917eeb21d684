"""What the samples of a batch weigh, and which of them are run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import random
from ._arrays import F32, int32_input, refusal, scalar

# Tells this use of the optimizer's seed from others.
_CHOICE_KEY = 0xA0761D6478BD642F


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


def choose(
    probability: NDArray[np.float64], count: int, seed: int, generation: int
) -> NDArray[np.int64]:
    """Draw samples by their probabilities, a function of (seed, generation).

    Systematic sampling: sample b is drawn ``count * probability[b]`` times, rounded up or down.
    """
    offset = float(random.rand(1, seed=seed ^ _CHOICE_KEY, counter=generation % 2**32)[0])
    points = (np.arange(count) + offset) / count
    ends = np.cumsum(probability)
    return np.searchsorted(ends / ends[-1], points, side="right").clip(0, len(ends) - 1)
