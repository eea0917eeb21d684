"""Counter-based random numbers: a value is a pure function of (seed, counter, index).

Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
the uint64 seed as its key. The same bits come out on every device and for any number of threads.

The functions that take no seed draw from one generator of this module: layers their initial values,
``mutate`` and ``Optimizer`` their master seeds. ``manual_seed`` makes all of them repeatable.
"""

import math
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _core
from ._arrays import UINT64_RANGE, finite, integer, refusal, seed_input, to_array

__all__ = [
    "RandomNumberGenerator",
    "counter_advance",
    "counter_advance_for",
    "manual_seed",
    "rand",
    "randint",
    "uniform",
]

_COUNTER_RANGE = 2**32
_MANTISSA_BITS = 23  # random bits of one float32 in [0, 1)


def _float_dtype(dtype: DTypeLike, op: str) -> np.dtype[Any]:
    resolved = np.dtype(dtype)
    if resolved not in (np.float32, np.float16):
        raise refusal(TypeError, op, "dtype float32 or float16", resolved)
    return resolved


def _extents(shape: tuple[Any, ...], op: str) -> tuple[int, ...]:
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    return tuple(integer(extent, op, "an extent", 0) for extent in shape)


def counter_advance(*shape: int, dtype: DTypeLike = np.float32) -> int:
    """Count the 32-bit words that random numbers of a shape use up.

    Parameters
    ----------
    *shape : int
        Extents of the array; none for a scalar.
    dtype : dtype, default float32
        float32 or float16; two float16 numbers share a word.

    Returns
    -------
    int
        ``ceil(number of elements * itemsize / 4)``.

    Raises
    ------
    TypeError
        For another dtype, or an extent that is no integer.
    ValueError
        For a negative extent.
    """
    itemsize = _float_dtype(dtype, "counter_advance").itemsize
    return -(-math.prod(_extents(shape, "counter_advance")) * itemsize // 4)


def counter_advance_for(target: NDArray[Any]) -> int:
    """Count the words that random numbers of ``target``'s shape and dtype use up."""
    return counter_advance(*target.shape, dtype=target.dtype)


def rand(*shape: int, seed: int, counter: int = 0, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Draw uniform numbers in [0, 1).

    Parameters
    ----------
    *shape : int
        Extents of the result; none for a scalar (a 0-d array).
    seed : int
        Key in [0, 2**64); also a 0-d integer array.
    counter : int, default 0
        First counter word; counters wrap around at 2**32.
    dtype : dtype, default float32
        float32 (23 random bits) or float16 (10 random bits).

    Returns
    -------
    ndarray
        Numbers of the shape and dtype asked for.

    Raises
    ------
    TypeError
        For another dtype, or a seed, counter or extent that is no integer.
    ValueError
        For a negative extent or counter, or a seed outside uint64.
    """
    resolved = _float_dtype(dtype, "rand")
    extents = _extents(shape, "rand")
    draw = _core.rand_float32 if resolved == np.float32 else _core.rand_float16
    start = integer(counter, "rand", "counter", 0) % _COUNTER_RANGE
    count = math.prod(extents)
    if count >= 2**60:
        raise refusal(ValueError, "rand", "a shape of fewer than 2**60 numbers", extents)
    key = seed_input(seed, "rand")
    try:
        return draw(key, start, count).reshape(extents)
    except MemoryError:
        wanted = f"memory for {count} numbers"
        raise refusal(MemoryError, "rand", wanted, "less than that") from None


class RandomNumberGenerator:
    """A stream of random numbers: a seed and the counter of its next word.

    Parameters
    ----------
    seed : int
        Key in [0, 2**64); also a 0-d integer array.
    counter : int, default 0
        First counter word, taken modulo 2**32.

    Attributes
    ----------
    seed, counter : int
        The key, and where the next draw starts.

    Raises
    ------
    TypeError, ValueError
        As ``rand``.
    """

    def __init__(self, seed: int, counter: int = 0) -> None:
        self.seed = seed_input(seed, "RandomNumberGenerator")
        first = integer(counter, "RandomNumberGenerator", "counter", 0)
        self.counter = first % _COUNTER_RANGE

    def __repr__(self) -> str:
        """Give the stream as it could be written."""
        return f"RandomNumberGenerator({self.seed}, counter={self.counter})"

    def rand(self, *shape: int, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Draw uniform numbers in [0, 1), as ``marketplace.random.rand``, and move on."""
        numbers = rand(*shape, seed=self.seed, counter=self.counter, dtype=dtype)
        self.counter = (self.counter + counter_advance_for(numbers)) % _COUNTER_RANGE
        return numbers

    def uniform(
        self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Draw ``(high - low) * u + low`` with ``u`` uniform float32 numbers in [0, 1).

        Parameters
        ----------
        *shape : int
            Extents of the result.
        low, high : float
            Ends of the interval.
        dtype : dtype, default float32
            float32 or float16; the product is rounded to it before ``low`` is added.

        Returns
        -------
        ndarray
            Numbers of the shape and dtype asked for.

        Raises
        ------
        TypeError, ValueError
            As ``rand``, and for ends that are no finite numbers.
        """
        resolved = _float_dtype(dtype, "uniform")
        first, last = finite(low, "uniform", "low"), finite(high, "uniform", "high")
        scaled = np.float32(last - first) * self.rand(*shape)
        return np.asarray(scaled.astype(resolved) + resolved.type(first))

    def uniform_like(
        self, target: NDArray[Any], low: float = 0.0, high: float = 1.0
    ) -> NDArray[Any]:
        """Draw ``uniform`` numbers of ``target``'s shape and dtype."""
        array = to_array(target, "uniform_like", "target")
        return self.uniform(*array.shape, low=low, high=high, dtype=array.dtype)

    def randint(
        self, *shape: int, low: int = 0, high: int = 10, dtype: DTypeLike = np.int32
    ) -> NDArray[Any]:
        """Draw integers in [low, high).

        Each takes 46 random bits from two words, so an interval may be up to 2**46 wide.

        Parameters
        ----------
        *shape : int
            Extents of the result.
        low, high : int
            First integer, and the one behind the last.
        dtype : dtype, default int32
            Integer dtype that holds them.

        Returns
        -------
        ndarray
            Integers of the shape and dtype asked for.

        Raises
        ------
        TypeError
            For a dtype that is not integer.
        ValueError
            For an empty or too wide interval, or one that the dtype does not hold.
        """
        resolved = _integer_dtype(dtype, low, high)
        extents = _extents(shape, "randint")
        words = np.float64(self.rand(2, *extents))
        fraction = words[0] + words[1] * 2.0**-_MANTISSA_BITS
        return np.asarray((fraction * (high - low)).astype(np.int64) + low, dtype=resolved)

    def seed64(self) -> int:
        """Draw one integer in [0, 2**64), to be the seed of something else."""
        words = (int(word * 2**_MANTISSA_BITS) for word in self.rand(3).tolist())
        number = 0
        for word in words:
            number = number << _MANTISSA_BITS | word
        return number % UINT64_RANGE


def _integer_dtype(dtype: DTypeLike, low: int, high: int) -> np.dtype[Any]:
    resolved = np.dtype(dtype)
    if resolved.kind not in "iu":
        raise refusal(TypeError, "randint", "an integer dtype", resolved)
    if not low < high <= low + 2 ** (2 * _MANTISSA_BITS):
        raise refusal(ValueError, "randint", "low < high <= low + 2**46", f"[{low}, {high})")
    limits = np.iinfo(resolved)
    if low < limits.min or high - 1 > min(limits.max, np.iinfo(np.int64).max):
        raise refusal(ValueError, "randint", f"an interval within {resolved}", f"[{low}, {high})")
    return resolved


_generator = RandomNumberGenerator(int.from_bytes(os.urandom(8), "little"))


def generator() -> RandomNumberGenerator:
    """Give the generator that everything without a seed of its own draws from."""
    return _generator


def manual_seed(seed: int) -> None:
    """Restart this module's generator; without a call it starts from the system's entropy.

    Parameters
    ----------
    seed : int
        Key in [0, 2**64).

    Raises
    ------
    TypeError, ValueError
        For what is no seed.
    """
    global _generator
    _generator = RandomNumberGenerator(seed)


def uniform(
    *shape: int, low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Draw ``(high - low) * u + low``, ``u`` uniform in [0, 1), from this module's generator.

    Parameters
    ----------
    *shape : int
        Extents of the result; none for a scalar (a 0-d array).
    low, high : float
        Ends of the interval.
    dtype : dtype, default float32
        float32 or float16.

    Returns
    -------
    ndarray
        Numbers of the shape and dtype asked for.

    Raises
    ------
    TypeError, ValueError
        As ``RandomNumberGenerator.uniform``.
    """
    return _generator.uniform(*shape, low=low, high=high, dtype=dtype)


def randint(*shape: int, low: int = 0, high: int = 10, dtype: DTypeLike = np.int32) -> NDArray[Any]:
    """Draw integers in [low, high) from this module's generator.

    Parameters
    ----------
    *shape : int
        Extents of the result; none for a scalar (a 0-d array).
    low, high : int
        First integer, and the one behind the last; at most 2**46 apart.
    dtype : dtype, default int32
        Integer dtype that holds them.

    Returns
    -------
    ndarray
        Integers of the shape and dtype asked for.

    Raises
    ------
    TypeError, ValueError
        As ``RandomNumberGenerator.randint``.
    """
    return _generator.randint(*shape, low=low, high=high, dtype=dtype)
