"""Functions without weights: what they record on a traced value, they compute on an array."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._arrays import F32, IntPair, axis_input, float_input, refusal, to_array
from ._eager import infer, one_op_model
from ._trace import Axes, Value

X = TypeVar("X", Value, NDArray[Any])


def relu(x: X) -> X:
    """Give ``max(x, 0)``, elementwise.

    Parameters
    ----------
    x : array
        Of any shape and real dtype, or a traced value.

    Returns
    -------
    array of x's shape
        Float32.

    Raises
    ------
    TypeError
        For what is no array of real numbers.
    ValueError
        For numbers that are not finite.
    """
    return _unary(x, "relu", Value.relu)


def gelu(x: X, approximate: str = "none") -> X:
    """Give ``x Phi(x)``, elementwise (Hendrycks and Gimpel, "Gaussian error linear units", 2016).

    Parameters
    ----------
    x : array
        Of any shape.
    approximate : {"none", "tanh"}
        ``Phi`` exact, by the error function, or its usual approximation by ``tanh``.

    Returns
    -------
    array of x's shape
        Float32.

    Raises
    ------
    ValueError
        For another ``approximate``.
    """
    return _unary(x, "gelu", lambda value: value.gelu(approximate))


def sigmoid(x: X) -> X:
    """Give ``1 / (1 + exp(-x))``, elementwise.

    Parameters, result and errors are those of ``relu``.
    """
    return _unary(x, "sigmoid", Value.sigmoid)


def tanh(x: X) -> X:
    """Give the hyperbolic tangent, elementwise.

    Parameters, result and errors are those of ``relu``.
    """
    return _unary(x, "tanh", Value.tanh)


def max_pool2d(
    x: X,
    kernel_size: IntPair = 2,
    stride: IntPair | None = None,
    *,
    padding: IntPair = 0,
    dilation: IntPair = 1,
) -> X:
    """Give the maximum of sliding windows, as PyTorch's ``max_pool2d``.

    Parameters
    ----------
    x : array (..., C, H, W)
        Images; any leading axes.
    kernel_size, stride, padding, dilation : int or (int, int)
        Window (height, width), steps between windows (default: the window's size), positions around
        the image that never win (at most half a window), steps within a window.

    Returns
    -------
    array (..., C, H', W')
        Float32, extents as for ``conv2d``.

    Raises
    ------
    TypeError, ValueError
        As ``conv2d``.
    """
    return _pool(
        x,
        "max_pool2d",
        lambda value: value.max_pool2d(kernel_size, stride, padding=padding, dilation=dilation),
    )


def avg_pool2d(
    x: X,
    kernel_size: IntPair = 2,
    stride: IntPair | None = None,
    *,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    count_include_pad: bool = True,
) -> X:
    """Give the mean of sliding windows, as PyTorch's ``avg_pool2d``.

    Parameters
    ----------
    x : array (..., C, H, W)
        Images; any leading axes.
    kernel_size, stride, padding, dilation : int or (int, int)
        As for ``max_pool2d``; padding counts as zeros.
    count_include_pad : bool
        Whether padding counts in the divisor.

    Returns
    -------
    array (..., C, H', W')
        Float32.

    Raises
    ------
    TypeError, ValueError
        As ``conv2d``.
    """
    options: dict[str, Any] = {"padding": padding, "dilation": dilation}
    options |= {"count_include_pad": count_include_pad}
    return _pool(x, "avg_pool2d", lambda value: value.avg_pool2d(kernel_size, stride, **options))


def mean(x: X, axis: Axes = None, keepdims: bool = False) -> X:
    """Give the mean over axes; summed in float64 for arrays.

    Parameters
    ----------
    x : array
        Of any shape.
    axis : int or sequence of int, optional
        Axes to average over; all for an array. On a traced value it must be given, without axis 0.
    keepdims : bool
        Whether the axes stay, with extent 1.

    Returns
    -------
    array
        Float32.
    """
    if isinstance(x, Value):
        return x.mean(axis, keepdims=keepdims)
    axes = axis if axis is None or not isinstance(axis, Sequence) else tuple(axis)
    means = np.mean(float_input(x, "mean"), axis=axes, dtype=np.float64, keepdims=keepdims)
    return np.asarray(means, dtype=np.float32)


def flatten(x: X, start_dim: int = 1, end_dim: int = -1) -> X:
    """Merge the axes from ``start_dim`` to ``end_dim`` into one, as PyTorch's ``flatten``.

    Parameters
    ----------
    x : array
        Of any shape; the dtype stays.
    start_dim, end_dim : int
        First and last axis to merge; negative from the end. On a traced value, not axis 0.

    Returns
    -------
    array
        A view where possible.

    Raises
    ------
    ValueError
        For axes out of range or in the wrong order.
    """
    if isinstance(x, Value):
        return x.flatten(start_dim, end_dim)
    array: NDArray[Any] = to_array(x, "flatten", "x")
    start_dim, end_dim = axis_input(start_dim, "flatten"), axis_input(end_dim, "flatten")
    rank: int = max(array.ndim, 1)
    start: int = start_dim + rank if start_dim < 0 else start_dim
    end: int = end_dim + rank if end_dim < 0 else end_dim
    if not 0 <= start <= end < rank:
        wanted = f"axes 0 <= start_dim <= end_dim < {rank}"
        raise refusal(ValueError, "flatten", wanted, f"{start_dim} and {end_dim}")
    merged = math.prod(array.shape[start : end + 1])
    return array.reshape((*array.shape[:start], merged, *array.shape[end + 1 :]))


def _unary(x: X, op: str, write: Callable[[Value], Value]) -> X:
    if isinstance(x, Value):
        return write(x)
    array = float_input(x, op)
    if array.size == 0:
        return array
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    return _run_plain(rows, op, write).reshape(array.shape)


def _pool(x: X, op: str, write: Callable[[Value], Value]) -> X:
    if isinstance(x, Value):
        return write(x)
    array = float_input(x, op)
    if array.ndim < 3:
        raise refusal(ValueError, op, "x (..., C, H, W)", f"shape {array.shape}")
    images = math.prod(array.shape[:-3])
    out = _run_plain(array.reshape(images, *array.shape[-3:]), op, write)
    return out.reshape(*array.shape[:-3], *out.shape[1:])


def _run_plain(rows: F32, op: str, write: Callable[[Value], Value]) -> F32:
    return infer(one_op_model(lambda value, _: write(value), {}), rows, op)
