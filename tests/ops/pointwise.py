"""Pointwise functions."""

import marketplace as mp
import numpy as np
import reference
from marketplace import nn

from ops.registry import LANES, U32, Case, Op, register

POINTWISE_CASES = (
    Case((2, 3)),
    Case((3, 2, 5)),
    Case((2, 3, 4, 5)),
    *(Case((1, lane)) for lane in LANES),
)


def _register_pointwise(name, kind, oracle, error, layer=None, functional=None):
    register(
        Op(
            name=name,
            kinds=("unary",),
            layer=lambda options: getattr(nn, kind) if layer is None else layer,
            oracle=lambda x, params, options: oracle(x),
            error=lambda x, params, options, y, u: error(x, y),
            functional=lambda x, params, options: (functional or getattr(mp.functional, kind))(x),
            cases=POINTWISE_CASES,
        )
    )


# An exponential or an error function is right to a few units in the last place of its own range.
_register_pointwise("relu", "relu", reference.relu, lambda x, y: 0 * y)
_register_pointwise("sigmoid", "sigmoid", reference.sigmoid, lambda x, y: 4 * U32 * (y + 1))
_register_pointwise("tanh", "tanh", reference.tanh, lambda x, y: 4 * U32 * (np.abs(y) + 1))
_register_pointwise("gelu", "gelu", reference.gelu, lambda x, y: 8 * U32 * np.abs(x))
_register_pointwise(
    "gelu_tanh",
    "gelu",
    lambda x: reference.gelu(x, "tanh"),
    lambda x, y: 8 * U32 * np.abs(x),
    layer=lambda value: nn.gelu(value, approximate="tanh"),
    functional=lambda x: mp.functional.gelu(x, approximate="tanh"),
)
