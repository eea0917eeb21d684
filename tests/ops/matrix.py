"""Layers that multiply matrices: conv2d and linear."""

import marketplace as mp
import numpy as np
import reference
from marketplace import nn

from ops.registry import LANES, Case, Op, chosen, gamma, register

_CONV = ("stride", "padding", "dilation", "groups")


def _conv_case(shape, out, kernel, **options):
    return Case(shape, {"out": out, "kernel": kernel, "in": shape[1], **options})


def _conv_parameters(options, shape):
    kernel = reference.pair(options["kernel"])
    weight = (options["out"], shape[1] // options.get("groups", 1), *kernel)
    return {"weight": weight} | ({"bias": weight[:1]} if options.get("bias", True) else {})


def _conv_layer(options):
    extra = chosen(options, *_CONV, "bias")
    return nn.Conv2d(options["in"], options["out"], options["kernel"], **extra)


def _conv(function):
    def call(x, params, options):
        extra = chosen(options, *_CONV)
        return function(x, params["weight"], params.get("bias"), **extra)

    return call


def _dot_error(oracle):
    """Bound of a dot product of n terms: ``gamma(n + 1) · Σ|x||w|``; one more term for the bias."""

    def error(x, params, options, y, u):
        magnitude = oracle(np.abs(x), {k: np.abs(v) for k, v in params.items()}, options)
        return gamma(params["weight"][0].size + 2) * magnitude

    return error


register(
    Op(
        name="conv2d",
        kinds=("conv2d",),
        layer=_conv_layer,
        oracle=_conv(reference.conv2d),
        error=_dot_error(_conv(reference.conv2d)),
        functional=_conv(mp.functional.conv2d),
        parameters=_conv_parameters,
        product=True,
        cases=(
            _conv_case((1, 1, 1, 1), 1, 1),
            _conv_case((2, 1, 5, 5), 3, 5),
            _conv_case((3, 2, 7, 9), 5, 3),
            _conv_case((2, 3, 8, 6), 4, 3, padding=1),
            _conv_case((2, 3, 11, 13), 4, 3, stride=2),
            _conv_case((2, 3, 11, 13), 4, 3, stride=2, padding=1),
            _conv_case((1, 2, 12, 9), 3, (3, 2), stride=(3, 1), padding=(2, 0)),
            _conv_case((2, 2, 13, 11), 3, 3, dilation=2, padding=2),
            _conv_case((2, 2, 9, 14), 3, (2, 4), dilation=(3, 2), stride=(1, 2)),
            _conv_case((2, 4, 6, 7), 6, 3, groups=2, padding=1),
            _conv_case((2, 6, 5, 5), 6, 3, groups=6),
            _conv_case((2, 4, 6, 5), 8, (1, 3), groups=4, stride=2, bias=False),
            _conv_case((2, 3, 4, 4), 2, 4, bias=False),
            _conv_case((1, 2, 3, 3), 2, 5, padding=2),
            _conv_case((1, 1, 40, 3), 1, (33, 1)),
            *(_conv_case((2, lane, 5, 4), 3, 3) for lane in LANES),
            *(_conv_case((2, 3, 5, 4), lane, 3, padding=1) for lane in LANES),
            *(_conv_case((1, 2, 3, lane), 5, (2, 1)) for lane in LANES),
            _conv_case((1, 1, 28, 28), 32, 5),
            _conv_case((1, 33, 10, 10), 17, 3),
        ),
    )
)


def _linear_case(shape, out, **options):
    return Case(shape, {"out": out, "in": shape[-1], **options})


def _linear_parameters(options, shape):
    weight = (options["out"], shape[-1])
    return {"weight": weight} | ({"bias": weight[:1]} if options.get("bias", True) else {})


def _linear(function):
    return lambda x, params, options: function(x, params["weight"], params.get("bias"))


register(
    Op(
        name="linear",
        kinds=("linear",),
        layer=lambda o: nn.Linear(o["in"], o["out"], **chosen(o, "bias")),
        oracle=_linear(reference.linear),
        error=_dot_error(_linear(reference.linear)),
        functional=_linear(mp.functional.linear),
        parameters=_linear_parameters,
        open_ended=lambda case: len(case.shape) > 2,
        float_result=True,
        product=True,
        cases=(
            _linear_case((4, 5), 3, bias=False),
            _linear_case((3, 2, 5), 4),
            _linear_case((2, 3, 2, 7), 9),
            _linear_case((5, 577), 10),
            *(_linear_case((lane, 6), 5) for lane in LANES),
            *(_linear_case((3, lane), 5) for lane in LANES),
            *(_linear_case((3, 6), lane) for lane in LANES),
        ),
    )
)
