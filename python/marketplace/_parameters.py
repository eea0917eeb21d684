"""The arrays of layers, and how a model finds them and names them.

Keys are those of tinygrad's ``get_state_dict``: the way through attributes, lists and dicts, as in
``layers.0.weight`` or ``layers.4.conv1.weight``. A layer that only a function knows is named by the
function's variable: ``layers.3.skip.weight``.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import float_input, refusal


class Parameter:
    """An array of a layer: the layer's own until a model takes it, then the model's.

    Parameters
    ----------
    value : array_like
        Initial values, kept as float32.
    buffer : bool
        Running statistics: never perturbed, not counted as parameters.
    dtype : dtype
        What ``value`` is shown as.
    """

    def __init__(self, value: ArrayLike, *, buffer: bool = False, dtype: Any = np.float32) -> None:
        self._stored = float_input(value, "parameter", "its value").copy()
        self._model: _core.Model | None = None
        self._key = ""
        self.shape = self._stored.shape
        self.buffer = buffer
        self.dtype = np.dtype(dtype)

    @property
    def value(self) -> NDArray[Any]:
        """A copy of the present values."""
        stored = self._stored if self._model is None else self._model.get(self._key)
        values: NDArray[Any] = np.array(stored, dtype=self.dtype).reshape(self.shape)
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Give the present values as the parameter's own: no model comes along with a copy."""
        stored = np.array(self.value, dtype=np.float32)
        return {**vars(self), "_stored": stored, "_model": None, "_key": ""}

    def check(self, value: Any, op: str, name: str) -> NDArray[np.float32]:
        """Give ``value`` as float32, refusing another shape."""
        array = float_input(value, op, name)
        if array.shape != self.shape:
            raise refusal(ValueError, op, f"{name} of shape {self.shape}", array.shape)
        return array

    def assign(self, value: NDArray[np.float32]) -> None:
        """Take new values of the same shape."""
        if self._model is None:
            self._stored = value.copy()
        else:
            self._model.set(self._key, value)

    def bind(self, model: _core.Model, key: str) -> None:
        """Move into a model, values included."""
        if self._model is not model:
            model.set(key, np.asarray(self.value, dtype=np.float32))
            self._model, self._key = model, key


@dataclass
class Discovery:
    """What a model's layers hold, by key and by ``id``.

    Attributes
    ----------
    keys : dict of int to str
        First key of every parameter found.
    attributes : list of Parameter
        Those found through attributes and containers alone, in order.
    arrays : set of int
        Bare arrays among those attributes, which cannot be trained.
    """

    keys: dict[int, str] = field(default_factory=dict)
    attributes: list[Parameter] = field(default_factory=list)
    arrays: set[int] = field(default_factory=set)


def discover(layers: tuple[Any, ...]) -> Discovery:
    """Find every parameter that ``layers`` can reach, through attributes first."""
    found = Discovery()
    for key, leaf in walk({"layers": layers}, _held, "", set()):
        if isinstance(leaf, Parameter):
            if found.keys.setdefault(id(leaf), key) == key:
                found.attributes.append(leaf)
        else:
            found.arrays.add(id(leaf))
    for key, leaf in walk({"layers": layers}, held_or_captured, "", set()):
        if isinstance(leaf, Parameter):
            found.keys.setdefault(id(leaf), key)
    return found


Children = Callable[[Any], Iterator[tuple[str, Any]]]


def walk(
    holder: Any, children: Children, prefix: str, seen: set[int]
) -> Iterator[tuple[str, Parameter | NDArray[Any]]]:
    """Give every parameter and array below ``holder`` once, with its key."""
    for name, child in children(holder):
        if id(child) in seen:
            continue
        seen.add(id(child))
        if isinstance(child, Parameter | np.ndarray):
            yield prefix + name, child
        else:
            yield from walk(child, children, f"{prefix}{name}.", seen)


_CLOSED = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def _held(holder: Any) -> Iterator[tuple[str, Any]]:
    """Give what an object holds: fields, items or attributes."""
    if isinstance(holder, _CLOSED):
        return
    if hasattr(holder, "_asdict"):  # a named tuple
        holder = holder._asdict()
    if isinstance(holder, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(holder))
    elif isinstance(holder, dict):
        yield from ((str(name), child) for name, child in holder.items())
    elif hasattr(holder, "__dict__"):
        yield from vars(holder).items()


def held_or_captured(holder: Any) -> Iterator[tuple[str, Any]]:
    """Give what an object holds, and what a function knows by name."""
    if isinstance(holder, types.MethodType):
        holder = holder.__self__
    elif isinstance(holder, functools.partial):
        yield from _held({"func": holder.func, **holder.keywords})
        yield from _held(holder.args)
    elif isinstance(holder, types.FunctionType):
        yield from _closure(holder)
        yield from _defaults(holder)
        yield from captured_globals(holder)
    yield from _held(holder)


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a variable without a value yet
            continue


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield name, parameter.default


def captured_globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Give the global layers and containers that a function names, and its module's functions."""
    for name in _names(function.__code__):
        known = function.__globals__.get(name)
        if isinstance(known, types.FunctionType):
            if known.__globals__ is function.__globals__:
                yield name, known
        elif isinstance(known, list | tuple | dict):
            yield name, known
        elif callable(known) and not isinstance(known, _CLOSED):
            yield name, known


def _names(code: types.CodeType) -> Iterator[str]:
    """Give the names that a function and the functions inside it look up globally."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
