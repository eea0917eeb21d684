"""What all layers share: arrays as attributes, the older spelling, and how they show themselves."""

import abc
import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from numpy.typing import NDArray

from ._arrays import F32, float_input, integer, read_only, refusal
from ._eager import infer, one_op_model
from ._parameters import Parameter
from ._trace import Value


class Field:
    """A layer's array as an attribute: a read-only copy of its live values, or None without one.

    The values live in the engine, so writing into the copy could not reach them; assigning does.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        parameter = vars(layer)[self.name]
        return None if parameter is None else read_only(parameter.value)

    def __set__(self, layer: Any, value: Any) -> None:
        parameter = vars(layer).get(self.name)
        op = type(layer).__name__
        if parameter is None:
            raise refusal(
                ValueError, op, f"a layer with {self.name}", f"one made without {self.name}"
            )
        parameter.assign(parameter.check(value, op, self.name))


class Layer(abc.ABC):
    """What all layers share: parameters by name, and the vendor count of the older spelling.

    Attributes
    ----------
    vendor_count : int or None
        The leading integer of ``Conv2d(8, 1, 32, 5)``, if it was given.
    """

    vendor_count: int | None = None

    def _own(self, name: str, parameter: Parameter | None) -> None:
        vars(self)[name] = parameter  # behind the attribute of the same name

    def _parameters(self) -> dict[str, Parameter]:
        return {name: p for name, p in vars(self).items() if isinstance(p, Parameter)}

    def _has(self, name: str) -> bool:
        return vars(self)[name] is not None

    def _shown(self) -> list[str]:
        """Say what the layer was made with, in parts of its ``repr``."""
        return []

    def __repr__(self) -> str:
        """Give the layer as it could be written, ``Conv2d(1, 32, kernel_size=5)``."""
        vendors = changed(vendor_count=(self.vendor_count, None))
        return f"{type(self).__name__}({', '.join([*self._shown(), *vendors])})"

    @abc.abstractmethod
    def _record(self, value: Value) -> Value:
        """Write the layer's operations down."""

    @overload
    def __call__(self, x: Value) -> Value: ...
    @overload
    def __call__(self, x: NDArray[Any]) -> F32: ...
    def __call__(self, x: Value | NDArray[Any]) -> Value | F32:
        """Record the layer on a traced value, or run it on an array ``(B, ...)``."""
        if isinstance(x, Value):
            x.trace.note_vendor_count(self.vendor_count)
            return self._record(x)
        model = one_op_model(lambda value, _: self._record(value), self._parameters())
        op = type(self).__name__
        return infer(model, float_input(x, op), op)


def changed(**options: tuple[object, object]) -> list[str]:
    """Name the options that are not what they are by default: ``name=(value, default)``."""
    return [f"{name}={value!r}" for name, (value, default) in options.items() if value != default]


def one_or_both(sizes: tuple[int, int]) -> int | tuple[int, int]:
    """Give (height, width) as one number where they are equal."""
    return sizes[0] if sizes[0] == sizes[1] else sizes


def takes_vendor_count(init: Callable[..., None]) -> Callable[..., None]:
    """Let a layer's sizes follow a leading vendor count, the older spelling.

    ``Conv2d(8, 1, 32, 5)`` has one integer more than ``Conv2d(1, 32, 5)``. Whatever the layer does
    not take is refused here by its name.
    """
    known = list(inspect.signature(init).parameters.values())[1:]
    sizes = [each.name for each in known if each.kind is each.POSITIONAL_OR_KEYWORD]
    options = [each.name for each in known if each.kind is each.KEYWORD_ONLY]
    op = init.__qualname__.split(".")[-2]

    @functools.wraps(init)
    def init_either(self: Layer, *given: Any, **named: Any) -> None:
        vendors = named.pop("vendor_count", None)
        unknown = [name for name in named if name not in (*sizes, *options)]
        if unknown:
            wanted = f"the keywords {', '.join((*sizes, *options, 'vendor_count'))}"
            raise refusal(TypeError, op, wanted, ", ".join(unknown))
        spelled = [name for name in sizes if name in named]
        if vendors is None and given and len(given) + len(spelled) == len(sizes) + 1:
            vendors, given = given[0], given[1:]
        _check_sizes(op, sizes, given, spelled)
        self.vendor_count = None if vendors is None else integer(vendors, op, "vendor_count", 1)
        init(self, *given, **named)

    return init_either


def _check_sizes(op: str, sizes: list[str], given: tuple[Any, ...], spelled: list[str]) -> None:
    """Refuse sizes that are missing, too many, or given by place and by name."""
    if len(given) + len(spelled) != len(sizes) or sizes[len(given) :] != spelled:
        wanted = f"{', '.join(sizes)} (in the older spelling after vendor_count)"
        received = f"{len(given)} positional sizes {given} and {spelled} by name"
        raise refusal(TypeError, op, wanted, received)
