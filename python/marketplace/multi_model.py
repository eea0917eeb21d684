"""The oldest spelling of the reference: layers that carry their vendor count, and ``MultiModel``.

Thin names for ``marketplace.nn`` and ``marketplace.training``; vendors are regenerated from seeds
here as everywhere, so a ``MultiModel`` holds one set of base weights.
"""

import contextlib
from types import TracebackType
from typing import Any, ClassVar

from ._arrays import integer
from .nn import BatchNorm as MultiBatchNorm
from .nn import Conv2d as MultiConv2d
from .nn import InstanceNorm as MultiInstanceNorm
from .nn import Linear as MultiLinear
from .nn import Model
from .training import Spec, forward, mutate, produce, straight_forward

__all__ = [
    "MultiBatchNorm",
    "MultiConv2d",
    "MultiInstanceNorm",
    "MultiLinear",
    "MultiModel",
    "MultiModelBase",
    "Spec",
    "forward",
    "mutate",
    "produce",
    "straight_forward",
]


class _Mode(contextlib.ContextDecorator):
    """A context or decorator without effect: forward passes always use the batch's statistics."""

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode

    def __enter__(self) -> "_Mode":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class MultiModelBase:
    """Holder of the training mode's names: ``MultiModelBase.train()`` and ``.learn()``."""

    train: ClassVar[type[_Mode]] = _Mode
    learn: ClassVar[type[_Mode]] = _Mode


class MultiModel(Model, MultiModelBase):
    """``marketplace.nn.Model`` of a list of layers.

    Parameters
    ----------
    layers : list of callable
        As for ``Model``.
    vendor_count : int, optional
        For layers that carry none of their own.

    Raises
    ------
    TypeError, ValueError
        As ``Model``.
    """

    def __init__(self, layers: list[Any], vendor_count: int | None = None) -> None:
        super().__init__(layers)
        if vendor_count is not None:
            count = integer(vendor_count, "MultiModel", "vendor_count", 1)
            self.vendor_counts = {**self.vendor_counts, "MultiModel": count}
