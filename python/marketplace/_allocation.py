"""How many vendors every spec gets for so many floating point operations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import _core
from ._arrays import default_engine, refusal, scalar, shape_input
from ._market import Spec, check_market, make_market

# A spec of n parameters gets at most n / 10 probes: more would find out what one step cannot use.
PARAMETERS_PER_PROBE = 10


@dataclass(frozen=True)
class Price:
    """What the probes of one spec cost, in operations per sample.

    Attributes
    ----------
    fixed : int
        Once, if there is any probe.
    each : int
        Per probe.
    cap : int
        How many probes make sense.
    """

    fixed: int
    each: int
    cap: int

    def probes(self, limit: int) -> int:
        """Give how many probes cost at most ``limit``."""
        if limit >= self.fixed + self.cap * self.each:
            return self.cap
        return 0 if limit < self.fixed + self.each else (limit - self.fixed) // self.each

    def cost(self, probes: int) -> int:
        """Give what so many probes cost."""
        return self.fixed + probes * self.each if probes else 0


def allocate_vendors(
    marketplace: Sequence[Spec], sample_shape: Sequence[int], *, plan: str, flops: Any
) -> list[int]:
    """Choose every spec's vendors so that a step costs at most so many operations per sample.

    Comes before the ``Optimizer``, which keeps the vendor counts that it was made with.

    The operations are shared out evenly: the next probe always goes to the spec that will then have
    taken the least, until that probe is too dear. Specs that have enough leave their share to the
    others. More operations never mean fewer vendors for any spec.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market; its own vendor counts do not matter and stay.
    sample_shape : sequence of int
        Shape of one sample, without the batch.
    plan : {"star", "node"}
        Of a star, a probe of spec i costs the specs from i on, and a spec of n parameters has
        enough at n / 10 probes. Of plan "node", probes cost what ``Optimizer.flops_per_step``
        counts, and a spec has enough where they tell all pixels of a convolution (on average, where
        it has several) and its norms' parameters apart: at the next power of two. A linear layer
        has enough at one.
    flops : float
        Operations per sample and step, the leader's path included; ``Optimizer.flops_per_step``
        for a batch of one sample counts the same.

    Returns
    -------
    list of int
        A ``vendor_count`` per spec; 1 where nothing is to be probed. Of plan "node", that spec
        stays as it is.

    Raises
    ------
    TypeError
        For what is no market, shape or number.
    ValueError
        For another plan, samples that the market cannot take, a market that the plan cannot run,
        one without anything to probe, or fewer operations than the least that the plan can do.

    Examples
    --------
    >>> for spec, count in zip(market, allocate_vendors(     # doctest: +SKIP
    ...     market, (1, 28, 28), plan="star", flops=0.4e9)):
    ...     spec.vendor_count = count
    >>> opt = Optimizer(market, learning_rate=0.1, plan="star")     # doctest: +SKIP
    """
    op = "allocate_vendors"
    specs = check_market(marketplace, op)
    shape = shape_input(sample_shape, op, "sample_shape")
    budget = int(scalar(flops, op, "flops"))
    if plan not in ("star", "node"):
        raise refusal(ValueError, op, "plan 'star' or 'node'", repr(plan))
    leader, prices = (_star_prices if plan == "star" else _node_prices)(specs, shape)
    if plan == "star" and not any(price.cap for price in prices):
        raise refusal(ValueError, op, "a market with parameters", "one without")
    # a star without a deviation learns nothing; plan "node" still has its closed form
    least = leader
    if plan == "star":
        least += min(price.cost(1) for price in prices if price.cap)
    if budget < least:
        raise refusal(ValueError, op, f"flops of at least {least}", budget)
    return [1 + probes for probes in _share_out(prices, budget - leader)]


def _share_out(prices: Sequence[Price], budget: int) -> list[int]:
    """Find the highest limit per spec at which all together stay within the budget."""
    low, high = 0, budget
    while low < high:
        limit = (low + high + 1) // 2
        if sum(price.cost(price.probes(limit)) for price in prices) <= budget:
            low = limit
        else:
            high = limit - 1
    return [price.probes(low) for price in prices]


def spec_flops(specs: Sequence[Spec], sample_shape: tuple[int, ...]) -> list[int]:
    """Give every spec's operations per sample."""
    flops, shape = [], sample_shape
    for spec in specs:
        flops.append(spec.model._core.flops(shape))
        shape = spec.model._core.output_shape(shape)
    return flops


def _star_prices(specs: Sequence[Spec], shape: tuple[int, ...]) -> tuple[int, list[Price]]:
    """Give the cost of the leader's path, and every spec's price."""
    flops = spec_flops(specs, shape)
    prices = []
    for index, spec in enumerate(specs):
        count = spec.model.parameter_count
        cap = max(count // PARAMETERS_PER_PROBE, 1) if count else 0
        prices.append(Price(0, sum(flops[index:]), cap))
    return sum(flops), prices


def _node_prices(specs: Sequence[Spec], shape: tuple[int, ...]) -> tuple[int, list[Price]]:
    """Give the cost of a step of the output layer alone, and every spec's price."""
    market = make_market(specs, default_engine())
    leader = market.node_flops([1] * len(specs), shape)

    def cost(index: int, vendors: int) -> int:
        counts = [vendors if spec == index else 1 for spec in range(len(specs))]
        return market.node_flops(counts, shape) - leader

    prices = []
    for index, (spec, flops) in enumerate(zip(specs, spec_flops(specs, shape), strict=True)):
        one, two = cost(index, 2), cost(index, 3)
        cap = _exact_probes(spec.model._core, flops) if one > 0 else 0
        prices.append(Price(2 * one - two, two - one, cap))
    return leader, prices


def _exact_probes(model: _core.Model, flops: int) -> int:
    """Give the probes that leave no pixel of an average product in the noise of others.

    A power of two, with a column of signs for every pixel, which is how often a weight is used on
    one sample, and for every parameter of a norm.
    """
    shapes = {key: model.shape(key) for key in model.parameter_keys}
    weights = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
    if not weights:
        return 0
    norms = sum(key.endswith(".weight") and len(shape) == 1 for key, shape in shapes.items())
    columns = -(-flops // (2 * weights)) + 2 * norms
    return 1 << (columns - 1).bit_length()
