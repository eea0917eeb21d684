"""Losses over some of the classes: the others' logits take no part in the softmax."""

from collections.abc import Sequence

import numpy as np

from . import _core
from ._arrays import F32, I32, integer, listed, refusal
from ._gpu_arrays import Samples
from ._scores import cross_entropy


def class_losses(
    native: _core.Optimizer,
    x: Samples,
    labels: I32,
    ignore_index: int | None,
    classes: Sequence[int],
    further: bool,
) -> tuple[F32, I32]:
    """Probe like the engine's optimizer, the softmax running over ``classes`` alone.

    Every path's logits ``(P, B, K)`` are kept for it, unlike those of a probe over all classes.
    """
    chosen = _checked(classes)
    places = _places(chosen, labels, ignore_index)
    logits, paths = native.forward(x, further)
    if logits.ndim != 3 or chosen[-1] >= logits.shape[2]:
        wanted = f"logits of more than {chosen[-1]} classes"
        raise refusal(ValueError, "probe", wanted, f"outputs {logits.shape[2:]}")
    ignored = None if ignore_index is None else -1
    return cross_entropy(logits[:, :, chosen], places, ignore_index=ignored), paths


def _checked(classes: Sequence[int]) -> list[int]:
    given = listed(classes, "probe", "classes as a list of integers")
    chosen = sorted(integer(each, "probe", "a class", 0) for each in given)
    if not chosen or len(set(chosen)) < len(chosen):
        raise refusal(ValueError, "probe", "different classes, at least one", chosen)
    return chosen


def _places(chosen: list[int], labels: I32, ignore_index: int | None) -> I32:
    """Give every label's place among the classes; -1 for those that are ignored."""
    places = np.searchsorted(chosen, labels)
    known = np.asarray(chosen)[np.minimum(places, len(chosen) - 1)] == labels
    ignored = np.zeros_like(known) if ignore_index is None else labels == ignore_index
    if not (known | ignored).all():
        sample = int(np.argmin(known | ignored))
        received = f"{labels[sample]} at sample {sample}"
        raise refusal(ValueError, "probe", f"labels among the classes {chosen}", received)
    return np.where(ignored, -1, places).astype(np.int32)
