"""Shape, reduction and arithmetic on the traced value."""

import math

import marketplace as mp
import numpy as np
import reference

from ops.pointwise import POINTWISE_CASES
from ops.registry import LANES, U32, Case, Op, gamma, register


def _mean_error(x, params, options, y, u):
    """A sum; axes that are no neighbours are reduced one after the other, with one more store."""
    axes = options["axis"] if isinstance(options["axis"], tuple) else (options["axis"],)
    count = math.prod(x.shape[axis] for axis in axes)
    between = u * (max(axes) - min(axes) >= len(axes))
    return (gamma(count + 1) + between) * reference.mean(np.abs(x), **_mean_options(options))


def _mean_options(options):
    return {"axis": options["axis"], "keepdims": options.get("keepdim", False)}


register(
    Op(
        name="mean",
        kinds=("mean",),
        layer=lambda o: lambda value: value.mean(o["axis"], keepdim=o.get("keepdim", False)),
        oracle=lambda x, params, options: reference.mean(x, **_mean_options(options)),
        error=_mean_error,
        functional=lambda x, params, options: mp.functional.mean(x, **_mean_options(options)),
        cases=(
            Case((2, 3, 4), {"axis": 1}),
            Case((2, 3, 4), {"axis": -1, "keepdim": True}),
            Case((2, 3, 4, 5), {"axis": (2, 3)}),
            Case((2, 3, 4, 5), {"axis": (1, 3), "keepdim": True}),
            *(Case((2, 3, lane), {"axis": 2}) for lane in LANES),
        ),
    )
)

register(
    Op(
        name="flatten",
        kinds=("flatten",),
        layer=lambda o: lambda value: value.flatten(*o["dims"]),
        oracle=lambda x, params, options: reference.flatten(x, *options["dims"]),
        functional=lambda x, params, options: mp.functional.flatten(x, *options["dims"]),
        error=lambda x, params, options, y, u: 0 * y,
        cases=(
            Case((2, 3, 4, 5), {"dims": (1,)}),
            Case((2, 3, 4, 5), {"dims": (2,)}),
            Case((2, 3, 4, 5), {"dims": (1, 2)}),
            Case((2, 7), {"dims": (1, -1)}),
        ),
    )
)

register(
    Op(
        name="reshape",
        kinds=("reshape",),
        layer=lambda o: lambda value: value.reshape(value.shape[0], *o["shape"]),
        oracle=lambda x, params, options: x.reshape(len(x), *options["shape"]),
        error=lambda x, params, options, y, u: 0 * y,
        cases=(
            Case((2, 3, 4), {"shape": (12,)}),
            Case((2, 12), {"shape": (3, -1)}),
            Case((3, 2, 6), {"shape": (3, 2, 2)}),
        ),
    )
)


def _register_arithmetic(name, kinds, function, error):
    register(
        Op(
            name=name,
            kinds=kinds,
            layer=lambda options: function,
            oracle=lambda x, params, options: function(x),
            error=error,
            cases=POINTWISE_CASES,
        )
    )


def _relu(value):
    return reference.relu(value) if isinstance(value, np.ndarray) else value.relu()


def _one_rounding(x, params, options, y, u):
    return U32 * np.abs(y) + np.finfo(np.float32).tiny


def _chain(x):
    return 0.5 - (1.25 * x - 2) * 3


def _chain_error(x, params, options, y, u):
    """Each of three intermediate results is rounded, and carried on by a factor of 3 at most."""
    first, second = 1.25 * np.abs(x), np.abs(1.25 * x - 2)
    return u * 3 * (first + 2 * second) + u * np.abs(y)


_register_arithmetic("add", ("add", "unary"), lambda x: x + _relu(x), _one_rounding)
_register_arithmetic("multiply", ("multiply", "unary"), lambda x: x * _relu(x), _one_rounding)
_register_arithmetic("scalar", ("affine",), _chain, _chain_error)
