"""Updates from several forward passes: what goes beyond one probe and one step.

``forward_pass``: several minibatches with the same vendors, ``loss[p] = mean over minibatches``.
``marketplace_replica``: several independent draws of all vendors,
``g_i = sum over replicas sum over paths z delta``, normalised once. Both cost the memory of one.
"""

import abc
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import F32, I32, ignored_input, integer, refusal
from ._classes import class_losses
from ._flat import Direction
from ._gpu_arrays import Call, Labels, Samples, cut, is_gpu_array
from ._recording import Draw, Recorder, describe_draw
from ._sharing import Minibatch, Sharing
from ._steps import StepParts, UnitVectorMode, warn_if
from ._turns import in_turn


class UpdateParts(StepParts, abc.ABC):
    """Minibatches and replicas that add up to one update; ``Optimizer`` builds on them."""

    classes: Sequence[int] | None
    recorder: Recorder | None
    _sharing: Sharing | None  # who else evaluates paths
    _draws: list[Draw | list[F32]]  # of the replicas so far, where a recorder wants to know
    _total: NDArray[np.float64]  # of the minibatches' losses
    _count: int
    _minibatches: list[Minibatch]  # kept for a line search alone
    _counted_for: tuple[int, int]  # the generation and replica whose losses these are

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._counted_for = (0, 0)
        self.classes = None
        self.recorder = None
        self._sharing = None
        self._history = None
        self._end_update()

    @property
    def global_step(self) -> int:
        """Steps done: counted by the call that takes them, whatever interrupts Python behind it."""
        return self._native.step_count

    @global_step.setter
    def global_step(self, value: int) -> None:
        self._native.step_count = integer(value, "Optimizer", "global_step", 0)

    @property
    def replica(self) -> int:
        """How many replicas of this update are summed up so far."""
        return self._native.replica

    @in_turn
    def probe(
        self, x: Any, y: Any, *, ignore_index: int | None = None, stream: Any = None
    ) -> tuple[F32, I32]:
        """Compute the loss of every path of the plan on one batch.

        Parameters
        ----------
        x : array (B, ...)
            Samples. Uint8 and float32 are taken as they are, other real dtypes become float32; on a
            GPU, only these two, C-contiguous (see Notes).
        y : integer array (B,)
            Labels.
        ignore_index : int, optional
            A label whose samples count for nothing.
        stream : int or object, optional
            A stream of the first GPU that x and y are ready in the order of: a handle, or an
            object with ``__cuda_stream__()``, ``ptr`` or ``cuda_stream``.

        Returns
        -------
        loss : float32 array (P,)
            Mean cross-entropy of every path; the leader's first. Of a scatter: the cross-entropy
            of every sample whose label counts, in their order, each on a path of its own (a
            function of seed, generation and batch size; batch norms use running statistics).
        paths : int32 array (P, S)
            The vendor of every spec, by path.

        Raises
        ------
        TypeError
            For a dtype that is not real, or labels that are no integers.
        ValueError
            For an empty batch, other shapes, labels out of range or samples that are not finite.

        Notes
        -----
        On a GPU, x and y may be arrays of CuPy, hip-python, PyTorch or others on a device of the
        same kind (``__dlpack__`` or ``__cuda_array_interface__``). They are copied from device to
        device, behind the work that makes them; labels come to the host for
        ``classes`` and for plans other than "tree" and "star".
        """
        return self._probe("probe", x, y, ignore_index, stream, further=False)

    @in_turn
    def accumulate(
        self, x: Any, y: Any, *, ignore_index: int | None = None, stream: Any = None
    ) -> tuple[F32, I32]:
        """Probe one more minibatch with the same vendors; give the losses' mean so far.

        The mean runs over the minibatches since the vendors were drawn, or since the last
        ``probe``, which counts as the first. Hand it to ``step``::

            for x, y in minibatches:
                loss, paths = optimizer.accumulate(x, y)
            optimizer.step(loss, paths)

        Parameters
        ----------
        x, y, ignore_index, stream
            As for ``probe``.

        Returns
        -------
        loss : float32 array (P,)
            Mean of the minibatches' losses, each minibatch counting the same; summed in float64.
        paths : int32 array (P, S)
            The vendor of every spec, by path.

        Raises
        ------
        TypeError, ValueError
            As ``probe``, or for a minibatch of a scatter whose samples do not match those before.
            The mean is as it was then.

        Notes
        -----
        Batch norms take over the statistics of every minibatch at the next step. Under a meta
        learning rate the minibatches themselves are kept until then: the line search runs on all.
        """
        self._follow_vendors()  # before it is asked how many there are
        loss, paths = self._probe("accumulate", x, y, ignore_index, stream, self._count > 0)
        if self._count > 1:
            loss = (self._total / self._count).astype(np.float32)
        return loss, paths

    @in_turn
    def add_replica(
        self,
        loss: ArrayLike,
        paths: ArrayLike,
        unit_vector_mode: UnitVectorMode | str | None = None,
    ) -> None:
        """Add the direction of these vendors, not normalised, to a sum, and draw others.

        The next ``step`` adds its own vendors' direction and normalises the sum::

            for _ in range(replicas - 1):
                optimizer.add_replica(*optimizer.probe(x, y))
            optimizer.step(*optimizer.probe(x, y))

        The seeds of replica r are a function of (seed, generation, r, spec, vendor). Nothing is
        kept of a replica but its share of the sum, one number per parameter for all of them.

        Parameters
        ----------
        loss, paths, unit_vector_mode
            As for ``step``; the mode is the same for all replicas of an update.

        Raises
        ------
        TypeError, ValueError
            As ``step``. Nothing has changed then.
        RuntimeError
            Between ``update_lr_scales`` and ``update_seeds``.

        Warns
        -----
        RuntimeWarning
            If all losses are equal; this replica adds nothing then.
        """
        losses, rows, mode = self._scored("add_replica", loss, paths, unit_vector_mode)
        self._refuse_line_search("add_replica")
        # before the replica is counted: those behind the count are left out
        self._draws = self._drawn(losses, rows, mode, last=False)
        degenerate = self._ready().add_replica(losses, rows, mode)
        self._start_over()
        warn_if(degenerate, "add_replica")

    @in_turn
    def drop_replicas(self) -> None:
        """Forget the replicas of an update that will not come, and go back to its first vendors."""
        self._ready().drop_replicas()
        self._end_update()

    @in_turn
    def train_step(
        self,
        x: Any,
        y: Any,
        *,
        unit_vector_mode: UnitVectorMode | str | None = None,
        ignore_index: int | None = None,
        forward_pass: int = 1,
        marketplace_replica: int = 1,
        stream: Any = None,
    ) -> tuple[F32, I32]:
        """Probe and step; give the losses and paths that the step was taken from.

        Parameters
        ----------
        x : array (n B, ...)
            Samples of all minibatches; of dtypes as for ``probe``.
        y : integer array (n B,)
            Labels.
        unit_vector_mode : UnitVectorMode or its value
            What the direction is divided by.
        ignore_index : int, optional
            A label whose samples count for nothing.
        forward_pass : int
            How many minibatches n the samples are cut into, in their order. They meet the same
            vendors one after another; losses are averaged.
        marketplace_replica : int
            How many independent draws of all vendors meet the samples; directions are summed.
        stream : int or object, optional
            As for ``probe``.

        Returns
        -------
        loss : float32 array (P,)
            Mean losses of the last replica.
        paths : int32 array (P, S)
            Their paths.

        Raises
        ------
        TypeError, ValueError
            As ``probe`` and ``step``, or for samples that cannot be cut into n equal minibatches.
            The weights and the vendors are as they were then; of an update that this call had added
            replicas to, the vendors that it began with.

        Notes
        -----
        Under a meta learning rate the line search runs once, along the sum's direction, with the
        last replica's seeds, on all minibatches.
        On GPUs the host is not asked in between where trees and stars can do without it.
        """
        replicas = integer(marketplace_replica, "train_step", "marketplace_replica", 1)
        count = integer(forward_pass, "train_step", "forward_pass", 1)
        minibatches = cut(*self._batch("train_step", x, y, stream), count, "train_step")
        if replicas == count == 1 and self._is_plain():
            whole = (*minibatches[0], ignored_input(ignore_index, "train_step"))
            return self._step_at_once(whole, self._mode_name(unit_vector_mode))
        before = self.replica
        try:
            for replica in range(replicas):
                self._start_over()
                for part, labels in minibatches:
                    loss, paths = self.accumulate(part, labels, ignore_index=ignore_index)
                if replica < replicas - 1:
                    self.add_replica(loss, paths, unit_vector_mode)
            self.step(loss, paths, unit_vector_mode)
        except BaseException:
            if self.replica > before:
                self.drop_replicas()
            raise
        return loss, paths

    @abc.abstractmethod
    def step(
        self,
        loss: ArrayLike,
        paths: ArrayLike,
        unit_vector_mode: UnitVectorMode | str | None = None,
    ) -> None:
        """Update the weights; see ``Optimizer.step``."""

    @in_turn
    def update_seeds(self, keep_leader: bool = True) -> None:
        """Draw new vendors; the weights stay.

        Losses and replicas that were added up for the present vendors are dropped, and a line
        search ends.

        Parameters
        ----------
        keep_leader : bool
            Whether vendor 0 of every spec keeps seed 0, that of no delta; otherwise it is drawn
            like the others.
        """
        super().update_seeds(keep_leader)
        self._end_update()

    @in_turn
    def update_lr_scales(self, direction_vectors: Sequence[Direction]) -> None:
        """Make vendors that differ in how far they step; see ``StepParts.update_lr_scales``.

        Losses that were added up for the present vendors are dropped.
        """
        super().update_lr_scales(direction_vectors)
        self._start_over()

    # -- inside ------------------------------------------------------------------------------------

    def _batch(self, op: str, x: Any, y: Any, stream: Any) -> tuple[Samples, Labels]:
        """Give samples and labels where the engine can take them."""
        if self._sharing is not None and (is_gpu_array(x) or is_gpu_array(y)):
            wanted = "x and y in host memory with shared probes"
            raise refusal(TypeError, op, wanted, "an array on a GPU")
        on_host = self.plan not in ("tree", "star") or self.classes is not None
        return Call(op, self._market.engine, stream).batch(x, y, on_host)

    def _probe(
        self, op: str, x: Any, y: Any, ignore_index: int | None, stream: Any, further: bool
    ) -> tuple[F32, I32]:
        self._follow_vendors()
        batch, labels = self._batch(op, x, y, stream)
        minibatch = (batch, labels, ignored_input(ignore_index, op))
        loss, paths = self._losses(self._ready(), minibatch, further)
        if not further:
            self._start_over()
        elif self._total.shape != loss.shape:
            wanted = f"{self._total.size} samples that count, as in the minibatches before"
            raise refusal(ValueError, op, wanted, loss.size)
        self._total = self._total + loss.astype(np.float64)
        self._count += 1
        if self.meta_learning_rate is not None:
            self._minibatches.append((batch.copy(), labels.copy(), minibatch[2]))
        return loss, paths

    def _is_plain(self) -> bool:
        """Tell whether a step needs nothing of Python between its losses and its update."""
        alone = self._sharing is None and self.classes is None and not self._listeners
        return alone and self.meta_learning_rate is None and self.replica == 0

    def _step_at_once(self, minibatch: Minibatch, mode: str) -> tuple[F32, I32]:
        self._start_over()
        loss, paths, degenerate = self._ready().train_step(*minibatch, mode)
        self._end_update()
        warn_if(degenerate, "step")
        return loss, paths

    def _losses(
        self, native: _core.Optimizer, minibatch: Minibatch, further: bool
    ) -> tuple[F32, I32]:
        if self._sharing is not None:
            if self.classes is not None:
                raise refusal(ValueError, "probe", "no classes with shared probes", self.classes)
            between = not further and native.replica == 0 and self._vendors_are_seeded()
            return self._sharing.losses(native, minibatch, further, between), native.paths
        if self.classes is None:
            return native.probe(*minibatch, further)
        self._refuse_other_plans("probe", "classes")
        return class_losses(native, *minibatch, self.classes, further)

    def _follow_vendors(self) -> None:
        """Drop losses of vendors that are gone: an interrupt can come before a call drops them."""
        present = (self._native.generation, self._native.replica)
        if present != self._counted_for:
            self._start_over()
            self._counted_for = present

    def _start_over(self) -> None:
        self._total = np.zeros(())
        self._count = 0
        self._minibatches = []

    def _end_update(self) -> None:
        self._draws = []
        self._start_over()

    def _drawn(self, losses: F32, paths: I32, mode: str, last: bool) -> list[Draw | list[F32]]:
        """Describe the draws of this update so far, the present one included, for a recorder."""
        if not self._listeners or (self.plan == "node" and not last):
            return []
        native = self._ready()
        if self.plan == "node":  # measured gradients follow from no seeds; summed over all replicas
            return [native.gather(losses, paths, mode)]
        earlier = self._draws[: native.replica]
        return [*earlier, describe_draw(native, native.coefficients(losses, paths, mode))]

    def _record(self, draws: list[Draw | list[F32]], mode: str, rates: F32) -> None:
        for listener in self._listeners:
            listener.step(draws, mode, rates)

    def _probe_again(self, native: _core.Optimizer) -> F32:
        """Run the minibatches of this update a second time: the line search's losses."""
        total: NDArray[np.float64] = np.zeros(())
        for index, minibatch in enumerate(self._minibatches):
            loss, _ = self._losses(native, minibatch, index > 0)
            total = total + loss.astype(np.float64)
        return (total / len(self._minibatches)).astype(np.float32)
