"""Calls of threads that share an object, one after another."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class TakesTurns(Protocol):
    """What has a re-entrant lock of its own: a call may make others."""

    _turn: AbstractContextManager[Any]


_Self = TypeVar("_Self", bound=TakesTurns)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def in_turn(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """Make a method wait for the calls of other threads that are under way."""

    @functools.wraps(method)
    def call(self: _Self, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with self._turn:
            return method(self, *args, **kwargs)

    return call
