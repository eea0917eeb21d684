"""Marketplace: training neural networks with forward passes only.

A market is a list of specs (groups of layers). Every spec is run by several vendors, whose weights
are the base weights plus a delta that follows from a seed; the losses of their combinations say
where the base weights should go.

>>> import marketplace as mp
>>> market = [mp.Spec(model=mp.nn.Model(mp.nn.Linear(4, 3)), vendor_count=8)]
>>> opt = mp.Optimizer(market, learning_rate=0.1, probe_scale=0.1, seed=42)
"""

import importlib
from typing import TYPE_CHECKING, Any

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
from ._build import build_info, devices
from ._core import __version__
from .device_array import DeviceArray
from .functional import topk
from .optimizers import Optimizer, UnitVectorMode
from .tensor import Tensor, TinyJit
from .training import Spec, forward, mutate, produce, straight_forward

if TYPE_CHECKING:
    from . import data, distributed
else:
    _LATER = ("data", "distributed")  # not every program pays for downloads and clusters

    def __getattr__(name: str) -> Any:
        """Import a module that is there, when it is first asked for."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f".{name}", __name__)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


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
    "data",
    "devices",
    "distributed",
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
