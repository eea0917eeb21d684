"""Tracing: layers are called once on a symbolic value, which writes their operations down.

A ``Value`` stands for a batch ``(B, ...)`` of unknown extents; axis 0 is the batch. Shapes are
inferred by the engine when the real input's shape is known.
"""

import numbers
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

from . import _core
from ._arrays import IntPair, axis_input, finite, integer, pair, refusal, scalar
from ._parameters import Parameter
from ._traced_shape import BATCH, TracedShape

Axes: TypeAlias = int | Sequence[int] | None
Operand: TypeAlias = Parameter | None  # an absent weight or bias is None


class Trace:
    """The recording of one model: its graph, and the layer that is being called.

    Parameters
    ----------
    keys : dict of int to str
        The key of every parameter that the model knows, by the parameter's ``id``.
    arrays : set of int
        ``id`` of every bare array that a layer holds as an attribute.
    """

    def __init__(self, keys: dict[int, str], arrays: frozenset[int] = frozenset()) -> None:
        self.graph = _core.Graph()
        self.input = Value(self, self.graph.input())
        self.parameters: dict[str, Parameter] = {}
        self.vendor_counts: dict[str, int] = {}
        self.layer = "functional"
        self._keys = keys
        self._arrays = arrays
        self._nodes: dict[str, int] = {}
        self._path = ""
        self._failure: Exception | None = None

    def parameter(self, operand: Operand) -> int | None:
        """Give the graph's number of a parameter, entering it at its first use."""
        if operand is None:
            return None
        key = self._keys.get(id(operand))
        if key is None:
            wanted = "a layer that the model can reach, made outside the function that calls it"
            raise self.refuse(wanted, "a layer made inside the function, or hidden from the model")
        if key not in self._nodes:
            enter = self.graph.buffer if operand.buffer else self.graph.parameter
            self._nodes[key] = enter(key, operand.shape)
            self.parameters[key] = operand
        return self._nodes[key]

    def record(self, write: Callable[[_core.Graph], int]) -> "Value":
        """Write one operation into the graph."""
        try:
            return Value(self, write(self.graph))
        except (TypeError, ValueError) as error:
            self._failure = error
            raise

    def refuse(self, expected: str, received: str, kind: type[Exception] = TypeError) -> Exception:
        """Build the error of the present layer."""
        self._failure = refusal(kind, f"model: {self.layer}", expected, received)
        return self._failure

    def note_vendor_count(self, count: int | None) -> None:
        """Remember the vendor count that the present layer was made with, if any."""
        if count is not None:
            self.vendor_counts[self.layer] = count

    def number(self, operand: Any) -> float:
        """Give a constant operand of arithmetic on a value."""
        if id(operand) in self._arrays:
            wanted = "trainable arrays inside layers of marketplace.nn"
            raise self.refuse(wanted, "an array attribute of the layer")
        plain = isinstance(operand, numbers.Real)
        if plain or (isinstance(operand, np.ndarray | np.generic) and operand.ndim == 0):
            return finite(operand, f"model: {self.layer}", "an operand")
        raise self.refuse("a traced value or a number as operand", type(operand).__name__)

    def call(self, layers: Sequence[Callable[[Any], Any]], value: "Value") -> "Value":
        """Run a model's layers in order, naming each while it runs."""
        path, label = self._path, self.layer
        for index, layer in enumerate(layers):
            self._path = f"{path}layers.{index}."
            self.layer = f"{self._path[:-1]} ({describe(layer)})"
            value = self._call_one(layer, value)
        self._path, self.layer = path, label
        return value

    def _call_one(self, layer: Callable[[Any], Any], value: "Value") -> "Value":
        try:
            result = layer(value)
        except Exception as error:
            if error is self._failure:
                raise
            raised = f"{type(error).__name__}: {error}"
            raise self.refuse("a layer that can be traced", raised) from error
        if not isinstance(result, Value) or result.trace is not self:
            raise self.refuse("a layer that returns a traced value", type(result).__name__)
        return result


def describe(layer: object) -> str:
    """Name a layer's type, and its name where it has one: ``Conv2d``, ``function relu``."""
    name = getattr(layer, "__name__", None)
    return type(layer).__name__ + (f" {name}" if isinstance(name, str) else "")


def _refuses(what: str) -> Callable[..., NoReturn]:
    """Make the method of something that a traced value cannot do."""

    def refuse(self: "Value", *args: Any, **kwargs: Any) -> NoReturn:
        raise self.trace.refuse("operations on the traced value", f"{what}, which needs numbers")

    return refuse


