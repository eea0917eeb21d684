"""Copies of layers whose functions know further layers by name, as in ``lambda x: x + skip(x)``.

``copy.deepcopy`` gives functions back as they are: the copy of a model would then run, and train,
the original's ``skip``. So these functions are made anew, around copies of what they know.
"""

import copy
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._parameters import Parameter, captured_globals, held_or_captured, walk

Memo = dict[int, Any]


def copy_layers(layers: Sequence[Callable[[Any], Any]], memo: Memo) -> tuple[Any, ...]:
    """Give deep copies of layers, functions that know layers included.

    Parameters
    ----------
    layers : sequence of callable
        A model's.
    memo : dict
        ``copy.deepcopy``'s: what is copied already, by ``id``.
    """
    functions = functions_with_layers(layers)
    namespaces = _namespaces(functions)
    for function in functions:  # first all of them, for they may know one another
        known = namespaces.get(id(function.__globals__), function.__globals__)
        memo[id(function)] = _shell(function, known)
    for function in functions:
        _fill(memo[id(function)], function, memo)
    return tuple(_copied(layer, memo) for layer in layers)


def functions_with_layers(layers: Sequence[Any]) -> list[types.FunctionType]:
    """Find the functions below ``layers`` that know layers by name."""
    return [each for each in _functions(list(layers), set()) if _reaches_parameters(each)]


def _functions(holder: Any, seen: set[int]) -> Iterator[types.FunctionType]:
    for _, child in held_or_captured(holder):
        if id(child) in seen:
            continue
        seen.add(id(child))
        if isinstance(child, types.FunctionType):
            yield child
        yield from _functions(child, seen)


def _reaches_parameters(value: Any) -> bool:
    leaves = walk([value], held_or_captured, "", set())
    return any(isinstance(leaf, Parameter) for _, leaf in leaves)


def _copied(value: Any, memo: Memo) -> Any:
    """Copy what reaches parameters; anything else that a function knows stays shared."""
    if id(value) in memo:  # deepcopy may not look there for functions
        return memo[id(value)]
    return copy.deepcopy(value, memo) if _reaches_parameters(value) else value


def _namespaces(functions: Sequence[types.FunctionType]) -> dict[int, dict[str, Any]]:
    """Copy the global names, by ``id``, among which functions find layers."""
    return {
        id(function.__globals__): dict(function.__globals__)
        for function in functions
        if any(_reaches_parameters(value) for _, value in captured_globals(function))
    }


def _shell(function: types.FunctionType, namespace: dict[str, Any]) -> types.FunctionType:
    """Make a function of the same code that knows nothing yet."""
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    code, name = function.__code__, function.__name__
    twin = types.FunctionType(code, namespace, name, None, cells or None)
    twin.__qualname__, twin.__module__ = function.__qualname__, function.__module__
    vars(twin).update(vars(function))
    return twin


def _fill(twin: types.FunctionType, function: types.FunctionType, memo: Memo) -> None:
    """Let a function know copies of what the original knows."""
    for mine, theirs in zip(twin.__closure__ or (), function.__closure__ or (), strict=True):
        try:
            mine.cell_contents = _copied(theirs.cell_contents, memo)
        except ValueError:  # a variable without a value yet
            continue
    if function.__defaults__ is not None:
        twin.__defaults__ = tuple(_copied(value, memo) for value in function.__defaults__)
    if function.__kwdefaults__ is not None:
        named = function.__kwdefaults__.items()
        twin.__kwdefaults__ = {name: _copied(value, memo) for name, value in named}
    if twin.__globals__ is not function.__globals__:
        for name, value in captured_globals(function):
            twin.__globals__[name] = _copied(value, memo)
