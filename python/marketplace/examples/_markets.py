"""Market structures: how a network is cut into specs, and how many vendors each gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import nn
from .._arrays import F32
from ..training import Spec

NORMS = ("instance", "batch")
Layers = list[Any]


@dataclasses.dataclass(frozen=True)
class Structure:
    """How a network is cut, and what it is probed with unless told otherwise.

    Attributes
    ----------
    name : str
        What the command line calls it.
    build : callable
        Draws the initial weights; gives the layers of every spec.
    plan : str
        The default plan.
    vendors : mapping of str to tuple of int
        Default vendors by plan.
    sampling : tuple of int
        Default upstream sampling of every spec, with plan tree.
    """

    name: str
    build: Callable[[], Sequence[Layers]]
    plan: str
    vendors: Mapping[str, tuple[int, ...]]
    sampling: tuple[int, ...]

    @property
    def depth(self) -> int:
        """How many specs it has."""
        return len(self.sampling)

    def find_problem(
        self,
        plan: str | None,
        vendors: tuple[int, ...] | None,
        sampling: tuple[int, ...] | None,
    ) -> str | None:
        """Say what is wrong with given options for this structure."""
        if vendors is not None and len(vendors) not in (1, self.depth):
            return (
                f"argument --vendors: expected {self.depth} whole numbers, one per spec of "
                f"{self.name}, or one for all, received {len(vendors)}"
            )
        if sampling is None:
            return None
        if len(sampling) != self.depth:
            return (
                f"argument --upstream-sampling: expected {self.depth} whole numbers, one per spec "
                f"of {self.name}, received {len(sampling)}"
            )
        chosen = plan or self.plan
        if chosen != "tree" and any(sampling):
            return f"argument --upstream-sampling: expected --plan tree, received {chosen}"
        return self._find_sampling_problem(vendors or self.vendors["tree"], sampling)

    def _find_sampling_problem(
        self, vendors: tuple[int, ...], sampling: tuple[int, ...]
    ) -> str | None:
        upstream = 1
        for spec, (count, sample) in enumerate(zip(self.spread(vendors), sampling, strict=True)):
            if spec > 0 and sample > upstream:
                return (
                    f"argument --upstream-sampling: expected at most {upstream} for spec {spec}, "
                    f"as many results as the spec before it has, received {sample}"
                )
            upstream = count * (sample if spec > 0 and sample > 0 else upstream)
        return None

    def spread(self, vendors: tuple[int, ...]) -> tuple[int, ...]:
        """Give one number of vendors per spec."""
        return vendors * self.depth if len(vendors) == 1 else vendors

    def specs(
        self,
        plan: str,
        vendors: tuple[int, ...] | None = None,
        sampling: tuple[int, ...] | None = None,
    ) -> list[Spec]:
        """Build the market, its initial weights drawn from ``marketplace.random``."""
        if sampling is None:
            # a structure's own sampling goes with its own vendors
            own = plan == "tree" and vendors is None
            sampling = self.sampling if own else (0,) * self.depth
        counts = self.spread(vendors or self.vendors[plan])
        return [
            Spec(nn.Model(*layers), count, sample)
            for layers, count, sample in zip(self.build(), counts, sampling, strict=True)
        ]


def make_norm(kind: str, channels: int) -> nn.Layer:
    """Make a normalisation of a kind in ``NORMS``."""
    return nn.BatchNorm(channels) if kind == "batch" else nn.InstanceNorm(channels)


def copy_weights(source: Sequence[Spec], target: Sequence[Spec]) -> None:
    """Copy weights between two markets of the same layers, however these are cut into specs."""
    load_joined(target, joined_weights(source))


def joined_weights(market: Sequence[Spec]) -> dict[str, F32]:
    """Copy a market's weights, by their keys in a model of all its layers."""
    return {
        _placed(key, first): value
        for first, spec in _with_places(market)
        for key, value in spec.model.state_dict().items()
    }


