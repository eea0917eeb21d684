"""The same markets twice: in Python and through the C ABI."""

import ctypes as c
from collections.abc import Callable
from typing import Any

from clibrary import CMarket, Conv2d, Linear, Norm, Pair, Pool2d
from marketplace import nn, random
from marketplace.training import Spec

MarketPair = tuple[list[Spec], CMarket]


def _conv(market: CMarket, inputs: int, outputs: int, kernel: int, **more: object) -> int:
    sizes = {"in_channels": inputs, "out_channels": outputs, "kernel": Pair(kernel, kernel)}
    return market.add("conv2d", c.byref(Conv2d(**sizes, **more)))


def linear(market: CMarket, inputs: int, outputs: int, **more: object) -> int:
    options = Linear(in_features=inputs, out_features=outputs, **more)
    return market.add("linear", c.byref(options))


def _norm(market: CMarket, kind: str, channels: int, **more: object) -> int:
    return market.add(kind, c.c_int64(channels), c.byref(Norm(**more)))


def activation(market: CMarket, kind: int) -> int:
    return market.add("activation", c.c_int32(kind))


def digits() -> MarketPair:
    """Small sisters of the MNIST example's specs, on (B, 1, 12, 12)."""
    random.manual_seed(5)
    python = [
        Spec(
            nn.Model(nn.Conv2d(1, 4, 3), nn.relu, nn.InstanceNorm(4), nn.max_pool2d, nn.flatten), 3
        ),
        Spec(nn.Model(nn.Linear(100, 16), nn.relu), 4),
        Spec(nn.Model(nn.Linear(16, 5)), 5),
    ]
    market = CMarket()
    market.spec(3)
    _conv(market, 1, 4, 3)
    activation(market, 0)
    _norm(market, "instance_norm", 4)
    market.add("max_pool2d", None)
    market.add("flatten", c.c_int64(1), c.c_int64(-1))
    market.spec(4)
    linear(market, 100, 16)
    activation(market, 0)
    market.spec(5)
    linear(market, 16, 5)
    market.finish(device=b"cpu")
    market.initialize(5)
    return python, market


def every_layer() -> MarketPair:
    """One of each layer with options that are not the defaults, on (B, 4, 9, 11)."""
    random.manual_seed(6)
    first = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    inside = nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False)  # drawn in the market's order
    python = [
        Spec(
            nn.Model(
                first,
                nn.BatchNorm(6, eps=1e-3, momentum=0.3),
                nn.gelu,
                inside_residual(inside),
                nn.InstanceNorm(6, affine=False),
                lambda x: nn.avg_pool2d(x, (2, 3), stride=1, padding=1, count_include_pad=False),
                lambda x: x.mean(axis=3, keepdim=True),
            ),
            3,
        ),
        Spec(
            nn.Model(
                lambda x: x.reshape(x.shape[0], 2, -1),
                nn.LayerNorm(18),
                nn.Linear(18, 7, bias=False),
                nn.tanh,
                lambda x: x.mean(axis=1),
                lambda x: 2 * x + 0.5,
                nn.sigmoid,
            ),
            2,
        ),
    ]
    market = CMarket()
    market.spec(3)
    sizes = {"stride": Pair(2, 1), "padding": Pair(1, 0), "dilation": Pair(1, 2), "groups": 2}
    kernels = Conv2d(in_channels=4, out_channels=6, kernel=Pair(3, 2), **sizes)
    market.add("conv2d", c.byref(kernels))
    _norm(market, "batch_norm", 6, eps=1e-3, momentum=0.3)
    before = activation(market, 1)
    margin = {"padding": Pair(1, 1), "groups": 3, "no_bias": 1, "key": b"layers.3.layer"}
    branch = _conv(market, 6, 6, 3, **margin)
    market.add("add", c.c_int32(branch), x=before)
    _norm(market, "instance_norm", 6, no_affine=1)
    window = Pool2d(kernel=Pair(2, 3), stride=Pair(1, 1), padding=Pair(1, 1), exclude_pad=1)
    market.add("avg_pool2d", c.byref(window))
    market.add("mean", (c.c_int64 * 1)(3), c.c_int32(1), c.c_int32(1))
    market.spec(2)
    market.add("reshape", (c.c_int64 * 2)(2, -1), c.c_int32(2))
    market.add("layer_norm", (c.c_int64 * 1)(18), c.c_int32(1), None)
    linear(market, 18, 7, no_bias=1, key=b"layers.2")
    activation(market, 4)
    market.add("mean", (c.c_int64 * 1)(1), c.c_int32(1), c.c_int32(0))
    market.add("affine", c.c_double(2), c.c_double(0.5))
    activation(market, 3)
    market.finish(device=b"cpu")
    market.initialize(6)
    return python, market


def inside_residual(layer: nn.Conv2d) -> Callable[[Any], Any]:
    """Give ``x + layer(x)``; the layer's key ends in its variable's name."""
    return lambda x: x + layer(x)
