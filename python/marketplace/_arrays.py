"""Checks at the door: what callers hand in becomes plain, contiguous, host NumPy arrays.

Every error names the operation, what it expected and what it received.
"""

import functools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _core

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
IntPair = int | Sequence[int]

UINT64_RANGE = 2**64
_LARGEST_EXTENT = 2**63 - 1
_HOST_DEVICES = (1, 3, 11)  # DLPack: CPU, CUDA pinned host, ROCm pinned host

_Error = TypeVar("_Error", bound=Exception)


def refusal(kind: type[_Error], op: str, expected: str, received: object) -> _Error:
    """Build the error of one refused argument in the project's one form."""
    return kind(f"{op}: expected {expected}, received {received}")


@functools.lru_cache(maxsize=1)
def default_engine() -> _core.Engine:
    """Give the engine of everything that names no device: "auto", float32, every core."""
    return _core.Engine()


def to_array(value: Any, op: str, name: str) -> NDArray[Any]:
    """Give a base-class NumPy view of an array, a nested sequence or a DLPack host array."""
    if not isinstance(value, np.ndarray):
        value = _from_protocol(value, op, name)
    try:
        array = np.asarray(value)
    except ValueError:  # nested sequences of different lengths
        wanted = f"{name} as an array of numbers"
        raise refusal(ValueError, op, wanted, "rows of different lengths") from None
    if array.dtype == object:
        received = f"{type(value).__name__} of dtype object"
        raise refusal(TypeError, op, f"{name} as an array of numbers", received)
    return array


def _from_protocol(value: Any, op: str, name: str) -> Any:
    if hasattr(value, "__dlpack_device__"):
        device = int(value.__dlpack_device__()[0])
        if device not in _HOST_DEVICES:
            where = f"an array on DLPack device type {device}"
            raise refusal(TypeError, op, f"{name} in host memory", where)
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError) as error:  # types that NumPy lacks, gradients wanted
            received = f"{type(value).__name__} ({error})"
            raise refusal(TypeError, op, f"{name} as an array that NumPy reads", received) from None
    if hasattr(value, "__cuda_array_interface__"):
        raise refusal(TypeError, op, f"{name} in host memory", "an array in GPU memory")
    return value


def market_input(value: Any, op: str) -> NDArray[Any]:
    """Give market data: uint8, or any other real array as float32; at least one axis, contiguous.

    What is too large for float32 becomes infinite, which the engine refuses.
    """
    array = to_array(value, op, "x")
    if array.dtype.kind not in "fiub":
        raise refusal(TypeError, op, "x of a real dtype", array.dtype)
    if array.ndim < 1:
        raise refusal(ValueError, op, "x of shape (B, ...)", array.shape)
    with np.errstate(over="ignore"):
        kept = array.dtype == np.uint8
        return np.ascontiguousarray(array, dtype=np.uint8 if kept else np.float32)


def float_input(value: Any, op: str, name: str = "x") -> F32:
    """Give any real array as contiguous float32; the shape stays, 0-d included."""
    array = to_array(value, op, name)
    if array.dtype.kind not in "fiub":
        raise refusal(TypeError, op, f"{name} of a real dtype", array.dtype)
    with np.errstate(over="ignore"):
        values = np.asarray(array, dtype=np.float32, order="C")
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        lost = np.isinf(values) & np.isfinite(array)
        if lost.any():
            raise refusal(ValueError, op, f"{name} within float32", array[lost].flat[0])
    return values


def int32_input(value: Any, op: str, name: str) -> I32:
    """Give an integer array as int32, refusing values that would wrap around."""
    array = to_array(value, op, name)
    if array.dtype.kind not in "iu":
        raise refusal(TypeError, op, f"{name} of an integer dtype", array.dtype)
    if array.dtype != np.int32:
        limits = np.iinfo(np.int32)
        outside = (array < limits.min) | (array > limits.max)
        if outside.any():
            raise refusal(ValueError, op, f"{name} within int32", array[outside].flat[0])
    return np.ascontiguousarray(array, dtype=np.int32).reshape(array.shape)


def ignored_input(value: Any, op: str) -> int | None:
    """Give the label that does not count, if there is one."""
    limits = np.iinfo(np.int32)
    return None if value is None else integer(value, op, "ignore_index", limits.min, limits.max)


def labels_input(value: Any, op: str, batch: int) -> I32:
    """Give labels ``(B,)``; the engine checks their range against the classes."""
    labels = int32_input(value, op, "y")
    if labels.shape != (batch,):
        raise refusal(ValueError, op, f"y of shape ({batch},)", labels.shape)
    return labels


