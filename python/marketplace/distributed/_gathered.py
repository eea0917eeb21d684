"""Room for the reports of all ranks: messages of one length, gathered in one go, read in place."""

import itertools
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arrays import F32
from ._report import HEAD, Report


class Head(NamedTuple):
    """What a report says beside its losses; see ``Report``."""

    failed: int
    seconds: float
    step: int
    checksum: int


class Gathered:
    """Buffers for one way to cut a plan; shares that are shorter than the longest leave room.

    Parameters
    ----------
    bounds : sequence of int
        Rank k has paths [bounds[k], bounds[k + 1]).

    Attributes
    ----------
    mine : bytearray
        To send: this rank's report.
    all : bytearray
        To receive: those of all ranks, one behind the other.
    """

    def __init__(self, bounds: Sequence[int]) -> None:
        shares = [last - first for first, last in itertools.pairwise(bounds)]
        width = max(shares)
        self._heads = struct.Struct(f"{HEAD.format}{4 * width}x")
        self.mine = bytearray(self._heads.size)
        self.all = bytearray(self._heads.size * len(shares))
        self._values = np.frombuffer(self.all, dtype="<f4")
        head = HEAD.size // 4
        places = [
            rank * (head + width) + head + np.arange(share) for rank, share in enumerate(shares)
        ]
        self._places = np.concatenate(places)  # of the paths, in depth-first order

    def put(self, report: Report) -> None:
        """Write this rank's report where it is sent from."""
        message = report.to_bytes()
        self.mine[: len(message)] = message

    def heads(self) -> list[Head]:
        """Give what every rank says beside its losses."""
        return list(map(Head._make, self._heads.iter_unpack(self.all)))

    def losses(self, order: NDArray[np.int64]) -> F32:
        """Give the losses of all paths, of which ``order`` is the depth-first order."""
        losses = np.empty(order.size, dtype=np.float32)
        losses[order] = self._values[self._places]
        return losses
