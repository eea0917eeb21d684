"""Checkpoints in the reference's layout: one safetensors tensor per array, and ``global_step``.

A file holds ``spec.{i}.{key}`` for every array of every spec and the scalar ``global_step``;
``Optimizer.save`` adds ``optimizer.*`` tensors and metadata, which this layout's readers pass over.
Writing never harms an older file: the new one is written beside it, flushed and renamed. Links are
followed, and an older file's permissions are kept.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import integer, refusal
from ._disk import FilePath as FilePath
from ._disk import write_atomic
from ._market import Spec, check_market

__all__ = ["load_checkpoint", "write_checkpoint"]

Tensors = dict[str, NDArray[Any]]
STEP_KEY = "global_step"
OPTIMIZER_PREFIX = "optimizer."


def write_checkpoint(marketplace: Sequence[Spec], global_step: int, path: FilePath) -> None:
    """Write a market's arrays and the step they belong to.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market.
    global_step : int
        Steps done so far.
    path : path-like
        Safetensors file to write or replace.

    Raises
    ------
    TypeError, ValueError
        For what is no market or step.
    OSError
        For a file that cannot be written; an older file at ``path`` is then untouched.
    """
    specs = check_market(marketplace, "write_checkpoint")
    step = integer(global_step, "write_checkpoint", STEP_KEY, 0)
    write_file(path, market_tensors(specs, step))


def load_checkpoint(marketplace: Sequence[Spec], path: FilePath) -> int:
    """Load a market's arrays from a file of ours or of the reference.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market; nothing changes unless the whole file fits it.
    path : path-like
        Safetensors file.

    Returns
    -------
    int
        The step that the file was written at.

    Raises
    ------
    FileNotFoundError, OSError
        For a file that is missing or cannot be read.
    ValueError
        For a file that is truncated, no checkpoint, or of another market; it names the file.
    """
    specs = check_market(marketplace, "load_checkpoint")
    tensors, _ = read_file(path)
    step = check_tensors(specs, tensors, path)
    load_tensors(specs, tensors)
    return step


def market_tensors(specs: Sequence[Spec], global_step: int) -> Tensors:
    """Give a checkpoint's tensors in the reference's layout."""
    tensors: Tensors = {
        f"spec.{index}.{key}": value
        for index, spec in enumerate(specs)
        for key, value in spec.model.state_dict().items()
    }
    return tensors | {STEP_KEY: np.array(global_step, dtype=np.int64)}


def check_tensors(specs: Sequence[Spec], tensors: Tensors, path: FilePath) -> int:
    """Check a file's tensors against a market, and give its step."""
    wanted = market_tensors(specs, 0)
    found = {key: value for key, value in tensors.items() if not key.startswith(OPTIMIZER_PREFIX)}
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unknown:
        received = f"missing {missing[:5]} and unknown {unknown[:5]}"
        raise _unfit(path, "the tensors of this market", received)
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise _unfit(path, f"{key} of shape {wanted[key].shape}", value.shape)
        if value.dtype.kind != "f" and wanted[key].dtype.kind == "f":
            raise _unfit(path, f"{key} of a floating dtype", value.dtype)
    step = found[STEP_KEY]
    if step.dtype.kind not in "iu" or int(step) < 0:
        raise _unfit(path, f"an integer {STEP_KEY} of at least 0", step)
    return int(step)


def load_tensors(specs: Sequence[Spec], tensors: Tensors) -> None:
    """Give a market the arrays of a file that ``check_tensors`` has passed."""
    for index, spec in enumerate(specs):
        prefix = f"spec.{index}."
        spec.model.load_state_dict({key: tensors[prefix + key] for key in spec.model.state_dict()})


def read_file(path: FilePath) -> tuple[Tensors, dict[str, str]]:
    """Read a safetensors file: its tensors and its metadata."""
    from safetensors import SafetensorError, safe_open

    with open(os.fspath(path), "rb"):  # a missing or unreadable file fails here, with its own error
        pass
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, TypeError, AttributeError) as error:
        raise _unfit(path, "a complete safetensors file", error) from error


def write_file(path: FilePath, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all."""
    from safetensors.numpy import save

    write_atomic(path, save(tensors, metadata=dict(metadata) if metadata else None))


def _unfit(path: FilePath, expected: str, received: object) -> ValueError:
    return refusal(ValueError, f"checkpoint {os.fspath(path)}", expected, received)
