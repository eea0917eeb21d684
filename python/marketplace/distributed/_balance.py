"""Who evaluates how much: shares that take all workers the same time, by measured speeds."""

from collections.abc import Hashable, Sequence

from .. import _core

RECUT = 16  # probes; shares that stay let devices keep what they prepared for them
_NEWEST = 0.5  # weight of the newest measurement


class Balance:
    """Cuts a plan into shares.

    Speeds are costs of shares by the mean of the seconds that they took from one cut to the next,
    smoothed; a worker of unknown speed counts as an average one.
    """

    def __init__(self) -> None:
        self._speeds: dict[Hashable, float] = {}
        self._members: list[Hashable] = []
        self._bounds: list[int] = []
        self._costs: list[float] = []
        self._times: dict[Hashable, list[float]] = {}  # of the members' shares since the last cut
        self._age = 0

    def cut(
        self, native: _core.Optimizer, sample_shape: Sequence[int], members: Sequence[Hashable]
    ) -> list[int]:
        """Give the bounds of the members' shares: member k has paths [bounds[k], bounds[k + 1]).

        They follow from the members and from what was noted, so that processes that note the same
        cut alike. While they stay, the list is the same object.
        """
        self._age += 1
        if self._age >= RECUT or list(members) != self._members:
            self._measure()
            self._members, self._age = list(members), 0
            bounds, costs = native.cut(sample_shape, self._present_speeds())
            self._bounds, self._costs = bounds.tolist(), costs.tolist()
            self._times = {member: [] for member in self._members}
        return self._bounds

    def note(self, member: Hashable, seconds: float) -> None:
        """Take note of the time that a member's last share took."""
        if member in self._times:
            self._times[member].append(seconds)

    def _measure(self) -> None:
        for member, cost in zip(self._members, self._costs, strict=True):
            times = self._times[member]
            if cost > 0 and sum(times) > 0:
                speed = cost * len(times) / sum(times)
                before = self._speeds.get(member, speed)
                self._speeds[member] = before + _NEWEST * (speed - before)

    def _present_speeds(self) -> list[float]:
        known = [self._speeds[member] for member in self._members if member in self._speeds]
        average = sum(known) / len(known) if known else 1.0
        return [self._speeds.get(member, average) for member in self._members]
