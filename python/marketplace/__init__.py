"""Marketplace: training neural networks with forward passes only.

A market is a list of specs (groups of layers). Every spec is run by several vendors, whose weights
are the base weights plus a delta that follows from a seed; the losses of their combinations say
where the base weights should go.

>>> import marketplace as mp
>>> market = [mp.Spec(model=mp.nn.Model(mp.nn.Linear(4, 3)), vendor_count=8)]
>>> opt = mp.Optimizer(market, learning_rate=0.1, probe_scale=0.1, seed=42)
"""

from . import (
    callbacks,
    checkpoint,
    continual,
    functional,
    nn,
    optimizers,
    plot,
    random,
    replay,
    schedules,
    training,
)
from ._core import __version__, build_info, devices
from .device_array import DeviceArray
from .functional import topk
from .optimizers import Optimizer, UnitVectorMode
from .tensor import Tensor, TinyJit
from .training import Spec, forward, mutate, produce, straight_forward

__all__ = [
    "DeviceArray",
    "Optimizer",
    "Spec",
    "Tensor",
    "TinyJit",
    "UnitVectorMode",
    "__version__",
    "build_info",
    "callbacks",
    "checkpoint",
    "continual",
    "devices",
    "forward",
    "functional",
    "mutate",
    "nn",
    "optimizers",
    "plot",
    "produce",
    "random",
    "replay",
    "schedules",
    "straight_forward",
    "topk",
    "training",
]