def paths_input(value: Any, op: str, depth: int | None = None, rows: int | None = None) -> I32:
    """Give paths ``(P, S)``, one vendor index per spec; the engine checks their range."""
    paths = int32_input(value, op, "paths")
    wanted = (rows, depth)
    if paths.ndim != 2 or any(n not in (None, m) for n, m in zip(wanted, paths.shape, strict=True)):
        shape = f"({'P' if rows is None else rows}, {'S' if depth is None else depth})"
        raise refusal(ValueError, op, f"paths of shape {shape}", paths.shape)
    return paths


def path_input(value: Any, op: str, vendor_counts: Sequence[int]) -> list[int]:
    """Give one path ``(S,)`` with every vendor index within its spec."""
    path = int32_input(value, op, "a path")
    if path.shape != (len(vendor_counts),):
        raise refusal(ValueError, op, f"a path of shape ({len(vendor_counts)},)", path.shape)
    vendors = [int(vendor) for vendor in path]
    for spec, (vendor, count) in enumerate(zip(vendors, vendor_counts, strict=True)):
        if not 0 <= vendor < count:
            raise refusal(ValueError, op, f"a vendor of spec {spec} below {count}", vendor)
    return vendors


def integer(value: Any, op: str, name: str, minimum: int, maximum: int | None = None) -> int:
    """Give an integer from ``minimum`` to ``maximum``; booleans and floats are no integers."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise refusal(TypeError, op, f"{name} as an integer", describe(value)) from None
    if number < minimum:
        raise refusal(ValueError, op, f"{name} of at least {minimum}", number)
    if maximum is not None and number > maximum:
        raise refusal(ValueError, op, f"{name} of at most {maximum}", number)
    return number


def axis_input(value: Any, op: str) -> int:
    """Give an axis, negative from the end; which ones there are, the array knows."""
    return integer(value, op, "an axis", -_LARGEST_EXTENT, _LARGEST_EXTENT)


def word(value: Any, op: str, name: str) -> str:
    """Give the name of a choice; which ones there are, the engine knows."""
    if not isinstance(value, str):
        raise refusal(TypeError, op, f"{name} as a string", describe(value))
    return value


def listed(value: Any, op: str, expected: str) -> list[Any]:
    """Give the items of a sequence, refusing what has none."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(TypeError, op, expected, describe(value))
    return list(value)


def shape_input(value: Any, op: str, name: str) -> tuple[int, ...]:
    """Give a shape, every extent at least 1."""
    extents = listed(value, op, f"{name} as a sequence of integers")
    return tuple(integer(extent, op, name, 1, _LARGEST_EXTENT) for extent in extents)


def seed_input(value: Any, op: str, name: str = "seed") -> int:
    """Give a seed: an integer in [0, 2**64)."""
    seed = integer(value, op, name, 0)
    if seed >= UINT64_RANGE:
        raise refusal(ValueError, op, f"{name} below 2**64", seed)
    return seed


def seeds_input(value: Any, op: str, name: str) -> NDArray[np.uint64]:
    """Give a spec's seeds ``(V,)`` as uint64."""
    array = to_array(value, op, name)
    if array.dtype.kind not in "iu":
        raise refusal(TypeError, op, f"{name} of an integer dtype", array.dtype)
    if array.ndim != 1:
        raise refusal(ValueError, op, f"{name} of shape (V,)", array.shape)
    if array.dtype.kind == "i" and (array < 0).any():
        raise refusal(ValueError, op, f"{name} of at least 0", array.min())
    return np.ascontiguousarray(array, dtype=np.uint64)


def pair(value: Any, op: str, name: str, minimum: int) -> tuple[int, int]:
    """Give (height, width) from one integer or two."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        if len(value) != 2:
            raise refusal(ValueError, op, f"{name} as an integer or a pair", value)
        first, second = (integer(one, op, name, minimum, _LARGEST_EXTENT) for one in value)
        return (first, second)
    both = integer(value, op, name, minimum, _LARGEST_EXTENT)
    return (both, both)


def finite(value: Any, op: str, name: str) -> float:
    """Give a finite number, from a number or a 0-d array."""
    try:
        if not isinstance(value, float) and (isinstance(value, str) or np.ndim(value) != 0):
            raise TypeError
        number = float(value)
    except TypeError:
        raise refusal(TypeError, op, f"{name} as a number", describe(value)) from None
    if not math.isfinite(number):
        raise refusal(ValueError, op, f"{name} as a finite number", number)
    return number


def scalar(value: Any, op: str, name: str) -> float:
    """Give a finite number of at least 0, from a number or a 0-d array."""
    number = finite(value, op, name)
    if number < 0:
        raise refusal(ValueError, op, f"{name} of at least 0", number)
    return number


_Array = TypeVar("_Array", bound=NDArray[Any])


def read_only(copy: _Array) -> _Array:
    """Close a copy that is shown as an attribute: what is written into it would be lost."""
    copy.flags.writeable = False
    return copy


def describe(value: Any) -> str:
    """Say what a refused value is."""
    shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else f" {value!r}"
    return type(value).__name__ + shape
