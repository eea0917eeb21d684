"""``Tensor``: a NumPy array that also understands tinygrad's spellings.

Code written for the reference runs with its imports swapped. Everything is eager: ``realize`` and
``contiguous`` have nothing left to do, ``TinyJit`` gives its function back.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import random
from ._arrays import IntPair, refusal
from ._functions import avg_pool2d, flatten, gelu, max_pool2d, relu, sigmoid, tanh
from ._scores import cross_entropy, topk
from ._trace import Value

__all__ = ["Tensor", "TinyJit"]

Function = TypeVar("Function", bound=Callable[..., Any])
Order: TypeAlias = Literal["C", "F", "A", "K"]


def TinyJit(function: Function) -> Function:  # noqa: N802 - the name in the reference
    """Give ``function`` back: nothing needs compiling."""
    return function


class Tensor(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array with the methods of tinygrad that the reference's code calls.

    Parameters
    ----------
    data : array_like
        Copied. Python numbers become float32 and int32, arrays keep their dtype.
    dtype : dtype, optional
        Dtype to convert to.

    Notes
    -----
    Reductions and single elements stay tensors, of shape (), for the reference calls methods on
    them. They serve where a number does: ``round``, ``float``, formats, keys of dicts, members of
    sets, indices of lists; ``json`` wants ``.item()``, as for NumPy's scalars. Methods that NumPy
    has too take its keywords beside tinygrad's. Used as layers, the functions (``Tensor.relu``)
    record themselves on the traced value.
    """

    def __new__(cls, data: ArrayLike, dtype: DTypeLike | None = None) -> "Tensor":
        """Copy ``data``."""
        array = np.array(data, dtype=dtype)
        if dtype is None and not isinstance(data, np.ndarray | np.generic):
            array = _narrowed(array)
        return cls.wrap(array)

    @classmethod
    def wrap(cls, array: ArrayLike) -> "Tensor":
        """Show an array as a tensor, without a copy."""
        return np.asarray(array).view(cls)

    def __array_wrap__(  # type: ignore[override]
        self, array: NDArray[Any], context: Any = None, return_scalar: bool = False
    ) -> "Tensor":
        """Keep results tensors, scalars included."""
        return Tensor.wrap(array)

    def __getitem__(self, index: Any) -> Any:
        """Keep elements tensors, of shape ()."""
        return Tensor.wrap(super().__getitem__(index))

    # -- numbers -----------------------------------------------------------------------------------

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash a tensor of shape () as the number that it is now, which it also equals.

        Raises
        ------
        TypeError
            For another shape.
        """
        return hash(self._number("hash"))

    def __round__(self, digits: int | None = None) -> Any:
        """Round a tensor of shape () as a NumPy scalar; without ``digits`` to an int.

        Raises
        ------
        TypeError
            For another shape; ``numpy.round`` takes arrays.
        """
        return round(self._number("round"), digits)

    def _number(self, op: str) -> Any:
        if self.shape != ():
            raise refusal(TypeError, op, "a tensor of shape ()", f"shape {self.shape}")
        return np.asarray(self)[()]

    # -- making ------------------------------------------------------------------------------------

    @staticmethod
    def manual_seed(seed: int = 0) -> None:
        """Restart the generator of ``marketplace.random``."""
        random.manual_seed(seed)

    @classmethod
    def randint(
        cls, *shape: int, low: int = 0, high: int = 10, dtype: DTypeLike = np.int32
    ) -> "Tensor":
        """Draw integers in [low, high), as ``marketplace.random.randint``."""
        return cls.wrap(random.randint(*shape, low=low, high=high, dtype=dtype))

    @classmethod
    def uniform(cls, *shape: int, low: float = 0.0, high: float = 1.0) -> "Tensor":
        """Draw float32 numbers in [low, high), as ``marketplace.random.uniform``."""
        return cls.wrap(random.uniform(*shape, low=low, high=high))

    @classmethod
    def zeros(cls, *shape: Any, dtype: DTypeLike = np.float32) -> "Tensor":
        """Give zeros."""
        return cls.wrap(np.zeros(_extents(shape), dtype))

    @classmethod
    def ones(cls, *shape: Any, dtype: DTypeLike = np.float32) -> "Tensor":
        """Give ones."""
        return cls.wrap(np.ones(_extents(shape), dtype))

    @classmethod
    def arange(
        cls, start: float, stop: float | None = None, step: float = 1, dtype: Any = None
    ) -> "Tensor":
        """Give evenly spaced numbers, as ``numpy.arange``; int32 or float32."""
        first, last = (0, start) if stop is None else (start, stop)
        numbers = np.arange(first, last, step, dtype=dtype)
        return cls.wrap(numbers if dtype is not None else _narrowed(numbers))

    def stack(self, *others: ArrayLike, dim: int = 0) -> "Tensor":
        """Join arrays of one shape along a new axis."""
        return Tensor.wrap(np.stack([np.asarray(part) for part in (self, *others)], axis=dim))

    def cat(self, *others: ArrayLike, dim: int = 0) -> "Tensor":
        """Join arrays along an axis that they have."""
        return Tensor.wrap(np.concatenate([np.asarray(part) for part in (self, *others)], axis=dim))

    # -- eager stand-ins ---------------------------------------------------------------------------

    def realize(self, *others: Any) -> "Tensor":
        """Give the tensor itself; its numbers are there."""
        return self

    def contiguous(self) -> "Tensor":
        """Give the tensor, as one block of memory."""
        return Tensor.wrap(np.ascontiguousarray(self).reshape(self.shape))

    def assign(self, value: ArrayLike) -> "Tensor":
        """Take the values of an array of the same shape, in place.

        Raises
        ------
        ValueError
            For another shape.
        TypeError
            For a dtype that does not convert within its kind.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise refusal(ValueError, "assign", f"shape {self.shape}", array.shape)
        np.copyto(self, array, casting="same_kind")
        return self

    def numpy(self) -> NDArray[Any]:
        """Give a copy as a plain array."""
        return np.array(self)

    # -- functions, which also trace ---------------------------------------------------------------

    def relu(self) -> "Tensor":
        """Give ``max(x, 0)``; see ``marketplace.functional.relu``."""
        return _call(relu, self)

    def gelu(self, approximate: str = "none") -> "Tensor":
        """Give ``x Phi(x)``; see ``marketplace.functional.gelu``."""
        return _call(gelu, self, approximate)

    def sigmoid(self) -> "Tensor":
        """Give ``1 / (1 + exp(-x))``; see ``marketplace.functional.sigmoid``."""
        return _call(sigmoid, self)

    def tanh(self) -> "Tensor":
        """Give the hyperbolic tangent; see ``marketplace.functional.tanh``."""
        return _call(tanh, self)

    def max_pool2d(
        self,
        kernel_size: IntPair = 2,
        stride: IntPair | None = None,
        dilation: IntPair = 1,
        padding: IntPair = 0,
    ) -> "Tensor":
        """Give the maximum of sliding windows; see ``marketplace.functional.max_pool2d``."""
        options = {"padding": padding, "dilation": dilation}
        return _call(max_pool2d, self, kernel_size, stride, **options)

    def avg_pool2d(
        self,
        kernel_size: IntPair = 2,
        stride: IntPair | None = None,
        dilation: IntPair = 1,
        padding: IntPair = 0,
        count_include_pad: bool = True,
    ) -> "Tensor":
        """Give the mean of sliding windows; see ``marketplace.functional.avg_pool2d``."""
        options: dict[str, Any] = {"padding": padding, "dilation": dilation}
        options |= {"count_include_pad": count_include_pad}
        return _call(avg_pool2d, self, kernel_size, stride, **options)

    def flatten(  # type: ignore[override]
        self, start_dim: int | Order = 0, end_dim: int = -1, *, order: Order = "C"
    ) -> "Tensor":
        """Give a copy with axes merged, all of them by default.

        Parameters
        ----------
        start_dim, end_dim : int
            As for ``marketplace.functional.flatten``.
        order : {"C", "F", "A", "K"}
            As for ``numpy.ndarray.flatten``, where it may also come first.

        Raises
        ------
        ValueError
            For axes out of range, or another order than "C" for some of the axes.
        """
        start, order = (0, start_dim) if isinstance(start_dim, str) else (start_dim, order)
        if order == "C":
            merged = _call(flatten, self, start, end_dim)
            return Tensor(merged) if isinstance(merged, Tensor) else merged
        if (start, end_dim) != (0, -1):
            received = f"order {order!r} for axes {start} to {end_dim}"
            raise refusal(ValueError, "flatten", "order 'C', or all axes", received)
        return Tensor.wrap(np.asarray(self).flatten(order))

    # -- the rest ----------------------------------------------------------------------------------

    def unsqueeze(self, dim: int) -> "Tensor":
        """Insert an axis of extent 1."""
        return Tensor.wrap(np.expand_dims(self, dim))

    def argmax(  # type: ignore[override]
        self,
        axis: int | None = None,
        keepdim: bool = False,
        *,
        out: NDArray[Any] | None = None,
        keepdims: bool = False,
    ) -> "Tensor":
        """Give the index of the largest element, the first of equals; see ``numpy.argmax``.

        ``keepdim`` and ``keepdims`` are one option in two spellings.
        """
        found = np.argmax(np.asarray(self), axis=axis, out=out, keepdims=keepdim or keepdims)
        return cast(Tensor, found) if out is not None else Tensor.wrap(found)

    def topk(self, k: int, largest: bool = True) -> tuple["Tensor", "Tensor"]:
        """Give the k best values and their indices; see ``marketplace.topk``."""
        values, indices = topk(np.asarray(self), k, largest)
        return Tensor.wrap(values), Tensor.wrap(indices)

    def sparse_categorical_crossentropy(
        self, y: ArrayLike, ignore_index: int = -1, reduction: str = "mean"
    ) -> "Tensor":
        """Give the cross-entropy of logits against labels; an ``ignore_index`` of -1 ignores none.

        See ``marketplace.functional.cross_entropy``.
        """
        ignored = None if ignore_index == -1 else ignore_index
        return Tensor.wrap(cross_entropy(np.asarray(self), y, reduction, ignored))


def _call(function: Callable[..., Any], x: Any, *args: Any, **options: Any) -> Tensor:
    """Call a function on an array as a tensor; a traced value, which passes for one, stays one."""
    if isinstance(x, Value):
        return cast(Tensor, function(x, *args, **options))
    return Tensor.wrap(function(np.asarray(x), *args, **options))


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Give the dtypes that tinygrad gives Python numbers; integers too large for it stay int64."""
    if array.dtype == np.float64:
        return array.astype(np.float32)
    limits = np.iinfo(np.int32)
    if array.dtype == np.int64 and ((limits.min <= array) & (array <= limits.max)).all():
        return array.astype(np.int32)
    return array


def _extents(shape: Sequence[Any]) -> tuple[int, ...]:
    nested = len(shape) == 1 and isinstance(shape[0], Sequence)
    return tuple(shape[0]) if nested else tuple(shape)
