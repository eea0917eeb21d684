"""From a step to its record, and from the record to the same step."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import F32
from .._recording import AS_IS, Draw
from ._format import Step, Weighted, decode_step, encode_step


def record_step(
    native: _core.Optimizer, draws: Sequence[Draw | list[F32]], mode: str, rates: F32
) -> bytes:
    """Give a record's content: what ``Recorder.step`` is told of a step."""
    terms = [_weigh(native, draw) if isinstance(draw, Draw) else draw for draw in draws]
    return encode_step(Step(mode, rates, terms))


def record_update(directions: Sequence[F32], rates: F32) -> bytes:
    """Give a record's content: what ``Recorder.update`` is told of an update."""
    return encode_step(Step(AS_IS, rates, [list(directions)]))


def _weigh(native: _core.Optimizer, draw: Draw) -> Weighted:
    """Leave out seeds that follow from the master seed, as they mostly do."""
    derived = [
        _core.derive_seeds(
            native.seed, draw.generation, spec, len(seeds), True, draw.replica, native.antithetic
        )
        for spec, seeds in enumerate(draw.seeds)
    ]
    same = all(np.array_equal(*pair) for pair in zip(draw.seeds, derived, strict=True))
    return Weighted(
        draw.generation,
        draw.replica,
        draw.amplitudes,
        draw.coefficients,
        None if same else draw.seeds,
    )


class StepTaker:
    """Takes the steps of records with an engine's optimizer, on the weights of its market.

    Parameters
    ----------
    market, native : _core.Market, _core.Optimizer
        What holds the weights, and the update rule's state.
    vendor_counts, sizes : sequence of int
        Per spec, its vendors and its parameters.
    """

    def __init__(
        self,
        market: _core.Market,
        native: _core.Optimizer,
        vendor_counts: Sequence[int],
        sizes: Sequence[int],
    ) -> None:
        self._market, self._native = market, native
        self._vendor_counts, self._sizes = vendor_counts, sizes

    def take(self, body: memoryview) -> None:
        """Take one step again.

        Raises
        ------
        Damage
            For a record of another market.
        """
        step = decode_step(body, self._vendor_counts, self._sizes)
        *earlier, last = (self._sums(term) for term in step.terms)
        sums = last
        if earlier:  # added up in the order of the engine
            totals = [functools.reduce(np.add, own) for own in zip(*earlier, strict=True)]
            sums = [own + total for own, total in zip(last, totals, strict=True)]
        update = sums if step.mode == AS_IS else self._native.make_update(sums, step.mode)
        self._native.update_weights(update, step.rates.tolist())

    def _sums(self, term: Weighted | list[F32]) -> list[F32]:
        """Give ``g = sum_v c_v delta_v`` of every spec."""
        if not isinstance(term, Weighted):
            return term
        return [
            self._market.combine(spec, self._vendors(term, spec), coefficients)
            for spec, coefficients in enumerate(term.coefficients)
        ]

    def _vendors(self, draw: Weighted, spec: int) -> _core.VendorWeights:
        return _core.VendorWeights.seeded(
            self._seeds(draw, spec), float(draw.amplitudes[spec]), self._native.antithetic
        )

    def _seeds(self, draw: Weighted, spec: int) -> NDArray[np.uint64]:
        if draw.seeds is not None:
            return draw.seeds[spec]
        native, count = self._native, self._vendor_counts[spec]
        return _core.derive_seeds(
            native.seed, draw.generation, spec, count, True, draw.replica, native.antithetic
        )
