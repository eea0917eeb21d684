"""Specs, and where their vendors come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core, random
from ._arrays import I32, default_engine, integer, refusal
from ._eager import nothing
from ._gpu_arrays import Call, Samples, with_leading_axis
from .nn import Model
from .tensor import Tensor

MOST_VENDORS = 2**20

Vendors: TypeAlias = Sequence[Callable[[Any], Any]]  # one spec's: ``Vendor`` or any functions


@dataclass(frozen=True, eq=False)
class Mutation:
    """What a spec's own vendors follow from.

    Parameters
    ----------
    seeds : uint64 array (V,)
        The vendors' seeds.
    amplitude : float
        Largest element of a delta.
    """

    seeds: NDArray[np.uint64]
    amplitude: float


@dataclass
class Spec:
    """One group of layers, run by several vendors.

    Parameters
    ----------
    model : Model
        The layers and base weights; a bare layer or function is wrapped.
    vendor_count : int, optional
        Vendors V. Without it, the layers' own counts of the older spelling, which must agree.
    upstream_sampling : int, default 0
        How many results of the previous spec each vendor takes, drawn at random; 0 means all.

    Raises
    ------
    TypeError
        For a model that cannot be traced, or counts that are no integers.
    ValueError
        For a vendor count that is missing, below 1, above 2**20 or in conflict with the layers', or
        negative sampling.
    """

    model: Model
    vendor_count: int = None  # type: ignore[assignment]  # filled in below
    upstream_sampling: int = 0
    _mutation: "Mutation | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check, and fill in the vendor count."""
        if not isinstance(self.model, Model):
            self.model = Model(self.model)
        self.vendor_count = _agreed_count(self.vendor_count, self.model)
        self.upstream_sampling = integer(self.upstream_sampling, "Spec", "upstream_sampling", 0)


def _agreed_count(given: int | None, model: Model) -> int:
    counts = dict(model.vendor_counts)
    if given is not None:
        counts["vendor_count"] = integer(given, "Spec", "vendor_count", 1, MOST_VENDORS)
    if not counts:
        raise refusal(ValueError, "Spec", "a vendor_count", "none, nor one from the layers")
    if len(set(counts.values())) > 1:
        raise refusal(ValueError, "Spec", "one vendor count", counts)
    return next(iter(counts.values()))


def check_market(marketplace: Sequence[Spec], op: str) -> list[Spec]:
    """Give the specs as a list, refusing what is no market or shares its weights."""
    specs = list(marketplace) if isinstance(marketplace, Sequence) else [marketplace]
    if not isinstance(marketplace, Sequence) or not all(isinstance(s, Spec) for s in specs):
        received = ", ".join(type(spec).__name__ for spec in specs)
        raise refusal(TypeError, op, "a list of Spec", received)
    if not specs:
        raise refusal(ValueError, op, "at least one Spec", "none")
    owned = [id(p) for spec in specs for p in set(spec.model._parameters.values())]
    if len(owned) != len(set(owned)):
        raise refusal(ValueError, op, "specs with weights of their own", "layers in two specs")
    return specs


def make_market(specs: Sequence[Spec], engine: _core.Engine) -> _core.Market:
    """Give the engine's market of some specs."""
    return _core.Market(engine, [spec.model._core for spec in specs])


class Blueprint:
    """What an optimizer was made from: later changes of its specs do not reach the engine.

    Parameters
    ----------
    specs : sequence of Spec
        The market as it is now.
    """

    def __init__(self, specs: Sequence[Spec]) -> None:
        self._models = [spec.model for spec in specs]
        self._counts = [_counts(spec) for spec in specs]

    def check(self, specs: Sequence[Spec]) -> None:
        """Refuse specs that are no longer those that the optimizer was made from."""
        if len(specs) != len(self._models):
            raise _changed(f"{len(self._models)} specs", len(specs))
        for index, spec in enumerate(specs):
            if spec.model is not self._models[index]:
                raise _changed(f"the model of spec {index}", "another model")
            present = _counts(spec)
            for name, count in self._counts[index].items():
                if present[name] != count:
                    raise _changed(f"{name} {count} of spec {index}", present[name])


def _counts(spec: Spec) -> dict[str, int]:
    return {"vendor_count": spec.vendor_count, "upstream_sampling": spec.upstream_sampling}