class Value:
    """A symbolic batch ``(B, ...)``; what is done to it becomes part of the model.

    Its methods are the layers' functions. Those without a description here are described under the
    same name in ``marketplace.functional``.
    """

    __array_ufunc__ = None  # NumPy scalars and arrays leave arithmetic to this class

    def __init__(self, trace: Trace, node: int) -> None:
        self.trace = trace
        self.node = node

    @property
    def shape(self) -> TracedShape:
        """The shape, of which ``shape[0]`` (the batch) is all that tracing knows."""
        return TracedShape(self.trace)

    # -- layers ------------------------------------------------------------------------------------

    def conv2d(
        self,
        weight: Parameter,
        bias: Operand = None,
        *,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
    ) -> "Value":
        """Record a convolution."""
        kernels, shift = self._required(weight), self.trace.parameter(bias)
        steps = pair(stride, "conv2d", "stride", 1)
        margin = pair(padding, "conv2d", "padding", 0)
        spread = pair(dilation, "conv2d", "dilation", 1)
        parts = integer(groups, "conv2d", "groups", 1)
        return self._record(
            lambda graph, layer: graph.conv2d(
                self.node, kernels, shift,
                stride=steps, padding=margin, dilation=spread, groups=parts, layer=layer,
            )
        )  # fmt: skip

    def linear(self, weight: Parameter, bias: Operand = None) -> "Value":
        """Record a product with a weight matrix."""
        matrix, shift = self._required(weight), self.trace.parameter(bias)
        return self._record(lambda g, layer: g.linear(self.node, matrix, shift, layer=layer))

    def instance_norm(
        self, weight: Operand = None, bias: Operand = None, *, channels: int, eps: float = 1e-5
    ) -> "Value":
        """Record a normalisation of every sample and channel."""
        scale, shift = self.trace.parameter(weight), self.trace.parameter(bias)
        count = integer(channels, "instance_norm", "channels", 1)
        added = scalar(eps, "instance_norm", "eps")
        return self._record(
            lambda graph, layer: graph.instance_norm(
                self.node, scale, shift, channels=count, eps=added, layer=layer
            )
        )

    def batch_norm(
        self,
        weight: Operand = None,
        bias: Operand = None,
        *,
        running_mean: Parameter,
        running_var: Parameter,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> "Value":
        """Record a normalisation of every channel over batch and positions."""
        scale, shift = self.trace.parameter(weight), self.trace.parameter(bias)
        mean, var = self._required(running_mean), self._required(running_var)
        added = scalar(eps, "batch_norm", "eps")
        return self._record(
            lambda graph, layer: graph.batch_norm(
                self.node, scale, shift, mean, var, eps=added, momentum=momentum, layer=layer
            )
        )

    def layer_norm(
        self,
        weight: Operand = None,
        bias: Operand = None,
        *,
        shape: Sequence[int],
        eps: float = 1e-5,
    ) -> "Value":
        """Record a normalisation over the last axes."""
        scale, shift = self.trace.parameter(weight), self.trace.parameter(bias)
        added = scalar(eps, "layer_norm", "eps")
        return self._record(
            lambda graph, layer: graph.layer_norm(
                self.node, scale, shift, shape=shape, eps=added, layer=layer
            )
        )

    # -- functions ---------------------------------------------------------------------------------

    def relu(self) -> "Value":
        """Record ``max(x, 0)``."""
        return self._unary("relu")

    def gelu(self, approximate: str = "none") -> "Value":
        """Record the Gaussian error linear unit."""
        kinds = {"none": "gelu", "tanh": "gelu_tanh"}
        if not isinstance(approximate, str) or approximate not in kinds:
            raise refusal(ValueError, "gelu", "approximate 'none' or 'tanh'", repr(approximate))
        return self._unary(kinds[approximate])

    def sigmoid(self) -> "Value":
        """Record ``1 / (1 + exp(-x))``."""
        return self._unary("sigmoid")

    def tanh(self) -> "Value":
        """Record the hyperbolic tangent."""
        return self._unary("tanh")

    def max_pool2d(
        self,
        kernel_size: IntPair = 2,
        stride: IntPair | None = None,
        *,
        padding: IntPair = 0,
        dilation: IntPair = 1,
    ) -> "Value":
        """Record a maximum over sliding windows."""
        window = _window("max_pool2d", kernel_size, stride, padding, dilation)
        return self._record(lambda g, layer: g.max_pool2d(self.node, **window, layer=layer))

    def avg_pool2d(
        self,
        kernel_size: IntPair = 2,
        stride: IntPair | None = None,
        *,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        count_include_pad: bool = True,
    ) -> "Value":
        """Record a mean over sliding windows."""
        window = _window("avg_pool2d", kernel_size, stride, padding, dilation)
        return self._record(
            lambda graph, layer: graph.avg_pool2d(
                self.node, **window, count_include_pad=bool(count_include_pad), layer=layer
            )
        )

    def mean(self, axis: Axes = None, keepdim: bool = False, *, keepdims: bool = False) -> "Value":
        """Record a mean over axes other than the batch (axis 0); ``axis`` must be given."""
        if axis is None:
            raise self.trace.refuse("mean over named axes (the batch stays)", "axis=None")
        axes = [axis] if not isinstance(axis, Sequence) else list(axis)
        keep = bool(keepdim or keepdims)
        if not axes or 0 in axes:
            wanted = "mean over axes other than 0 (the batch)"
            raise self.trace.refuse(wanted, f"axis={axis!r}", ValueError)
        return self._record(lambda g, layer: g.mean(self.node, axes, keep, layer=layer))

    def reshape(self, *shape: Any) -> "Value":
        """Record a reshape to ``(x.shape[0], ...)``; one later extent may be -1."""
        extents = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        inner = list(extents[1:])
        first = extents[0] if extents else 0
        batch_first = first is BATCH or (first == -1 and -1 not in inner)
        whole = all(isinstance(n, int | np.integer) and (n > 0 or n == -1) for n in inner)
        if not (batch_first and whole):
            wanted = "reshape(x.shape[0], ...) with extents of at least 1, or one -1"
            raise self.trace.refuse(wanted, f"reshape{tuple(extents)!r}", ValueError)
        return self._record(lambda g, layer: g.reshape(self.node, inner, layer=layer))

    view = reshape

    def flatten(self, start_dim: int = 1, end_dim: int = -1) -> "Value":
        """Record the merging of the axes from ``start_dim`` to ``end_dim``; not of the batch."""
        if start_dim == 0 or end_dim == 0:
            wanted = "flatten from an axis of at least 1 (axis 0 is the batch)"
            received = f"flatten({start_dim}, {end_dim})"
            raise self.trace.refuse(wanted, received, ValueError)
        first, last = axis_input(start_dim, "flatten"), axis_input(end_dim, "flatten")
        return self._record(lambda g, layer: g.flatten(self.node, first, last, layer=layer))

    # -- arithmetic --------------------------------------------------------------------------------

    def __add__(self, other: Any) -> "Value":
        """Record a sum with a value or a number."""
        if isinstance(other, Value):
            return self._record(lambda g, layer: g.add(self.node, other.node, layer=layer))
        return self._affine(1.0, self.trace.number(other))

    __radd__ = __add__

    def __mul__(self, other: Any) -> "Value":
        """Record a product with a value or a number."""
        if isinstance(other, Value):
            return self._record(lambda g, layer: g.multiply(self.node, other.node, layer=layer))
        return self._affine(self.trace.number(other), 0.0)

    __rmul__ = __mul__

    def __neg__(self) -> "Value":
        """Record a change of sign."""
        return self._affine(-1.0, 0.0)

    def __sub__(self, other: Any) -> "Value":
        """Record a difference with a value or a number."""
        return self + (-other if isinstance(other, Value) else -self.trace.number(other))

    def __rsub__(self, other: Any) -> "Value":
        """Record a number minus this value."""
        return self._affine(-1.0, self.trace.number(other))

    def __truediv__(self, other: Any) -> "Value":
        """Record a product with ``1 / other``, rounded once to float32.

        Of a quotient of float32 numbers it keeps all but the last bit: the relative error is below
        ``2**-23``, and 0 for powers of two.
        """
        if isinstance(other, Value):
            raise self.trace.refuse("a number as divisor", "a traced value")
        return self._affine(self._reciprocal(self.trace.number(other)), 0.0)

    def __rtruediv__(self, other: Any) -> NoReturn:
        """Refuse a division by this value."""
        raise self.trace.refuse("a number as divisor", "a traced value")

    def _reciprocal(self, divisor: float) -> float:
        if divisor == 0:
            raise self.trace.refuse("a divisor other than 0", repr(divisor), ValueError)
        inverse, limits = 1 / divisor, np.finfo(np.float32)
        if not float(limits.tiny) <= abs(inverse) <= float(limits.max):
            wanted = "a divisor whose reciprocal is a normal float32 number"
            raise self.trace.refuse(wanted, repr(divisor), ValueError)
        return inverse

    # -- what needs numbers cannot be traced -------------------------------------------------------

    __array__ = _refuses("a conversion to a NumPy array")
    __bool__ = _refuses("bool(x)")
    __float__ = _refuses("float(x)")
    __int__ = _refuses("int(x)")
    __len__ = _refuses("len(x)")
    __iter__ = _refuses("iteration over x")
    __getitem__ = _refuses("x[...]")
    __eq__ = _refuses("a comparison of x")
    __hash__ = object.__hash__

    # -- recording ---------------------------------------------------------------------------------

    def _record(self, write: Callable[[_core.Graph, str], int]) -> "Value":
        return self.trace.record(lambda graph: write(graph, self.trace.layer))

    def _unary(self, kind: str) -> "Value":
        return self._record(lambda graph, layer: graph.unary(self.node, kind, layer=layer))

    def _affine(self, scale: float, shift: float) -> "Value":
        return self._record(lambda g, layer: g.affine(self.node, scale, shift, layer=layer))

    def _required(self, operand: Operand) -> int:
        number = self.trace.parameter(operand)
        if number is None:
            raise self.trace.refuse("a layer with a weight", "None")
        return number


def _window(
    op: str, kernel_size: IntPair, stride: IntPair | None, padding: IntPair, dilation: IntPair
) -> dict[str, Any]:
    """Give the sliding window of a pool; it moves by its own size unless told otherwise."""
    return {
        "kernel_size": pair(kernel_size, op, "kernel_size", 1),
        "stride": pair(kernel_size if stride is None else stride, op, "stride", 1),
        "padding": pair(padding, op, "padding", 0),
        "dilation": pair(dilation, op, "dilation", 1),
    }
