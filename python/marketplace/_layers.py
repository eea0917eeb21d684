"""Layers that are products: convolution and matrix."""

import math
from typing import overload

from . import random
from ._arrays import IntPair, integer, pair, refusal
from ._layer import Field, Layer, changed, one_or_both, takes_vendor_count
from ._parameters import Parameter
from ._trace import Value

_MOST_WEIGHTS = 2**31  # as the engine has it


def _around_zero(op: str, shape: tuple[int, ...], fan_in: int) -> Parameter:
    """Draw initial values, uniform within 1/sqrt(fan_in) of zero."""
    if math.prod(shape) > _MOST_WEIGHTS:
        raise refusal(ValueError, op, f"a parameter of at most {_MOST_WEIGHTS} elements", shape)
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
    in_channels, out_channels, groups : int
    kernel_size, stride, padding, dilation : (int, int)
        As given, pairs as (height, width).
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
    ``Conv2d(vendor_count, in_channels, out_channels, kernel_size)`` is accepted too: a fourth size
    is never the stride.
    """

    weight = Field()
    bias = Field()

    @overload
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        *,
        stride: IntPair = ...,
        padding: IntPair = ...,
        dilation: IntPair = ...,
        groups: int = ...,
        bias: bool = ...,
        vendor_count: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        vendor_count: int,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        *,
        stride: IntPair = ...,
        padding: IntPair = ...,
        dilation: IntPair = ...,
        groups: int = ...,
        bias: bool = ...,
    ) -> None: ...
    @takes_vendor_count
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        *,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.in_channels = integer(in_channels, "Conv2d", "in_channels", 1)
        self.out_channels = integer(out_channels, "Conv2d", "out_channels", 1)
        self.kernel_size = pair(kernel_size, "Conv2d", "kernel_size", 1)
        self.stride = pair(stride, "Conv2d", "stride", 1)
        self.padding = pair(padding, "Conv2d", "padding", 0)
        self.dilation = pair(dilation, "Conv2d", "dilation", 1)
        self.groups = integer(groups, "Conv2d", "groups", 1)
        inputs, outputs = self.in_channels, self.out_channels
        if inputs % self.groups or outputs % self.groups:
            wanted = f"groups that divide {inputs} input and {outputs} output channels"
            raise refusal(ValueError, "Conv2d", wanted, groups)
        shape = (outputs, inputs // self.groups, *self.kernel_size)
        fan_in = math.prod(shape[1:])
        self._own("weight", _around_zero("Conv2d", shape, fan_in))
        self._own("bias", _around_zero("Conv2d", (outputs,), fan_in) if bias else None)

    def _shown(self) -> list[str]:
        options = changed(
            stride=(one_or_both(self.stride), 1),
            padding=(one_or_both(self.padding), 0),
            dilation=(one_or_both(self.dilation), 1),
            groups=(self.groups, 1),
            bias=(self._has("bias"), True),
        )
        kernel = f"kernel_size={one_or_both(self.kernel_size)}"
        return [str(self.in_channels), str(self.out_channels), kernel, *options]

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
    in_features, out_features : int
        As given.
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

    weight = Field()
    bias = Field()

    @overload
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = ...,
        vendor_count: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self, vendor_count: int, in_features: int, out_features: int, *, bias: bool = ...
    ) -> None: ...
    @takes_vendor_count
    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        inputs = self.in_features = integer(in_features, "Linear", "in_features", 1)
        outputs = self.out_features = integer(out_features, "Linear", "out_features", 1)
        self._own("weight", _around_zero("Linear", (outputs, inputs), inputs))
        self._own("bias", _around_zero("Linear", (outputs,), inputs) if bias else None)

    def _shown(self) -> list[str]:
        sizes = [str(self.in_features), str(self.out_features)]
        return [*sizes, *changed(bias=(self._has("bias"), True))]

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.linear(own["weight"], own["bias"])
