"""What an optimizer tells a recorder about a step: all that its result depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arrays import F32

AS_IS = "as_is"  # beside the unit vector modes: the sum itself is the direction


@dataclass(frozen=True)
class Draw:
    """The vendors of one probe, and how much of each delta a step takes.

    Attributes
    ----------
    generation, replica : int
        How often the vendors had been drawn anew, and which draw of the update this is.
    seeds : list of uint64 array (V,)
        Per spec, the vendors' seeds.
    amplitudes : float32 array (S,)
        Per spec, the largest element of a delta.
    coefficients : list of float32 array (V,)
        Per spec, the sum of the scores over the paths through each vendor.
    """

    generation: int
    replica: int
    seeds: list[NDArray[np.uint64]]
    amplitudes: F32
    coefficients: list[F32]


class Recorder(Protocol):
    """Told of every change of the weights just before it happens.

    A recorder that raises stops the step while nothing has changed.
    """

    def step(self, draws: Sequence[Draw | list[F32]], mode: str, rates: F32) -> None:
        """Take a step along the sum of some draws, or of sums that follow from no seeds.

        One rate per spec; what the rule makes of the sum follows from it and the steps before.
        """

    def update(self, directions: Sequence[F32], rates: F32) -> None:
        """Take an update along directions of the caller's own, one flat array per spec."""


def describe_draw(native: _core.Optimizer, coefficients: Sequence[NDArray[np.float64]]) -> Draw:
    """Describe the present vendors, each with its coefficient."""
    specs = range(len(coefficients))
    return Draw(
        native.generation,
        native.replica,
        [native.seeds(spec) for spec in specs],
        np.array([native.amplitude(spec) for spec in specs], dtype=np.float32),
        [np.asarray(values, dtype=np.float32) for values in coefficients],
    )


def present_rates(native: _core.Optimizer, specs: int) -> F32:
    """Give the learning rates of that many specs, as the engine holds them."""
    return np.array([native.spec_learning_rate(spec) for spec in range(specs)], dtype=np.float32)
