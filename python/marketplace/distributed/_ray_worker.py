"""What runs in a Ray actor, and the bytes that it is asked with: nine, and four a path."""

import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _state
from .._arrays import F32
from ..optimizers import Optimizer
from ._follower import Follower, Step
from ._history import Point, Present, catch_up, point_of
from ._identity import Identity, identify
from ._ray_channel import make_answers, node_id

_HEAD = struct.Struct("<II?")


@dataclass(frozen=True)
class Request:
    """What a worker is to do for one probe.

    Attributes
    ----------
    first, last : int
        The share: paths in depth-first order.
    check : bool
        Whether to tell the weights' checksum.
    answer : float32 array (P,) or None
        Losses of all paths of the probe before, in the plan's order; None for a worker that is at
        the probe already.
    """

    first: int
    last: int
    check: bool
    answer: F32 | None

    def to_bytes(self) -> bytes:
        """Give the message."""
        head = _HEAD.pack(self.first, self.last, self.check)
        return head if self.answer is None else head + self.answer.astype("<f4").tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> "Request":
        """Read a message."""
        losses = np.frombuffer(data, dtype="<f4", offset=_HEAD.size).astype(np.float32)
        first, last, check = _HEAD.unpack_from(data)
        return Request(first, last, check, losses if losses.size else None)


@dataclass(frozen=True)
class Hello:
    """A worker's first words: where it is, and what it has made."""

    place: str
    node: str
    identity: Identity
    point: Point


def stay(seat: int, threads: int) -> None:
    """Keep this process on ``threads`` cores, the next ones for every seat."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    mine = {cores[(seat * threads + thread) % len(cores)] for thread in range(threads)}
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(int(task), mine)


class RayWorker:
    """Holds a market and its optimizer, follows the program, evaluates shares."""

    def __init__(self, make_optimizer: Callable[[], Optimizer], step: Step) -> None:
        self._make_optimizer, self._step = make_optimizer, step

    def hello(self) -> Hello:
        """Make the optimizer; tell where this is, and what was made.

        Not done on construction: errors of this call arrive as what they are.
        """
        self._optimizer = self._make_optimizer()
        place = f"pid {os.getpid()} at {socket.gethostname()}"
        return Hello(place, node_id(), identify(self._optimizer), point_of(self._optimizer))

    def keep_to_cores(self, seat: int) -> None:
        """Keep all threads on as many cores as compute; see ``stay``."""
        stay(seat, self._optimizer.threads)

    def join(self, message: bytes, present: Present | None, checkpoint: bytes | None) -> bytes:
        """Take over the run's present state, begin to follow, and evaluate a share.

        The state is that of the checkpoint, or of this worker's own optimizer where there is none,
        and the steps since.
        """
        if checkpoint is not None:
            set_state(self._optimizer, checkpoint)
        if present is not None:
            catch_up(self._optimizer, present)
        self._follower = Follower(self._optimizer, self._step)
        self._follower.advance(None)
        return self.answer(message)

    def answer(self, message: bytes) -> bytes:
        """Evaluate a share of the present probe, or of the next one, once the present is known."""
        request = Request.from_bytes(message)
        if request.answer is not None:
            self._follower.advance(request.answer)
        return self._follower.evaluate(request.first, request.last, request.check).to_bytes()

    def open(self, size: int) -> Any:
        """Make the channel that ``serve`` answers through."""
        self._channel = make_answers(size)
        return self._channel

    def serve(self, requests: Any) -> None:
        """Answer one request after another, each as soon as it is in the channel, for ever."""
        while True:
            self._channel.write(self.answer(requests.read()))


def get_state(optimizer: Optimizer) -> bytes:
    """Give what ``Optimizer.save`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        optimizer.save(path)
        return path.read_bytes()


def set_state(optimizer: Optimizer, state: bytes) -> None:
    """Take what ``get_state`` gave into an optimizer of the same options."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        path.write_bytes(state)
        _state.restore(optimizer, path)
