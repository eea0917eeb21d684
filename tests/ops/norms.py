"""Normalisations: instance, batch and layer norm."""

import math

import marketplace as mp
import numpy as np
import reference
from marketplace import nn

from ops.registry import LANES, U32, Case, Op, chosen, gamma, register


def _norm_error(axes_of, per_channel):
    """Bound of a two-pass normalisation over n values.

    The mean is off by ``gamma(n)·mean|x|``, each centred value by that and a rounding, the
    variance by the mean's error squared and ``gamma(n + 3)`` of itself; then root and affine.
    """

    def error(x, params, options, y, u):
        eps = options.get("eps", 1e-5)
        axes = axes_of(x, options)
        count = math.prod(x.shape[axis] for axis in axes)
        mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
        mean_error = gamma(count + 1) * np.abs(x).mean(axis=axes, keepdims=True)
        centred, scale = np.abs(x - mean), 1 / np.sqrt(var + eps)
        var_error = mean_error**2 + gamma(count + 3) * var
        relative = var_error / (2 * (var + eps)) + 6 * U32
        normal = mean_error * scale + centred * scale * relative
        weight = np.abs(params.get("weight", np.ones(1)))
        if per_channel and weight.size > 1:
            weight = weight.reshape((1, -1) + (1,) * (x.ndim - 2))
        return normal * weight + 2 * U32 * (centred * scale * weight + np.abs(y))

    return error


def _norm_parameters(shape_of):
    def parameters(options, shape):
        if not options.get("affine", True):
            return {}
        return {"weight": shape_of(options, shape), "bias": shape_of(options, shape)}

    return parameters


def _norm_case(shape, **options):
    return Case(shape, {"channels": shape[1], **options})


def _channel_norm(function):
    def call(x, params, options):
        extra = chosen(options, "eps")
        return function(x, params.get("weight"), params.get("bias"), **extra)

    return call


register(
    Op(
        name="instance_norm",
        kinds=("instance_norm",),
        layer=lambda o: nn.InstanceNorm(o["channels"], **chosen(o, "eps", "affine")),
        oracle=_channel_norm(reference.instance_norm),
        error=_norm_error(lambda x, options: tuple(range(2, x.ndim)), True),
        functional=_channel_norm(mp.functional.instance_norm),
        parameters=_norm_parameters(lambda options, shape: (shape[1],)),
        cases=(
            _norm_case((2, 3, 4, 5)),
            _norm_case((3, 2, 1, 7), eps=1e-2),
            _norm_case((2, 4, 6, 6), affine=False),
            *(_norm_case((2, lane, 3, 3)) for lane in LANES),
            *(_norm_case((2, 3, 2, lane)) for lane in LANES if lane > 1),
        ),
    )
)

register(
    Op(
        name="batch_norm",
        kinds=("batch_norm",),
        layer=lambda o: nn.BatchNorm(o["channels"], **chosen(o, "eps", "affine")),
        oracle=_channel_norm(reference.batch_norm),
        error=_norm_error(lambda x, options: (0, *range(2, x.ndim)), True),
        functional=_channel_norm(mp.functional.batch_norm),
        parameters=_norm_parameters(lambda options, shape: (shape[1],)),
        cases=(
            _norm_case((5, 3, 4, 5)),
            _norm_case((7, 2, 1, 1), eps=1e-3),
            _norm_case((4, 3, 6, 2), affine=False),
            *(_norm_case((3, lane, 3, 2)) for lane in LANES),
            *(_norm_case((lane, 3, 3, 3)) for lane in LANES),
        ),
    )
)


def _layer_case(shape, normalised, **options):
    return Case(shape, {"normalised": normalised, **options})


def _layer_norm(function):
    def call(x, params, options):
        extra = chosen(options, "eps")
        shape = options["normalised"]
        return function(x, params.get("weight"), params.get("bias"), shape=shape, **extra)

    return call


register(
    Op(
        name="layer_norm",
        kinds=("layer_norm",),
        layer=lambda o: nn.LayerNorm(o["normalised"], **chosen(o, "eps", "affine")),
        oracle=_layer_norm(reference.layer_norm),
        error=_norm_error(
            lambda x, options: tuple(range(x.ndim - len(options["normalised"]), x.ndim)), False
        ),
        functional=_layer_norm(mp.functional.layer_norm),
        open_ended=lambda case: len(case.shape) > len(case.options["normalised"]) + 1,
        parameters=_norm_parameters(lambda options, shape: options["normalised"]),
        cases=(
            _layer_case((3, 4, 6), (6,)),
            _layer_case((2, 3, 4, 5), (4, 5)),
            _layer_case((2, 3, 4, 5), (3, 4, 5), eps=1e-3),
            _layer_case((5, 9), (9,), affine=False),
            *(_layer_case((3, lane), (lane,)) for lane in LANES if lane > 1),
        ),
    )
)
