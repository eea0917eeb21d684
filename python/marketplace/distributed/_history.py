"""What a late worker begins from: a checkpoint, and the steps that were taken since.

The steps are the records of a replay log, a few bytes a vendor; taking them again gives the very
same weights. So weights travel once for many newcomers, and never to one whose own first weights
are where the log begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._arrays import F32, refusal
from .._recording import Draw
from .._state import RATES, rate_from_json, rate_to_json
from ..optimizers import Optimizer
from ..replay._format import Damage
from ..replay._header import get_statistics, layout_of, set_statistics
from ..replay._steps import StepTaker, record_step
from ._identity import checksum

_OP = "replay of a late worker"


@dataclass(frozen=True)
class Point:
    """A state of the run.

    Attributes
    ----------
    step : int
        Steps done.
    checksum : int
        CRC-32 of all weights and running statistics.
    """

    step: int
    checksum: int


@dataclass(frozen=True)
class Present:
    """The present state, but for what the steps give: weights and the update rule's moments.

    Attributes
    ----------
    base, point : Point
        Where the steps begin, and where they lead to.
    steps : list of bytes
        Records, one a step.
    statistics : bytes
        Running statistics.
    rates, state : dict
        Of the optimizer.
    """

    base: Point
    point: Point
    steps: list[bytes]
    statistics: bytes
    rates: dict[str, Any]
    state: dict[str, Any]


class History:
    """Listens to an optimizer's steps, as a recorder does, and keeps the newest of them.

    Parameters
    ----------
    optimizer : Optimizer
        Whose.
    most : int
        Steps to keep; with more, the history begins anew when it is next asked for.

    Attributes
    ----------
    base : Point or None
        Where it begins; None for one that has to begin anew.
    """

    def __init__(self, optimizer: Optimizer, most: int) -> None:
        self._optimizer, self._most = optimizer, most
        self.base: Point | None = point_of(optimizer)
        self._steps: list[tuple[int, bytes]] = []

    def begin_anew(self) -> None:
        """Begin from the present state."""
        self.base, self._steps = point_of(self._optimizer), []

    def present(self) -> Present:
        """Describe the present state."""
        assert self.base is not None
        optimizer = self._optimizer
        state = optimizer._ready().state()
        models = [spec.model._core for spec in optimizer.marketplace]
        return Present(
            self.base,
            point_of(optimizer),
            [record for _, record in self._steps],
            get_statistics(models, layout_of(optimizer.marketplace)),
            {name: rate_to_json(getattr(optimizer, name)) for name in RATES},
            {name: value for name, value in state.items() if not name.startswith("rule.")},
        )

    # -- what the optimizer calls ------------------------------------------------------------------

    def step(self, draws: Sequence[Draw | list[F32]], mode: str, rates: F32) -> None:
        """Keep a step that is about to be taken."""
        now = self._optimizer.global_step
        if self._steps and self._steps[-1][0] == now:  # was recorded, but not taken
            self._steps.pop()
        if len(self._steps) >= self._most:
            self.base, self._steps = None, []
        if self.base is not None:
            record = record_step(self._optimizer._native, draws, mode, rates)
            self._steps.append((now, record))

    def update(self, directions: Sequence[F32], rates: F32) -> None:
        """End: an update of the caller's own is as large as the weights."""
        self.base, self._steps = None, []


def point_of(optimizer: Optimizer) -> Point:
    """Tell where an optimizer is."""
    return Point(optimizer.global_step, checksum(optimizer))


def catch_up(optimizer: Optimizer, present: Present) -> None:
    """Lead an optimizer from the history's base to the present.

    Raises
    ------
    ValueError
        For an optimizer that is elsewhere, records of another market, or steps that lead to other
        weights.
    """
    _require(point_of(optimizer), present.base, "where the log begins")
    native = optimizer._ready()
    layout = layout_of(optimizer.marketplace)
    counts = [spec.vendor_count for spec in layout]
    steps = StepTaker(optimizer._market, native, counts, [spec.size for spec in layout])
    try:
        for record in present.steps:
            steps.take(memoryview(record))
    except Damage as error:
        raise refusal(ValueError, _OP, "steps of this market", error) from error
    models = [spec.model._core for spec in optimizer.marketplace]
    set_statistics(models, layout, memoryview(present.statistics))
    native.load_state(native.state() | present.state)
    for name in RATES:
        setattr(optimizer, name, rate_from_json(present.rates[name]))
    optimizer.global_step = present.point.step
    _require(point_of(optimizer), present.point, f"{len(present.steps)} steps later")


def _require(received: Point, expected: Point, where: str) -> None:
    if received == expected:
        return
    wanted = f"weights with checksum {expected.checksum:08x} at step {expected.step}, {where}"
    found = f"{received.checksum:08x} at step {received.step}"
    hint = "changes outside of the optimizer's steps are not on record, see replay_steps"
    raise refusal(ValueError, _OP, wanted, f"{found}; {hint}")
