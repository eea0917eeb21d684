"""Evaluating a share, and putting the shares of all workers together."""

import time
from collections.abc import Sequence

import numpy as np

from .. import _core
from .._arrays import F32
from .._sharing import Minibatch
from ..optimizers import Optimizer
from ._identity import checksum
from ._report import Report


def evaluate(
    optimizer: Optimizer, minibatch: Minibatch, first: int, last: int, check: bool
) -> Report:
    """Evaluate some paths, in depth-first order, of the probe that the optimizer is at."""
    native = optimizer._native
    start = time.perf_counter()
    losses = native.probe_share(*minibatch, first, last)
    seconds = time.perf_counter() - start
    present = checksum(optimizer) if check else 0
    return Report(seconds, optimizer.global_step, present, losses)


def in_path_order(native: _core.Optimizer, parts: Sequence[F32]) -> F32:
    """Give the losses of all shares in the order of the plan's paths."""
    order = native.path_order
    losses = np.empty(order.size, dtype=np.float32)
    losses[order] = np.concatenate(parts)
    return losses
