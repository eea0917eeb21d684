"""What this build has, and what it can use on this machine."""

from typing import Any

from . import _core

__all__ = ["build_info", "devices"]


def build_info() -> dict[str, Any]:
    """Tell what was compiled.

    Returns
    -------
    dict
        ``version``; ``backends``, those that were compiled or found as plugins; ``plugins``, by
        kind of GPU, each with the ``path`` of its library, the ``problem`` that keeps it from use
        (both None where there is none) and ``unusable``, devices by name with the reason; ``isas``,
        the instruction sets that the CPU's kernels were compiled for, and ``isa``, the one in use;
        ``compiler``.
    """
    return _core.build_info()


def devices() -> list[dict[str, Any]]:
    """Tell what ``Optimizer(device=...)`` can name now.

    Returns
    -------
    list of dict
        The CPU and every GPU that can be used, each with ``name`` ("cpu", "cuda:0", ...), ``kind``
        ("cpu", "cuda", "hip"), ``description`` and ``threads``, those of the host that work for it.
    """
    return _core.devices()
