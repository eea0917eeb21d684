"""Plain float64 NumPy oracle of every layer and function: each formula as it is written down.

Shapes carry no vendor axis: ``x`` is ``(B, C, H, W)`` or ``(B, ...)``. The oracle of the algorithm
itself (random numbers, deltas, plans, directions) is in ``reference_market.py``.
"""

import math

import numpy as np


def pair(value):
    """Give ``value`` as a pair of ints, as kernel sizes and strides are written."""
    return (value, value) if isinstance(value, int) else tuple(value)


def f64(value):
    """Give ``value`` as a float64 array."""
    return np.asarray(value, dtype=np.float64)


# -- matrix layers ---------------------------------------------------------------------------------


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate ``x (B, C, H, W)`` with ``weight (O, C/groups, kh, kw)``, as PyTorch."""
    x, weight = f64(x), f64(weight)
    (sy, sx), (py, px), (dy, dx) = pair(stride), pair(padding), pair(dilation)
    outputs, group_inputs, kh, kw = weight.shape
    group_outputs = outputs // groups
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    out_h = (padded.shape[2] - dy * (kh - 1) - 1) // sy + 1
    out_w = (padded.shape[3] - dx * (kw - 1) - 1) // sx + 1
    result = np.zeros((x.shape[0], outputs, out_h, out_w))
    for g in range(groups):
        mine = slice(g * group_outputs, (g + 1) * group_outputs)
        theirs = slice(g * group_inputs, (g + 1) * group_inputs)
        for i in range(kh):
            for j in range(kw):
                rows = slice(i * dy, i * dy + sy * (out_h - 1) + 1, sy)
                columns = slice(j * dx, j * dx + sx * (out_w - 1) + 1, sx)
                tap = padded[:, theirs, rows, columns]
                result[:, mine] += np.einsum("bchw,oc->bohw", tap, weight[mine, :, i, j])
    return result if bias is None else result + f64(bias)[:, None, None]


def linear(x, weight, bias=None):
    """``x (..., I) · weight (O, I)ᵀ + bias (O,)``."""
    result = f64(x) @ f64(weight).T
    return result if bias is None else result + f64(bias)


# -- normalisations --------------------------------------------------------------------------------


def _normalise(x, mean, var, eps):
    return (x - mean) / np.sqrt(var + eps)


def _per_channel(values, ndim):
    """Shape ``(C,)`` so that it meets axis 1 of an array of ``ndim`` axes."""
    return f64(values).reshape((1, -1) + (1,) * (ndim - 2))


def _affine(x, weight, bias):
    x = x if weight is None else x * _per_channel(weight, x.ndim)
    return x if bias is None else x + _per_channel(bias, x.ndim)


def instance_norm(x, weight=None, bias=None, *, eps=1e-5):
    """Normalise every sample and channel of ``x (B, C, ...)`` over its positions."""
    x = f64(x)
    axes = tuple(range(2, x.ndim))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return _affine(_normalise(x, mean, var, eps), weight, bias)


def batch_norm(x, weight=None, bias=None, *, mean=None, var=None, eps=1e-5):
    """Normalise every channel of ``x (B, C, ...)`` over batch and positions.

    ``mean`` and ``var`` are the statistics to use; without them the batch's own (biased) ones.
    """
    x = f64(x)
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axis=axes) if mean is None else f64(mean)
    var = x.var(axis=axes) if var is None else f64(var)
    normal = _normalise(x, _per_channel(mean, x.ndim), _per_channel(var, x.ndim), eps)
    return _affine(normal, weight, bias)


def running_statistics(x, mean, var, *, momentum=0.1):
    """Running mean and variance after batch ``x``: PyTorch's rule, unbiased variance."""
    x = f64(x)
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    unbiased = x.var(axis=axes) * count / (count - 1)
    new_mean = (1 - momentum) * f64(mean) + momentum * x.mean(axis=axes)
    return new_mean, (1 - momentum) * f64(var) + momentum * unbiased


def layer_norm(x, weight=None, bias=None, *, shape, eps=1e-5):
    """Normalise over the last ``len(shape)`` axes; ``weight`` and ``bias`` have that shape."""
    x = f64(x)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    result = _normalise(x, mean, var, eps)
    result = result if weight is None else result * f64(weight)
    return result if bias is None else result + f64(bias)


