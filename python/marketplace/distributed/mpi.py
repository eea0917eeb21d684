"""Probes shared among the processes of an MPI job: one all-gather of losses per probe.

Every process runs the same program; nothing else in it changes::

    optimizer = make_optimizer()
    with mpi.share(optimizer):
        for step in range(1000):
            optimizer.train_step(*batches(step))

Start it with ``mpiexec -n 4 python program.py``.
"""

import atexit
import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from .. import _core
from .._arrays import F32, refusal
from .._sharing import Minibatch
from ..optimizers import Optimizer
from ._balance import Balance
from ._evaluate import evaluate
from ._gathered import Gathered, Head
from ._identity import check_plan, find_difference, identify, identify_state
from ._report import Report

__all__ = ["Ranks", "guard", "rank", "share"]

_OP = "mpi.share"
_PATIENCE = 1e-3  # seconds of asking again and again, leaving the core to others, before naps
_NAP = 5e-5
_LAST_WORDS = 1.0  # seconds
_ROLL_CALL = 5.0  # seconds in which ranks answer after a time-out


def share(
    optimizer: Optimizer,
    comm: Any = None,
    *,
    timeout: float = 300.0,
    check_every: int = 100,
) -> "Ranks":
    """Share an optimizer's probes with the same optimizer of all other ranks.

    Parameters
    ----------
    optimizer : Optimizer
        Made alike in every rank, from the same seed; plan "tree" or "star".
    comm : mpi4py.MPI.Comm, optional
        Whose ranks; all if not given.
    timeout : float
        Seconds to wait for the slowest rank.
    check_every : int
        Probes from one comparison of all ranks' weights to the next.

    Returns
    -------
    Ranks
        To be closed at the end, or used in a ``with`` statement, which is a ``guard`` too.

    Raises
    ------
    ModuleNotFoundError
        Without mpi4py.
    ValueError
        For another plan.
    RuntimeError
        For ranks that differ in version, market, options, seed or weights; it names one.
    TimeoutError
        For a rank that does not answer; it names the rank.
    """
    return Ranks(optimizer, comm, timeout, check_every)


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Let a rank that fails within the context end the whole job when it exits.

    An ordinary exit waits for the other ranks, who wait for this one.
    """
    mpi = _import_mpi()
    try:
        yield
    except BaseException:
        _abort_at_exit(mpi)
        raise


def rank() -> int:
    """Give this process's number in its MPI job."""
    return int(_import_mpi().COMM_WORLD.Get_rank())


