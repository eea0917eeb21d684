"""Messages between processes of one machine through memory that they share, without tasks.

In a channel nobody but the two takes part; a task goes through Ray's own processes and threads and
costs several times as much.
"""

import time
from collections.abc import Callable
from typing import Any

from ._ray_connect import import_ray

_LOOK = 0.1  # seconds from one look at whether the worker lives to the next


def node_id() -> str:
    """Name the machine, as Ray does."""
    return str(import_ray().get_runtime_context().get_node_id())


def is_far() -> bool:
    """Tell whether this process is none of the cluster's own, but connected by "ray://"."""
    from ray.util.client import ray as client

    return bool(client.is_connected())


def make_answers(size: int) -> Any:
    """Make a channel from this worker to the driver, on the same machine."""
    from ray.experimental.channel import Channel

    me = import_ray().get_runtime_context().current_actor
    return Channel(me, [(me, node_id())], size)  # readers on this machine are only counted


class Link:
    """The two channels between this process and a worker that serves them.

    Parameters
    ----------
    ray : module
        Ray.
    actor : actor handle
        The worker.
    size : int
        Bytes that a message may have, with some hundred for Ray.
    timeout : float
        Seconds to wait for the worker.

    Raises
    ------
    Exception
        Of Ray, where it cannot be made, or for a worker that has died.
    """

    def __init__(self, ray: Any, actor: Any, size: int, timeout: float) -> None:
        from ray.experimental.channel import Channel

        self._ray = ray
        self._requests = Channel(None, [(actor, node_id())], size)
        self._answers = ray.get(actor.open.remote(size), timeout=timeout)
        # at once: what a worker has made goes with it unless others hold it, and Ray does not
        # survive the attempt to hold what has gone
        self._answers.ensure_registered_as_reader()
        self._serving = actor.serve.remote(self._requests)

    def send(self, message: bytes, end: float) -> None:
        """Send a request, the one before having been answered; raises as ``receive``."""
        self._patiently(lambda wait: self._requests.write(message, wait), end)

    def receive(self, end: float) -> bytes:
        """Wait for the answer until a time of ``time.monotonic``.

        Raises
        ------
        ray.exceptions.RayError
            What the worker's program ended with, or how the worker died; ``GetTimeoutError`` if
            there is no answer.
        """
        return bytes(self._patiently(self._answers.read, end))

    def _patiently(self, transfer: Callable[[float], Any], end: float) -> Any:
        """Try again and again, as long as the worker lives."""
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return transfer(min(left, _LOOK))
            except self._ray.exceptions.RayChannelTimeoutError as error:
                if self._ray.wait([self._serving], timeout=0)[0]:
                    self._ray.get(self._serving)
                if left == 0:
                    raise self._ray.exceptions.GetTimeoutError("no answer") from error
