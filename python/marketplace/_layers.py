"""The layers of ``marketplace.nn``: their sizes, their first values, and what they record."""

import abc
import math
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from . import random
from ._arrays import F32, IntPair, float_input, integer, pair, read_only, refusal, scalar
from ._eager import infer, one_op_model
from ._parameters import Parameter
from ._trace import Value
from .functional import normalised_shape


class _Field:
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
        return infer(model, float_input(x, type(self).__name__))


def _sizes(
    op: str, names: tuple[str, ...], given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[int | None, dict[str, Any]]:
    """Sort a layer's sizes; one integer too many is the older spelling's vendor count, in front."""
    positional = list(given)
    vendors = named.pop("vendor_count", None)
    if vendors is None and positional and len(positional) + len(named) == len(names) + 1:
        vendors = positional.pop(0)
    sizes = dict(zip(names, positional, strict=False)) | named
    if set(sizes) != set(names) or len(positional) + len(named) != len(names):
        wanted = f"{', '.join(names)} (in the older spelling after vendor_count)"
        received = f"{len(given)} positional and {len(named)} named sizes: {(*given, *named)}"
        raise refusal(TypeError, op, wanted, received)
    return None if vendors is None else integer(vendors, op, "vendor_count", 1), sizes


def _around_zero(shape: tuple[int, ...], fan_in: int) -> Parameter:
    """Draw initial values, uniform within 1/sqrt(fan_in) of zero."""
    bound = 1 / math.sqrt(fan_in)
    return Parameter(random.uniform(*shape, low=-bound, high=bound))


class Conv2d(Layer):
    """Convolution: ``marketplace.functional.conv2d`` with its own kernels.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C of the input and O of the output.
    kernel_size : int or (int, int)
        Window, (height, width).
    stride, padding, dilation : int or (int, int)
        Steps between windows, zeros around the image, steps within a window.
    groups : int
        Number of groups that the channels are divided into.
    bias : bool
        Whether the output channels get an offset.

    Attributes
    ----------
    weight : float32 array (O, C/groups, kh, kw)
        Kernels, at first uniform within 1/sqrt(C/groups kh kw) of zero.
    bias : float32 array (O,) or None
        Offsets, at first drawn alike.

    Raises
    ------
    TypeError
        For sizes that are no integers, or too few or many of them.
    ValueError
        For sizes below 1, negative padding, or groups that do not divide the channels.

    Notes
    -----
    ``Conv2d(vendor_count, in_channels, out_channels, kernel_size)`` is accepted too.
    """

    weight = _Field()
    bias = _Field()

    def __init__(
        self,
        *sizes: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        **named: IntPair,
    ) -> None:
        names = ("in_channels", "out_channels", "kernel_size")
        self.vendor_count, size = _sizes("Conv2d", names, sizes, named)
        inputs = integer(size["in_channels"], "Conv2d", "in_channels", 1)
        outputs = integer(size["out_channels"], "Conv2d", "out_channels", 1)
        kernel = pair(size["kernel_size"], "Conv2d", "kernel_size", 1)
        self.stride = pair(stride, "Conv2d", "stride", 1)
        self.padding = pair(padding, "Conv2d", "padding", 0)
        self.dilation = pair(dilation, "Conv2d", "dilation", 1)
        self.groups = integer(groups, "Conv2d", "groups", 1)
        if inputs % self.groups or outputs % self.groups:
            wanted = f"groups that divide {inputs} input and {outputs} output channels"
            raise refusal(ValueError, "Conv2d", wanted, groups)
        shape = (outputs, inputs // self.groups, *kernel)
        fan_in = math.prod(shape[1:])
        self._own("weight", _around_zero(shape, fan_in))
        self._own("bias", _around_zero((outputs,), fan_in) if bias else None)

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.conv2d(
            own["weight"],
            own["bias"],
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Linear(Layer):
    """Product with a matrix: ``x @ weight.T + bias`` for ``x (B, ..., in_features)``.

    Parameters
    ----------
    in_features, out_features : int
        Extents I and O of the last axis, before and after.
    bias : bool
        Whether an offset is added.

    Attributes
    ----------
    weight : float32 array (O, I)
        Matrix, at first uniform within 1/sqrt(I) of zero.
    bias : float32 array (O,) or None
        Offset, at first drawn alike.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``.

    Notes
    -----
    ``Linear(vendor_count, in_features, out_features)`` is accepted too.
    """

    weight = _Field()
    bias = _Field()

    def __init__(self, *sizes: int, bias: bool = True, **named: int) -> None:
        names = ("in_features", "out_features")
        self.vendor_count, size = _sizes("Linear", names, sizes, named)
        inputs = integer(size["in_features"], "Linear", "in_features", 1)
        outputs = integer(size["out_features"], "Linear", "out_features", 1)
        self._own("weight", _around_zero((outputs, inputs), inputs))
        self._own("bias", _around_zero((outputs,), inputs) if bias else None)

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.linear(own["weight"], own["bias"])


class _Norm(Layer):
    """What the normalisations share: scale 1 and shift 0 at first, or neither."""

    weight = _Field()
    bias = _Field()

    def _start(self, shape: tuple[int, ...], eps: float, affine: bool) -> None:
        self.eps = scalar(eps, type(self).__name__, "eps")
        self._own("weight", Parameter(np.ones(shape)) if affine else None)
        self._own("bias", Parameter(np.zeros(shape)) if affine else None)


class InstanceNorm(_Norm):
    """Normalisation of every channel of every sample: ``marketplace.functional.instance_norm``.

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    affine : bool
        Whether channels are scaled and shifted.

    Attributes
    ----------
    weight, bias : float32 array (C,) or None
        Scale, at first 1, and shift, at first 0.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``.

    Notes
    -----
    ``InstanceNorm(vendor_count, num_features)`` is accepted too.
    """

    def __init__(self, *sizes: int, eps: float = 1e-5, affine: bool = True, **named: int) -> None:
        self.vendor_count, size = _sizes("InstanceNorm", ("num_features",), sizes, named)
        self.num_features = integer(size["num_features"], "InstanceNorm", "num_features", 1)
        self._start((self.num_features,), eps, affine)

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.instance_norm(
            own["weight"], own["bias"], channels=self.num_features, eps=self.eps
        )


class BatchNorm(_Norm):
    """Normalisation of every channel over the batch: ``marketplace.functional.batch_norm``.

    Probing and ``forward`` use the batch's statistics; ``straight_forward`` and calls of the model
    use the running ones, which each step of an optimizer moves towards the leader's batch
    statistics (PyTorch's rule, unbiased variance). Running statistics are never perturbed.

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    momentum : float
        Share of the newest batch in the running statistics, in [0, 1].
    affine : bool
        Whether channels are scaled and shifted.

    Attributes
    ----------
    weight, bias : float32 array (C,) or None
        Scale, at first 1, and shift, at first 0.
    running_mean, running_var : float32 array (C,)
        Running statistics, at first 0 and 1.
    num_batches_tracked : int64 array ()
        How many batches moved them.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``, and for a momentum outside [0, 1].

    Notes
    -----
    ``BatchNorm(vendor_count, num_features)`` is accepted too.
    """

    running_mean = _Field()
    running_var = _Field()
    num_batches_tracked = _Field()

    def __init__(
        self,
        *sizes: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        **named: int,
    ) -> None:
        self.vendor_count, size = _sizes("BatchNorm", ("num_features",), sizes, named)
        features = integer(size["num_features"], "BatchNorm", "num_features", 1)
        self.momentum = scalar(momentum, "BatchNorm", "momentum")
        if self.momentum > 1:
            raise refusal(ValueError, "BatchNorm", "momentum of at most 1", momentum)
        self._start((features,), eps, affine)
        self._own("running_mean", Parameter(np.zeros(features), buffer=True))
        self._own("running_var", Parameter(np.ones(features), buffer=True))
        self._own("num_batches_tracked", Parameter(0, buffer=True, dtype=np.int64))

    def _record(self, value: Value) -> Value:
        own = vars(self)
        value.trace.parameter(own["num_batches_tracked"])
        return value.batch_norm(
            own["weight"],
            own["bias"],
            running_mean=own["running_mean"],
            running_var=own["running_var"],
            eps=self.eps,
            momentum=self.momentum,
        )


class LayerNorm(_Norm):
    """Normalisation over the last axes: ``marketplace.functional.layer_norm``.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Extents of the axes to normalise over.
    eps : float
        Added to the variance.
    affine : bool
        Whether the result is scaled and shifted; ``elementwise_affine`` is the same.

    Attributes
    ----------
    weight, bias : float32 array of ``normalized_shape`` or None
        Scale, at first 1, and shift, at first 0.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``.

    Notes
    -----
    ``LayerNorm(vendor_count, normalized_shape)`` is accepted too.
    """

    def __init__(
        self,
        *sizes: IntPair,
        eps: float = 1e-5,
        affine: bool = True,
        elementwise_affine: bool = True,
        **named: IntPair,
    ) -> None:
        self.vendor_count, size = _sizes("LayerNorm", ("normalized_shape",), sizes, named)
        self.normalized_shape = normalised_shape(size["normalized_shape"], "LayerNorm")
        self._start(self.normalized_shape, eps, affine and elementwise_affine)

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.layer_norm(
            own["weight"], own["bias"], shape=self.normalized_shape, eps=self.eps
        )
