"""An optimizer's vendors as others see them: spec by spec, and as a source for ``forward``."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arrays import F32, I32, read_only
from ._best import BestParts
from ._flat import split
from ._gpu_arrays import Samples
from ._market import Spec, Vendor, sample_upstream, vendors_of

if TYPE_CHECKING:
    from ._steps import StepParts


class SpecContext:
    """One spec's present vendors, as the optimizer sees them.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.
    index : int
        Which spec.
    """

    def __init__(self, optimizer: "StepParts", index: int) -> None:
        self._optimizer = optimizer
        self._index = index

    def __repr__(self) -> str:
        """Name the spec and its vendors."""
        count = self._optimizer.marketplace[self._index].vendor_count
        return f"SpecContext(spec={self._index}, vendors={count})"

    @property
    def seeds(self) -> NDArray[np.uint64]:
        """The vendors' seeds ``(V,)``, a read-only copy; the leader's is 0."""
        return read_only(self._optimizer._ready().seeds(self._index))

    @property
    def delta(self) -> dict[str, F32]:
        """The vendors' deltas by key, ``(V, *shape)`` float32.

        Regenerated at every access, and read-only.
        """
        weights = self._optimizer._ready().weights(self._index)
        values = self._optimizer._market.delta(self._index, weights)
        parts = split(self._optimizer.marketplace[self._index], values)
        return {key: read_only(part) for key, part in parts.items()}

    @property
    def learning_rate(self) -> float:
        """The spec's learning rate; its own one under a meta learning rate."""
        return self._optimizer._ready().spec_learning_rate(self._index)

    @property
    def learning_rate_scales(self) -> F32 | None:
        """The line search's scales ``(V,)`` of the learning rate, read-only; None without one."""
        if self._optimizer.meta_learning_rate is None:
            return None
        return read_only(self._optimizer._ready().scales(self._index))


class OptimizerVendors:
    """The vendors of an optimizer, for ``forward`` and ``produce``."""

    def __init__(self, optimizer: "StepParts") -> None:
        self._optimizer = optimizer

    @property
    def specs(self) -> Sequence[Spec]:
        return self._optimizer.marketplace

    @property
    def engine(self) -> _core.Engine:
        return self._optimizer._market.engine

    def weights(self, spec: int) -> _core.VendorWeights:
        return self._optimizer._ready().weights(spec)

    def sample(self, spec: int, upstream_count: int) -> I32:
        native = self._optimizer._ready()
        return sample_upstream(
            self.specs[spec],
            native.seed,
            native.generation,
            spec,
            upstream_count,
            native.replica,
        )

    def forward(self, x: Samples, place: tuple[bool, bool]) -> tuple[Any, I32] | None:
        # the optimizer's own pass also meets batch statistics, which the next step takes over
        if self._optimizer.plan != "tree":
            return None
        return self._optimizer._ready().forward(x, False, *place)


class ViewParts(BestParts):
    """An optimizer's views of its vendors.

    Made when asked for: they know the optimizer, which without them is freed with its last name.
    """

    @functools.cached_property
    def vendors(self) -> list[list[Vendor]]:
        """The vendors of every spec, for ``forward`` and ``produce``."""
        return vendors_of(OptimizerVendors(self))

    @functools.cached_property
    def spec_context(self) -> list[SpecContext]:
        """Every spec's present vendors: seeds, deltas, learning rates."""
        return [SpecContext(self, i) for i in range(len(self.marketplace))]
