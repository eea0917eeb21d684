"""The engine that an optimizer asks for: its options at the door."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import _core
from ._arrays import describe, integer, refusal

_MOST_THREADS = 1024  # the engine's own limit
_MOST_BYTES = 2**63 - 1


def make_engine(
    op: str,
    device: str | Sequence[str],
    dtype: DTypeLike,
    threads: int | None,
    max_memory_bytes: int | None,
) -> _core.Engine:
    """Make an engine; what is not given is its to choose."""
    return _core.Engine(
        _devices(op, device),
        dtype_name(op, dtype),
        0 if threads is None else integer(threads, op, "threads", 1, _MOST_THREADS),
        0
        if max_memory_bytes is None
        else integer(max_memory_bytes, op, "max_memory_bytes", 1, _MOST_BYTES),
    )


def _devices(op: str, device: Any) -> str | list[str]:
    if isinstance(device, str):
        return device
    if not isinstance(device, Sequence) or not all(isinstance(name, str) for name in device):
        raise refusal(TypeError, op, "device as a name or a list of names", describe(device))
    return list(device)


def dtype_name(op: str, dtype: Any) -> str:
    """Give the name of a dtype: a string as it is, NumPy's by theirs."""
    if isinstance(dtype, str):
        return dtype
    try:
        if dtype is None:  # NumPy's default is none of the engine's
            raise TypeError
        name: str = np.dtype(dtype).name
        return name
    except TypeError:
        wanted = "dtype as a name or a NumPy dtype"
        raise refusal(TypeError, op, wanted, describe(dtype)) from None
