"""Pooling."""

import math

import marketplace as mp
import numpy as np
import reference
from marketplace import nn

from ops.registry import LANES, Case, Op, chosen, gamma, register

_POOL = ("kernel_size", "stride", "padding", "dilation")
_POOL_CASES = (
    Case((2, 3, 4, 6)),
    Case((2, 3, 5, 7)),
    Case((1, 2, 9, 8), {"kernel_size": 3}),
    Case((2, 2, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    Case((1, 2, 11, 10), {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 1)}),
    Case((1, 2, 11, 10), {"kernel_size": 2, "dilation": (3, 2)}),
    Case((1, 2, 9, 9), {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}),
    Case((1, 3, 6, 6), {"kernel_size": 6}),
    Case((2, 1, 4, 5), {"kernel_size": 1, "stride": 2}),
    *(Case((1, lane, 4, 4)) for lane in LANES),
    *(Case((1, 2, 2, lane), {"kernel_size": (2, 1)}) for lane in LANES),
)


def _pool(function, *names):
    return lambda x, params, options: function(x, **chosen(options, *names))


def _pool_layer(function, *names):
    return lambda options: lambda value: function(value, **chosen(options, *names))


register(
    Op(
        name="max_pool2d",
        kinds=("max_pool2d",),
        layer=_pool_layer(nn.max_pool2d, *_POOL),
        oracle=_pool(reference.max_pool2d, *_POOL),
        error=lambda x, params, options, y, u: 0 * y,
        functional=_pool(mp.functional.max_pool2d, *_POOL),
        cases=_POOL_CASES,
    )
)


def _avg_error(x, params, options, y, u):
    count = math.prod(reference.pair(options.get("kernel_size", 2)))
    magnitude = reference.avg_pool2d(np.abs(x), **chosen(options, *_AVG))
    return gamma(count + 2) * magnitude


_AVG = (*_POOL, "count_include_pad")
register(
    Op(
        name="avg_pool2d",
        kinds=("avg_pool2d",),
        layer=_pool_layer(nn.avg_pool2d, *_AVG),
        oracle=_pool(reference.avg_pool2d, *_AVG),
        error=_avg_error,
        functional=_pool(mp.functional.avg_pool2d, *_AVG),
        cases=(
            *_POOL_CASES,
            Case((2, 2, 7, 6), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
            Case(
                (1, 2, 8, 9),
                {"kernel_size": (4, 3), "stride": 1, "padding": (2, 1), "count_include_pad": False},
            ),
        ),
    )
)
