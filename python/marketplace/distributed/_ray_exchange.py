"""The driver's messages to its workers, and their answers."""

import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from ._history import Point
from ._ray_channel import Link, is_far, node_id
from ._ray_connect import OP
from ._ray_worker import Request

_ROOM = 4096  # bytes of a channel beside the losses


@dataclass(eq=False)
class Worker:
    """An actor, as the driver knows it."""

    number: int
    actor: Any
    hello: Any  # the answer to come
    place: str = "starting"
    node: str = ""
    point: Point | None = None  # where it begins
    seat: int = -1  # among its machine's workers, where they keep to cores
    useful: bool = False  # has evaluated something
    link: Link | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Who it is, for people."""
        return f"worker {self.number} ({self.place})"


@dataclass(eq=False)
class Asked:
    """A share that a worker was asked for."""

    worker: Worker
    first: int
    last: int
    task: Any = field(default=None, repr=False)  # that answers; None if the worker's channel does
    error: Exception | None = None  # why it could not be asked


@dataclass(frozen=True)
class Answer:
    """What came of it: a message, or the error instead."""

    asked: Asked
    message: bytes | None
    error: Exception | None = None


class Exchange:
    """Asks workers: on this machine through channels, elsewhere each by a task.

    Attributes
    ----------
    bytes_sent, bytes_received : int
        Of all messages to and from workers.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.bytes_sent = self.bytes_received = 0
        self._asked: list[Asked] = []
        self._node = None if is_far() else node_id()

    @property
    def pending(self) -> bool:
        """Whether there are answers to collect."""
        return bool(self._asked)

    def join(self, worker: Worker, request: Request, *state: Any) -> None:
        """Let a worker take over a state, and begin."""
        message = request.to_bytes()
        self.bytes_sent += len(message)
        task = worker.actor.join.remote(message, *state)
        self._asked.append(Asked(worker, request.first, request.last, task))

    def ask(self, worker: Worker, request: Request, timeout: float) -> None:
        """Ask a worker for a share."""
        message = request.to_bytes()
        self.bytes_sent += len(message)
        asked = Asked(worker, request.first, request.last)
        self._asked.append(asked)
        if worker.link is None:
            asked.task = worker.actor.answer.remote(message)
            return
        try:
            worker.link.send(message, time.monotonic() + timeout)
        except self._ray.exceptions.RayError as error:
            asked.error = error

    def collect(self, timeout: float) -> list[Answer]:
        """Wait for all answers; a worker that does not give its in time is ended."""
        end = time.monotonic() + timeout
        asked, self._asked = self._asked, []
        answers = [self._answer_of(each, end) for each in asked]
        self.bytes_received += sum(len(each.message or b"") for each in answers)
        return answers

    def link(self, worker: Worker, path_count: int, timeout: float) -> None:
        """Open channels to a worker that has joined, if it is on this machine."""
        if worker.link is not None or worker.node != self._node:
            return
        try:
            worker.link = Link(self._ray, worker.actor, 4 * path_count + _ROOM, timeout)
        except self._ray.exceptions.RayActorError:
            pass  # who has died is found when asked
        except Exception as error:
            text = f"{OP}: {worker.name} is asked by tasks, without channels: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        if worker.link is None:
            worker.node = ""  # as if it were on another machine

    def forget(self) -> None:
        """Wait for nothing any more."""
        self._asked = []

    def _answer_of(self, asked: Asked, end: float) -> Answer:
        try:
            return Answer(asked, self._wait_for(asked, end))
        except self._ray.exceptions.GetTimeoutError as error:
            self._ray.kill(asked.worker.actor)
            return Answer(asked, None, error)
        except self._ray.exceptions.RayError as error:
            return Answer(asked, None, error)

    def _wait_for(self, asked: Asked, end: float) -> bytes:
        if asked.error is not None:
            raise asked.error
        if asked.task is None and asked.worker.link is not None:
            return asked.worker.link.receive(end)
        return bytes(self._ray.get(asked.task, timeout=max(0.0, end - time.monotonic())))
