"""The parts of an optimizer's step: what the reference schedules, done at once."""

import enum
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import (
    F32,
    I32,
    float_input,
    listed,
    path_input,
    paths_input,
    refusal,
    scalar,
    seeds_input,
)
from ._eager import nothing
from ._flat import Direction, join, split
from ._gpu_arrays import Samples
from ._market import Blueprint, Spec
from ._recording import Recorder, present_rates
from ._turns import in_turn

Number: TypeAlias = SupportsFloat  # a float, or a 0-d array that may change between steps


class UnitVectorMode(enum.Enum):
    """What a direction's length is divided by."""

    whole = "whole"
    """The norm over all specs together: their relative strengths stay."""
    per_spec = "per_spec"
    """Each spec's own norm."""


class StepParts:
    """Directions, updates and redraws, one by one; ``Optimizer`` puts them together."""

    marketplace: list[Spec]
    learning_rate: Number
    meta_learning_rate: Number | None
    probe_scale: Number | None
    recorder: Recorder | None
    _history: Recorder | None  # for those who join a cluster late
    _market: _core.Market
    _native: _core.Optimizer
    _blueprint: Blueprint
    _plan: str
    _momentum: float
    _turn: AbstractContextManager[Any]

    def compute_direction_vectors(
        self,
        loss: ArrayLike,
        paths: ArrayLike,
        unit_vector_mode: UnitVectorMode | str | None = None,
    ) -> list[dict[str, F32]]:
        """Compute the direction of some losses; nothing changes.

        Parameters
        ----------
        loss, paths, unit_vector_mode
            As for ``step``.

        Returns
        -------
        list of dict of str to float32 array
            Per spec and key, the unit direction.

        Raises
        ------
        TypeError, ValueError
            As ``step``.
        """
        op = "compute_direction_vectors"
        losses, rows, mode = self._scored(op, loss, paths, unit_vector_mode)
        directions, degenerate = self._ready().direction(losses, rows, mode)
        warn_if(degenerate, op)
        return [split(*pair) for pair in zip(self.marketplace, directions, strict=True)]

    @in_turn
    def update_weights(
        self, direction_delta: Sequence[Direction], learning_rates: ArrayLike | None = None
    ) -> None:
        """Add ``learning rate * direction`` to the base weights.

        Parameters
        ----------
        direction_delta : sequence of mapping of str to array
            Per spec and key, a direction.
        learning_rates : array (S,), optional
            One rate per spec; under a meta learning rate they become the specs' own.

        Raises
        ------
        TypeError, ValueError
            For other keys, shapes or numbers of rates. Nothing has changed then.
        """
        directions = self._joined("update_weights", direction_delta)
        rates = None
        if learning_rates is not None:
            given = float_input(learning_rates, "update_weights", "learning_rates")
            rates = [float(rate) for rate in given.ravel()]
        native = self._ready()
        if self._listeners:
            present = present_rates(native, len(directions))
            told = present if rates is None else np.array(rates, np.float32)
            for listener in self._listeners:
                listener.update(directions, told)
        native.update_weights(directions, rates)

    def update_seeds(self, keep_leader: bool = True) -> None:
        """Draw new vendors; see ``UpdateParts.update_seeds``."""
        self._ready().update_seeds(bool(keep_leader))

    def update_lr_scales(self, direction_vectors: Sequence[Direction]) -> None:
        """Make vendors that differ in how far they step along a direction.

        Vendor v now carries ``direction * lr * (1 + s_v)``; the next ``probe`` or ``forward`` tells
        which scale is best.

        Parameters
        ----------
        direction_vectors : sequence of mapping of str to array
            Per spec and key, a direction.

        Raises
        ------
        RuntimeError
            Without a meta learning rate.
        TypeError, ValueError
            For other keys or shapes.
        """
        self._ready().update_lr_scales(self._joined("update_lr_scales", direction_vectors))

    def get_seeds(self, path: ArrayLike) -> NDArray[np.uint64]:
        """Give the seeds of a path's vendors.

        Parameters
        ----------
        path : integer array (S,)
            One vendor index per spec.

        Returns
        -------
        uint64 array (S,)
            The seed of each; a leader's is 0 unless it was drawn too.

        Raises
        ------
        TypeError, ValueError
            For a path of another dtype or shape, or vendors that a spec does not have.
        """
        chosen = self._path("get_seeds", path)
        native = self._ready()
        return np.array([native.seeds(i)[v] for i, v in enumerate(chosen)], dtype=np.uint64)

    def get_learning_rates(self, path: ArrayLike) -> F32:
        """Give the learning rates of a path's vendors: ``lr (1 + s)`` per spec.

        Parameters
        ----------
        path
            As for ``get_seeds``.

        Returns
        -------
        float32 array (S,)
            The spec's rate times one plus the vendor's scale ``s``, which is 0 without a line
            search.

        Raises
        ------
        TypeError, ValueError
            As ``get_seeds``.
        """
        chosen = self._path("get_learning_rates", path)
        native = self._ready()
        one = np.float32(1)
        rates = [
            np.float32(native.spec_learning_rate(i)) * (one + native.scales(i)[v])
            for i, v in enumerate(chosen)
        ]
        return np.array(rates, dtype=np.float32)

    @property
    def plan(self) -> str:
        """Which paths are probed."""
        return self._plan

    @property
    def update(self) -> str:
        """How a direction becomes a step."""
        return self._native.update

    @property
    def momentum(self) -> float:
        """How much of the last step's speed, or of Adam's mean, stays."""
        return self._momentum

    @property
    def shaping(self) -> str:
        """How losses become scores."""
        return self._native.shaping

    @property
    def antithetic(self) -> bool:
        """Whether vendors come in pairs of opposite deltas."""
        return self._native.antithetic

    @property
    def control_variate(self) -> bool:
        """Whether a scatter's losses are told less those of the base weights."""
        return self._native.control_variate

    @property
    def _listeners(self) -> list[Recorder]:
        return [one for one in (self.recorder, self._history) if one is not None]

    # -- the way to the engine ---------------------------------------------------------------------

    def _ready(self) -> _core.Optimizer:
        """Give the engine's optimizer, knowing the present rates and owning the present weights."""
        self._blueprint.check(self.marketplace)
        for spec in self.marketplace:
            spec.model._bind()
        self._native.set_rates(
            scalar(self.learning_rate, "Optimizer", "learning_rate"),
            self._number("probe_scale"),
            self._number("meta_learning_rate"),
        )
        return self._native

    def _number(self, name: str) -> float | None:
        value = getattr(self, name)
        return None if value is None else scalar(value, "Optimizer", name)

    def _path(self, op: str, path: ArrayLike) -> list[int]:
        return path_input(path, op, [spec.vendor_count for spec in self.marketplace])

    def _scored(
        self, op: str, loss: ArrayLike, paths: ArrayLike, mode: UnitVectorMode | str | None
    ) -> tuple[F32, I32, str]:
        losses = float_input(loss, op, "loss")
        if losses.ndim != 1:
            raise refusal(ValueError, op, "loss of shape (P,)", losses.shape)
        rows = paths_input(paths, op, len(self.marketplace), losses.size)
        return losses, rows, self._mode_name(mode)

    def _refuse_other_plans(self, op: str, what: str) -> None:
        """Refuse plans whose losses are not those of whole paths on a whole batch."""
        if self.plan not in ("tree", "star"):
            raise refusal(ValueError, op, f"plan 'tree' or 'star' with {what}", f"'{self.plan}'")

    def _refuse_line_search(self, op: str) -> None:
        if not self._vendors_are_seeded():
            wanted = "vendors that follow from their seeds"
            raise refusal(RuntimeError, op, wanted, "a line search under way (update_lr_scales)")

    def _vendors_are_seeded(self) -> bool:
        """Tell whether no line search is under way."""
        specs = range(len(self.marketplace))
        return all(self._native.weights(spec).kind == "seeded" for spec in specs)

    def _mode_name(self, mode: UnitVectorMode | str | None) -> str:
        if mode is None:
            mode = UnitVectorMode.whole if self.plan == "scatter" else UnitVectorMode.per_spec
        return mode.value if isinstance(mode, UnitVectorMode) else str(mode)

    def _joined(self, op: str, directions: Sequence[Direction]) -> list[F32]:
        wanted = f"{len(self.marketplace)} directions, one per spec"
        given = listed(directions, op, wanted)
        if len(given) != len(self.marketplace):
            raise refusal(ValueError, op, wanted, len(given))
        return [
            join(spec, direction, f"{op}: spec {index}")
            for index, (spec, direction) in enumerate(zip(self.marketplace, given, strict=True))
        ]

    def _sample_paths(self, batch: int) -> I32:
        return self._ready().sample_paths(batch)

    def _infer(self, x: NDArray[Any]) -> Any:
        self._ready()
        return self._market.infer(x)

    def _forward_paths(self, x: Samples, paths: I32) -> F32:
        native = self._ready()
        weights = [native.weights(index) for index in range(len(self.marketplace))]
        if x.shape[0] == 0:
            return nothing(self._market, (0,), x.shape[1:])
        return self._market.forward_paths(weights, x, paths)


def warn_if(degenerate: bool, op: str) -> None:
    if degenerate:
        what = "all losses are equal, or none is of a path that the plan compares"
        text = f"{op}: {what}: the direction is zero and tells nothing"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def default_update(plan: str) -> str:
    """Name the rule of a plan: measured gradients differ in scale, z-scores do not."""
    return "adam" if plan == "node" else "unit"


def checked_seeds(seeds: Sequence[ArrayLike]) -> list[NDArray[np.uint64]]:
    """Give every spec's seeds ``(V,)`` as uint64."""
    arrays = listed(seeds, "Optimizer", "seeds as a list of arrays, one per spec")
    return [seeds_input(s, "Optimizer", f"seeds of spec {i}") for i, s in enumerate(arrays)]
