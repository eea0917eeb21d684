"""Functions on arrays, and on the traced value inside a model.

Weights may carry a leading vendor axis ``(V, ...)``; then so does the result, and ``x`` is either
shared by all vendors, ``(B, ...)``, or has the axis too, ``(V, B, ...)``. Arrays of any real dtype
are taken as float32, results are float32. Each function is one operation of the engine: what runs
here is what runs inside a market. Nothing here remembers or changes anything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import F32, IntPair, float_input, integer, refusal
from ._eager import Layout, Weight, run
from ._functions import avg_pool2d, flatten, gelu, max_pool2d, mean, relu, sigmoid, tanh
from ._parameters import Parameter
from ._scores import cross_entropy, topk

__all__ = [
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "flatten",
    "gelu",
    "instance_norm",
    "layer_norm",
    "linear",
    "max_pool2d",
    "mean",
    "relu",
    "sigmoid",
    "tanh",
    "topk",
]

_IMAGES = Layout((4,))


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> F32:
    """Cross-correlate images with kernels, as PyTorch's ``conv2d``.

    Parameters
    ----------
    x : array (B, C, H, W) or (V, B, C, H, W)
        Images.
    weight : array (O, C/groups, kh, kw) or (V, O, C/groups, kh, kw)
        Kernels.
    bias : array (O,) or (V, O), optional
        Added to every output channel.
    stride, padding, dilation : int or (int, int)
        Steps between windows, zeros around the image, steps within a window; (height, width).
    groups : int
        Number of groups that the channels are divided into.

    Returns
    -------
    array (B, O, H', W') or (V, B, O, H', W')
        Float32; ``H' = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1``.

    Raises
    ------
    ValueError
        For shapes that do not fit one another, or values that are not finite.
    TypeError
        For what is no array of real numbers.
    """
    options: dict[str, Any] = {"stride": stride, "padding": padding}
    options |= {"dilation": dilation, "groups": groups}
    return run(
        "conv2d",
        x,
        lambda value, p: value.conv2d(p["weight"], p.get("bias"), **options),
        {"weight": Weight(weight, 4, True), "bias": Weight(bias, 1)},
        _IMAGES,
    )


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> F32:
    """Multiply with a matrix: ``x @ weight.T + bias``.

    Parameters
    ----------
    x : array (B, ..., I) or (V, B, ..., I)
        Rows. With a vendor axis on the weights, three axes and more mean that ``x`` has it too.
    weight : array (O, I) or (V, O, I)
        Matrix.
    bias : array (O,) or (V, O), optional
        Added to every row.

    Returns
    -------
    array (B, ..., O) or (V, B, ..., O)
        Float32.

    Raises
    ------
    TypeError, ValueError
        As ``conv2d``.
    """
    return run(
        "linear",
        x,
        lambda value, p: value.linear(p["weight"], p.get("bias")),
        {"weight": Weight(weight, 2, True), "bias": Weight(bias, 1)},
        Layout((2,), open_ended=True),
    )


def instance_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
) -> F32:
    """Normalise every channel of every sample over its positions, as PyTorch's ``InstanceNorm2d``.

    ``(x - mean) / sqrt(var + eps) * weight + bias``, the variance with divisor ``H W``
    (Ulyanov et al., "Instance normalization", 2016).

    Parameters
    ----------
    x : array (B, C, H, W) or (V, B, C, H, W)
        Images.
    weight, bias : array (C,) or (V, C), optional
        Scale and shift per channel.
    eps : float
        Added to the variance.

    Returns
    -------
    array of x's shape, or with a vendor axis
        Float32.

    Raises
    ------
    TypeError, ValueError
        As ``conv2d``.
    """
    array = float_input(x, "instance_norm")
    channels = _channels(array, "instance_norm", _IMAGES)
    return run(
        "instance_norm",
        array,
        lambda value, p: value.instance_norm(
            p.get("weight"), p.get("bias"), channels=channels, eps=eps
        ),
        {"weight": Weight(weight, 1), "bias": Weight(bias, 1)},
        _IMAGES,
    )


def batch_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    eps: float = 1e-5,
) -> F32:
    """Normalise every channel over batch and positions, as PyTorch's ``BatchNorm``.

    ``(x - mean) / sqrt(var + eps) * weight + bias`` (Ioffe and Szegedy, "Batch normalization",
    2015). Without running statistics, mean and variance (divisor ``B H W``) are the batch's own.

    Parameters
    ----------
    x : array (B, C, H, W), (B, C), or with a leading vendor axis
        Samples. Three axes are (V, B, C), not PyTorch's (B, C, L).
    weight, bias : array (C,) or (V, C), optional
        Scale and shift per channel.
    running_mean, running_var : array (C,), optional
        Statistics to use instead of the batch's; both or none.
    eps : float
        Added to the variance.

    Returns
    -------
    array of x's shape, or with a vendor axis
        Float32.

    Raises
    ------
    TypeError, ValueError
        As ``conv2d``.
    """
    layout = Layout((2, 4))
    array = float_input(x, "batch_norm")
    channels = _channels(array, "batch_norm", layout)
    if (running_mean is None) != (running_var is None):
        raise refusal(ValueError, "batch_norm", "both running statistics or none", "one")
    mean = Parameter(np.zeros(channels) if running_mean is None else running_mean, buffer=True)
    var = Parameter(np.ones(channels) if running_var is None else running_var, buffer=True)
    return run(
        "batch_norm",
        array,
        lambda value, p: value.batch_norm(
            p.get("weight"), p.get("bias"), running_mean=mean, running_var=var, eps=eps
        ),
        {"weight": Weight(weight, 1), "bias": Weight(bias, 1)},
        layout,
        statistics={"running_mean": mean, "running_var": var},
        from_batch=running_mean is None,
    )


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    shape: int | Sequence[int],
    eps: float = 1e-5,
) -> F32:
    """Normalise over the last axes, as PyTorch's ``layer_norm``.

    ``(x - mean) / sqrt(var + eps) * weight + bias`` over the axes of ``shape``
    (Ba et al., "Layer normalization", 2016).

    Parameters
    ----------
    x : array (B, ..., *shape) or (V, B, ..., *shape)
        Samples. With a vendor axis on the weights, any axis beyond ``(B, *shape)`` means that
        ``x`` has it too.
    weight, bias : array of ``shape``, or (V, *shape), optional
        Scale and shift.
    shape : int or sequence of int
        Extents of the axes to normalise over.
    eps : float
        Added to the variance.

    Returns
    -------
    array of x's shape, or with a vendor axis
        Float32.

    Raises
    ------
    TypeError, ValueError
        As ``conv2d``.
    """
    extents = normalised_shape(shape, "layer_norm")
    rank = len(extents)
    return run(
        "layer_norm",
        x,
        lambda value, p: value.layer_norm(p.get("weight"), p.get("bias"), shape=extents, eps=eps),
        {"weight": Weight(weight, rank), "bias": Weight(bias, rank)},
        Layout((rank + 1,), open_ended=True),
    )


def normalised_shape(shape: int | Sequence[int], op: str) -> tuple[int, ...]:
    """Give the extents that a layer norm runs over."""
    extents = (shape,) if not isinstance(shape, Sequence) else tuple(shape)
    if not extents:
        raise refusal(ValueError, op, "at least one extent to normalise over", "none")
    return tuple(integer(extent, op, "an extent", 1) for extent in extents)


def _channels(x: F32, op: str, layout: Layout) -> int:
    """Give the channel extent of ``x``, the axis behind the batch."""
    leads = layout.has_vendor_axis(x.ndim, None)
    if not leads and x.ndim not in layout.ranks:
        wanted = " or ".join(f"x of {n} axes ({n + 1} with vendors)" for n in layout.ranks)
        raise refusal(ValueError, op, wanted, f"shape {x.shape}")
    return int(x.shape[2 if leads else 1])
