"""What stands between an optimizer and the losses that other processes compute for it."""

from typing import Any, Protocol

from . import _core
from ._arrays import F32

Minibatch = tuple[Any, Any, int | None]  # x, labels, ignore_index; NumPy arrays where shared


class Sharing(Protocol):
    """Evaluates the paths of a probe together with other processes."""

    def losses(
        self, native: _core.Optimizer, minibatch: Minibatch, further: bool, between: bool
    ) -> F32:
        """Give the losses (P,) of every path of the plan, as ``native.probe`` would.

        ``between``: no update is under way, so the optimizer could be saved.
        """