class Ranks:
    """The ranks that share an optimizer's probes; see ``share``.

    Attributes
    ----------
    rank, size : int
        This process's number, and how many there are.
    probes, bytes_sent : int
        Probes so far, and bytes that this rank has handed to their all-gathers.
    """

    def __init__(self, optimizer: Optimizer, comm: Any, timeout: float, check_every: int) -> None:
        """Compare the ranks and begin to share; see ``share``."""
        check_plan(optimizer, _OP)
        self._mpi = _import_mpi()
        self._comm = (self._mpi.COMM_WORLD if comm is None else comm).Dup()
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self.probes = self.bytes_sent = 0
        self._optimizer = optimizer
        self._timeout, self._check_every = timeout, check_every
        self._balance = Balance()
        self._bounds: list[int] = []
        self._names = [f"rank {rank}" for rank in range(self.size)]
        self._names = self._all_texts(f"rank {self.rank} ({self._mpi.Get_processor_name()})")
        with guard():
            self._compare_identities()
        optimizer._sharing = self

    def close(self) -> None:
        """Stop sharing."""
        if self._optimizer._sharing is self:
            self._optimizer._sharing = None
            self._comm.Free()

    def __enter__(self) -> "Ranks":
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; or end the job at this process's exit, so that no rank waits for it."""
        if error is None:
            self.close()
        else:
            _abort_at_exit(self._mpi)

    # -- what the optimizer calls ------------------------------------------------------------------

    def losses(
        self, native: _core.Optimizer, minibatch: Minibatch, further: bool, between: bool
    ) -> F32:
        """Evaluate this rank's share; gather those of all."""
        self._share_out(native, minibatch)
        report, error = self._evaluate(native, minibatch, further)
        heads = self._all_heads(report)
        if any(head.failed for head in heads):
            self._raise_failures(heads, error)
        self._compare(heads)
        for rank, head in enumerate(heads):
            self._balance.note(rank, head.seconds)
        self.probes += 1
        return self._gathered.losses(native.path_order)

    # -- inside ------------------------------------------------------------------------------------

    def _share_out(self, native: _core.Optimizer, minibatch: Minibatch) -> None:
        """Find out who evaluates what; make room for it where that has changed."""
        bounds = self._balance.cut(native, minibatch[0].shape[1:], range(self.size))
        if bounds is not self._bounds:
            self._bounds, self._gathered = bounds, Gathered(bounds)

    def _evaluate(
        self, native: _core.Optimizer, minibatch: Minibatch, further: bool
    ) -> tuple[Report, Exception | None]:
        """Evaluate the share; an error is no reason to keep the others waiting."""
        first, last = self._bounds[self.rank : self.rank + 2]
        check = self.probes % self._check_every == 0
        try:
            native.probe_leader(*minibatch, further)
            return evaluate(self._optimizer, minibatch, first, last, check), None
        except Exception as error:
            step = self._optimizer.global_step
            return Report(0.0, step, 0, np.zeros(last - first, np.float32), failed=True), error

    def _all_heads(self, report: Report) -> list[Head]:
        """Gather the reports of all ranks."""
        room, byte = self._gathered, self._mpi.BYTE
        room.put(report)
        self.bytes_sent += len(room.mine)
        self._wait(self._comm.Iallgather([room.mine, byte], [room.all, len(room.mine), byte]))
        return room.heads()

    def _all_bytes(self, message: bytes, counts: list[int]) -> list[memoryview]:
        """Gather every rank's message, their lengths being known."""
        received = memoryview(bytearray(sum(counts)))
        byte = self._mpi.BYTE
        self._wait(self._comm.Iallgatherv([message, byte], [received, (counts, None), byte]))
        ends = itertools.accumulate(counts)
        return [received[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _all_texts(self, text: str) -> list[str]:
        message = text.encode()
        lengths = self._all_bytes(np.int64(len(message)).tobytes(), [8] * self.size)
        counts = [int(np.frombuffer(length, np.int64)[0]) for length in lengths]
        return [bytes(data).decode() for data in self._all_bytes(message, counts)]

    def _wait(self, request: Any) -> None:
        start = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - start
            if waited > self._timeout:
                raise self._lost()
            if waited < _PATIENCE:
                os.sched_yield()  # with more ranks than cores, to the rank that is waited for
            else:
                time.sleep(_NAP)

    def _lost(self) -> TimeoutError:
        """Find out who does not answer: all who do wait here for the same, and say so."""
        _abort_at_exit(self._mpi)  # what was begun cannot be ended
        others = [rank for rank in range(self.size) if rank != self.rank]
        received = {rank: bytearray(1) for rank in others}
        calls = [self._comm.Isend([b"!", self._mpi.BYTE], dest=rank) for rank in others]
        answers = {
            rank: self._comm.Irecv([received[rank], self._mpi.BYTE], source=rank) for rank in others
        }
        end = time.monotonic() + _ROLL_CALL
        while answers and time.monotonic() < end:
            answers = {rank: request for rank, request in answers.items() if not request.Test()}
            time.sleep(0.01)
        self._unfinished = calls, received, answers  # in use until the process ends
        missing = ", ".join(self._names[rank] for rank in answers) or "ranks that were late"
        wanted = f"every rank within {self._timeout:g} s"
        return refusal(TimeoutError, _OP, wanted, f"nothing from {missing}")

    def _raise_failures(self, heads: list[Head], error: Exception | None) -> None:
        failed = [rank for rank, head in enumerate(heads) if head.failed]
        texts = self._all_texts("" if error is None else f"{type(error).__name__}: {error}")
        if error is not None and len(failed) == self.size:
            raise error
        what = "; ".join(f"{texts[rank]} from {self._names[rank]}" for rank in failed)
        raise refusal(RuntimeError, _OP, "losses from every rank", what) from error

    def _compare_identities(self) -> None:
        mine = identify(self._optimizer) | identify_state(self._optimizer)
        texts = self._all_texts("\n".join(f"{key}={value}" for key, value in mine.items()))
        identities = [dict(line.split("=", 1) for line in text.split("\n")) for text in texts]
        for rank, identity in enumerate(identities):
            if (difference := find_difference(identities[0], identity)) is not None:
                key, wanted, received = difference
                expected = f"{key} {wanted}, as in {self._names[0]}"
                raise refusal(RuntimeError, _OP, expected, f"{received} in {self._names[rank]}")

    def _compare(self, heads: list[Head]) -> None:
        """Name the ranks whose steps, or weights, are not those of most."""
        states = [(head.step, head.checksum) for head in heads]
        if len(set(states)) == 1:
            return
        # of equally frequent ones, the one that comes first
        usual, _ = Counter(states).most_common(1)[0]
        for rank, state in enumerate(states):
            if state != usual:
                wanted = f"{_describe(usual)}, as in most ranks"
                received = f"{_describe(state)} from {self._names[rank]}"
                raise refusal(RuntimeError, _OP, wanted, received)


def _describe(state: tuple[int, int]) -> str:
    step, checksum = state
    return f"step {step}" + (f" and weights with checksum {checksum:08x}" if checksum else "")


def _abort_at_exit(mpi: Any) -> None:
    atexit.register(_abort, mpi)


def _abort(mpi: Any) -> None:
    """End the job, after mpiexec had time to pass on why: other ranks' output is cut off."""
    time.sleep(_LAST_WORDS)
    mpi.COMM_WORLD.Abort(1)


def _import_mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        wanted = "mpi4py and an MPI library (pip install 'marketplace[mpi]')"
        raise refusal(ModuleNotFoundError, _OP, wanted, error) from error
    return MPI