def load_joined(market: Sequence[Spec], weights: Mapping[str, F32]) -> None:
    """Load what ``joined_weights`` gives."""
    for first, spec in _with_places(market):
        keys = spec.model.state_dict()
        spec.model.load_state_dict({key: weights[_placed(key, first)] for key in keys})


def _with_places(market: Sequence[Spec]) -> Iterator[tuple[int, Spec]]:
    """Yield every spec behind the place of its first layer among all."""
    first = 0
    for spec in market:
        yield first, spec
        first += len(spec.model.layers)


def _placed(key: str, first: int) -> str:
    """Name a spec's key after its layer's place among all."""
    layers, index, name = key.split(".", 2)
    return f"{layers}.{int(index) + first}.{name}"


def _blocks(norm: str) -> list[Layers]:
    """Beautiful MNIST in its smallest pieces: images (B, 1, 28, 28) to logits (B, 10)."""
    return [
        [nn.Conv2d(1, 32, 5), nn.relu],
        [nn.Conv2d(32, 32, 5), nn.relu, make_norm(norm, 32), nn.max_pool2d],
        [nn.Conv2d(32, 64, 3), nn.relu],
        [nn.Conv2d(64, 64, 3), nn.relu, make_norm(norm, 64), nn.max_pool2d, lambda x: x.flatten(1)],
        [nn.Linear(576, 10)],
    ]


def _joined(norm: str, *sizes: int) -> list[Layers]:
    """Join so many pieces each into one spec."""
    pieces = iter(_blocks(norm))
    return [[layer for _ in range(size) for layer in next(pieces)] for size in sizes]


# A probe of the last convolution costs next to nothing, so it has enough to tell all pixels of a
# channel apart, 36, and the norm behind them. One of the first two costs as much as a forward pass
# for every channel: those two stay as they were drawn.
NODE_VENDORS = (1, 1, 1, 65, 1)
DIGIT_MARKETS = ("depth-3", "depth-1", "depth-5", "pyramid-32", "pyramid-64")


def digit_structure(name: str = "depth-3", norm: str = "instance", node: bool = False) -> Structure:
    """Give a way to cut the beautiful-MNIST network.

    Parameters
    ----------
    name : str
        ``depth-3``: two blocks of convolutions and the output layer, as the reference cuts it.
        ``depth-1``: one spec of all layers. ``depth-5``: every convolution a spec of its own.
        ``pyramid-32``, ``pyramid-64``: the same five specs, vendors doubling from spec to spec up
        to that number, each vendor taking half as many upstream results as its spec has vendors.
    norm : str
        ``instance`` or ``batch``.
    node : bool
        Whether plan node is the default, or else the structure's own.

    Returns
    -------
    Structure
        Building 87,850 parameters, however cut.
    """
    sizes: dict[str, tuple[int, ...]] = {"depth-1": (5,), "depth-3": (2, 2, 1)}
    cuts = sizes.get(name, (1, 1, 1, 1, 1))
    vendors: dict[str, dict[str, tuple[int, ...]]] = {
        "depth-1": {"star": (64,), "tree": (64,), "node": (2,)},
        "depth-3": {"star": (8, 40, 512), "tree": (8, 8, 8), "node": (1, 5, 1)},
        "depth-5": {"star": (8, 8, 40, 40, 512), "tree": (2, 4, 4, 4, 4), "node": NODE_VENDORS},
        "pyramid-32": {"star": (2, 4, 8, 16, 32), "tree": (2, 4, 8, 16, 32), "node": NODE_VENDORS},
        "pyramid-64": {
            "star": (4, 8, 16, 32, 64),
            "tree": (4, 8, 16, 32, 64),
            "node": NODE_VENDORS,
        },
    }
    pyramids = {"pyramid-32": (0, 2, 4, 8, 16), "pyramid-64": (0, 4, 8, 16, 32)}
    sampling = pyramids.get(name, (0,) * len(cuts))
    plan = "node" if node else "tree" if name in pyramids else "star"
    return Structure(name, lambda: _joined(norm, *cuts), plan, vendors[name], sampling)