# -- pointwise functions ---------------------------------------------------------------------------


def relu(x):
    """``max(x, 0)``."""
    return np.maximum(f64(x), 0.0)


def gelu(x, approximate="none"):
    """GELU, ``x · Φ(x)`` (Hendrycks and Gimpel 2016): exact by erf, or the tanh form."""
    x = f64(x)
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    # erfc keeps the left tail: 1 + erf(x) would cancel there.
    return 0.5 * x * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2))


def sigmoid(x):
    """``1 / (1 + exp(−x))``."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-f64(x)))


def tanh(x):
    """Hyperbolic tangent."""
    return np.tanh(f64(x))


# -- pooling and shape -----------------------------------------------------------------------------


def _windows(x, kernel_size, stride, padding, dilation, fill):
    """Stack the taps of every pooling window: ``(kh·kw, B, C, out_h, out_w)``."""
    kh, kw = pair(kernel_size)
    (sy, sx) = pair(kernel_size if stride is None else stride)
    (py, px), (dy, dx) = pair(padding), pair(dilation)
    padded = np.pad(f64(x), ((0, 0), (0, 0), (py, py), (px, px)), constant_values=fill)
    out_h = (padded.shape[2] - dy * (kh - 1) - 1) // sy + 1
    out_w = (padded.shape[3] - dx * (kw - 1) - 1) // sx + 1
    taps = []
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dy, i * dy + sy * (out_h - 1) + 1, sy)
            columns = slice(j * dx, j * dx + sx * (out_w - 1) + 1, sx)
            taps.append(padded[:, :, rows, columns])
    return np.stack(taps)


def max_pool2d(x, kernel_size=2, stride=None, padding=0, dilation=1):
    """Take the maximum of every window; padding never wins."""
    return _windows(x, kernel_size, stride, padding, dilation, -np.inf).max(axis=0)


def avg_pool2d(x, kernel_size=2, stride=None, padding=0, dilation=1, count_include_pad=True):
    """Take the mean of every window, over all taps or over those inside the image."""
    total = _windows(x, kernel_size, stride, padding, dilation, 0.0).sum(axis=0)
    inside = _windows(np.ones_like(f64(x)), kernel_size, stride, padding, dilation, 0.0)
    return total / (len(inside) if count_include_pad else inside.sum(axis=0))


def mean(x, axis, keepdims=False):
    """Mean over ``axis``."""
    return f64(x).mean(axis=axis, keepdims=keepdims)


def flatten(x, start_dim=1, end_dim=-1):
    """Merge the axes from ``start_dim`` to ``end_dim``."""
    x = f64(x)
    end = end_dim % x.ndim
    return x.reshape(x.shape[:start_dim] + (-1,) + x.shape[end + 1 :])


# -- losses and selection --------------------------------------------------------------------------


def cross_entropy_samples(logits, y):
    """Per-sample cross entropy of ``logits (..., B, K)`` against labels ``y (B,)``."""
    logits = f64(logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    picked = np.take_along_axis(
        shifted, np.broadcast_to(np.asarray(y)[:, None], (*shifted.shape[:-1], 1)), axis=-1
    )[..., 0]
    return log_sum - picked


def cross_entropy(logits, y, reduction="mean", ignore_index=None):
    """Cross entropy over the batch; samples whose label is ``ignore_index`` do not count."""
    y = np.asarray(y)
    keep = np.ones(len(y), bool) if ignore_index is None else y != ignore_index
    losses = cross_entropy_samples(logits, np.where(keep, y, 0)) * keep
    if reduction == "none":
        return losses
    total = losses.sum(axis=-1)
    return total if reduction == "sum" else total / keep.sum()


def topk(x, k, largest=True):
    """The ``k`` largest (or smallest) of ``x (n,)``; ties to the lower index, NaN last."""
    x = f64(x)

    def rank(index):
        value = -x[index] if largest else x[index]
        return (math.isnan(value), 0.0 if math.isnan(value) else value, index)

    order = sorted(range(len(x)), key=rank)[:k]
    return x[order], np.array(order)