def _changed(expected: str, received: object) -> RuntimeError:
    wanted = f"{expected} as when it was made (change the market before making an Optimizer)"
    return refusal(RuntimeError, "Optimizer", wanted, received)


# -- vendors ---------------------------------------------------------------------------------------


class VendorSource(Protocol):
    """Where a market's vendors come from: an optimizer, or the specs themselves."""

    @property
    def specs(self) -> Sequence[Spec]:
        """The market."""

    @property
    def engine(self) -> _core.Engine:
        """What runs the vendors."""

    def weights(self, spec: int) -> _core.VendorWeights:
        """Give the present deltas of a spec's vendors."""

    def sample(self, spec: int, upstream_count: int) -> I32:
        """Draw the upstream results that each vendor of a spec takes, ``(V, k)``."""

    def forward(self, x: Samples, place: tuple[bool, bool]) -> tuple[Samples, I32] | None:
        """Run the whole tree, if the source has a way of its own; ``place`` as ``Call.place``."""


@dataclass(frozen=True, eq=False)
class Vendor:
    """One vendor of one spec: the spec's model with ``W + delta_v``, on batches ``(B, ...)``.

    Parameters
    ----------
    source : VendorSource
        Where its delta comes from.
    spec, index : int
        Which spec of the source's market, and which of its vendors.
    """

    source: VendorSource = field(repr=False)
    spec: int
    index: int

    def __call__(self, x: Any) -> Tensor:
        """Run the vendor on ``x (B, ...)``, of dtypes as for ``forward``."""
        batch = with_leading_axis(Call("vendor", self.source.engine).samples(x))
        outputs = self.run_rows(np.array([self.index]), np.zeros(1), batch)
        return Tensor.wrap(outputs[0])

    def run_rows(
        self,
        vendors: NDArray[Any],
        inputs: NDArray[Any],
        x: Samples,
        place: tuple[bool, bool] = (False, True),
    ) -> Any:
        """Run vendors of this one's spec, row r being ``vendors[r]`` on ``x[inputs[r]]``.

        ``place``, and where the outputs are, as ``Call.place`` says.
        """
        plan = _core.Plan.rows(vendors.astype(np.int32), inputs.astype(np.int32))
        market = make_market([self.source.specs[self.spec]], self.source.engine)
        weights = [self.source.weights(self.spec)]
        if x.shape[1] == 0 and not place[0]:
            return nothing(market, (len(vendors), 0), x.shape[2:])
        return market.forward(plan, weights, x, *place)


def vendors_of(source: VendorSource) -> list[list[Vendor]]:
    """Give every vendor of a source, by spec."""
    return [
        [Vendor(source, index, vendor) for vendor in range(spec.vendor_count)]
        for index, spec in enumerate(source.specs)
    ]


@dataclass(frozen=True, eq=False)
class OwnVendors:
    """The specs' own vendors: all equal at first, then those of the last mutation."""

    specs: Sequence[Spec]

    @property
    def engine(self) -> _core.Engine:
        return default_engine()

    def weights(self, spec: int) -> _core.VendorWeights:
        count, last = self.specs[spec].vendor_count, self.specs[spec]._mutation
        if last is None or len(last.seeds) != count:
            return _core.VendorWeights.base(count)
        return _core.VendorWeights.seeded(last.seeds, last.amplitude)

    def sample(self, spec: int, upstream_count: int) -> I32:
        seed = random.generator().seed64()
        return sample_upstream(self.specs[spec], seed, 0, spec, upstream_count)

    def forward(self, x: Samples, place: tuple[bool, bool]) -> None:
        return None


def sample_upstream(
    spec: Spec, seed: int, generation: int, index: int, upstream: int, replica: int = 0
) -> I32:
    """Draw ``upstream_sampling`` of ``upstream`` results for every vendor, without replacement."""
    count, sample = spec.vendor_count, spec.upstream_sampling
    return _core.sample_upstream(seed, generation, index, count, upstream, sample, replica)


def full_set(vendors: Vendors) -> Vendor | None:
    """Give the first vendor if the list holds all vendors of one spec in order, else None."""
    first = vendors[0]
    if not isinstance(first, Vendor):
        return None
    key = (id(first.source), first.spec)
    full = all(
        isinstance(vendor, Vendor)
        and (id(vendor.source), vendor.spec) == key
        and vendor.index == index
        for index, vendor in enumerate(vendors)
    )
    return first if full else None
