"""What turns outputs into losses, and losses into choices."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import (
    F32,
    default_engine,
    float_input,
    ignored_input,
    int32_input,
    integer,
    refusal,
    to_array,
)


def cross_entropy(
    logits: ArrayLike,
    y: ArrayLike,
    reduction: str = "mean",
    ignore_index: int | None = None,
) -> F32:
    """Give the cross-entropy of softmax(logits) against integer labels.

    ``-log(exp(logits[y]) / sum(exp(logits)))``, as PyTorch's ``cross_entropy``.

    Parameters
    ----------
    logits : array (..., B, K)
        Unnormalised log-probabilities of K classes; leading axes, such as vendors, share ``y``.
    y : integer array (B,)
        Labels in [0, K), or ``ignore_index``.
    reduction : {"mean", "sum", "none"}
        Over the batch; the mean is over the labels that are not ignored.
    ignore_index : int, optional
        A label whose samples count for nothing.

    Returns
    -------
    float32 array (...,), with reduction "none" (..., B)
        Losses.

    Raises
    ------
    TypeError
        For labels that are no integers.
    ValueError
        For other shapes or reductions, labels out of range, or none that counts.
    """
    values = float_input(logits, "cross_entropy", "logits")
    if reduction not in ("mean", "sum", "none"):
        wanted = "reduction 'mean', 'sum' or 'none'"
        raise refusal(ValueError, "cross_entropy", wanted, repr(reduction))
    labels = int32_input(y, "cross_entropy", "y")
    if values.ndim < 2 or values.shape[-1] < 1:
        raise refusal(ValueError, "cross_entropy", "logits (..., B, K)", f"shape {values.shape}")
    if labels.shape != values.shape[-2:-1]:
        wanted = f"y of shape {values.shape[-2:-1]}"
        raise refusal(ValueError, "cross_entropy", wanted, labels.shape)
    rows = values.reshape(-1, values.shape[-1])
    repeats = rows.shape[0] // max(labels.size, 1)
    ignored = ignored_input(ignore_index, "cross_entropy")
    losses = _core.cross_entropy(rows, np.tile(labels, repeats), ignored)
    return _reduce(losses.reshape(values.shape[:-1]), labels, reduction, ignore_index)


def _reduce(losses: F32, labels: NDArray[Any], reduction: str, ignore_index: int | None) -> F32:
    if reduction == "none":
        return losses
    total = losses.sum(axis=-1, dtype=np.float64)
    if reduction == "sum":
        return np.asarray(total, dtype=np.float32)
    counted = labels.size if ignore_index is None else int((labels != ignore_index).sum())
    if counted == 0:
        wanted = "a label other than ignore_index"
        raise refusal(ValueError, "cross_entropy", wanted, f"{labels.size} labels, none of them")
    return np.asarray(total / counted, dtype=np.float32)


def topk(x: Any, k: int, largest: bool = True) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the k largest or smallest values along the last axis, best first.

    Ties go to the lower index; NaN comes last, whichever end is asked for.

    Parameters
    ----------
    x : array (..., n)
        Real numbers; compared as float64. On a GPU (see ``docs/interop.md``): float32, float64 or
        integers; only what is chosen comes to the host.
    k : int
        How many, in [1, n].
    largest : bool
        Which end.

    Returns
    -------
    values : array (..., k)
        Of x's dtype.
    indices : int64 array (..., k)
        Where they were.

    Raises
    ------
    TypeError
        For what is no array of real numbers.
    ValueError
        For a ``k`` outside [1, n] or a scalar.
    """
    there = _device_tensor(x)
    if there is not None:
        _check_count(there.shape, k)
        return there.topk(int(k), bool(largest))
    array = to_array(x, "topk", "x")
    if array.dtype.kind not in "fiub":
        raise refusal(TypeError, "topk", "x of a real dtype", array.dtype)
    count = _check_count(array.shape, k)
    rows = np.ascontiguousarray(array.reshape(-1, count), dtype=np.float64)
    indices = _core.topk(rows, int(k), bool(largest))[1].reshape(*array.shape[:-1], int(k))
    return np.take_along_axis(array, indices, axis=-1), indices


def _device_tensor(x: Any) -> _core.DeviceTensor | None:
    """Give an array on a GPU to the engine; None for what is none."""
    if isinstance(x, np.ndarray):
        return None
    from ._gpu_arrays import Call, is_gpu_array  # its results are tensors, which have topk too
    from .device_array import DeviceArray

    if isinstance(x, DeviceArray):
        return x._tensor
    return Call("topk", default_engine()).numbers(x) if is_gpu_array(x) else None


def _check_count(shape: tuple[int, ...], k: int) -> int:
    count = shape[-1] if shape else 0
    if integer(k, "topk", "k", 1) > count:
        raise refusal(ValueError, "topk", f"x (..., n) and k in [1, {count}]", f"k = {k}")
    return count
