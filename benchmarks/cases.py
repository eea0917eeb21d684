"""The markets that are measured, described without any library's words.

A spec is a tuple of layers. Its weights are dicts with the keys that ``marketplace`` gives them:
``layers.0.weight``, and within a residual block ``layers.3.body.layers.0.weight``.
"""

import dataclasses
import itertools
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Conv:
    """Square convolution with bias; weight ``(out, channels / groups, kernel, kernel)``."""

    channels: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Linear:
    """``x W^T + b``; weight ``(out, inputs)``."""

    inputs: int
    out: int


@dataclasses.dataclass(frozen=True)
class Norm:
    """Instance normalisation with weight and bias ``(channels,)``; eps 1e-5."""

    channels: int


@dataclasses.dataclass(frozen=True)
class Relu:
    """``max(x, 0)``."""


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Maximum over windows of 2 x 2, stride 2."""


@dataclasses.dataclass(frozen=True)
class AvgPool:
    """Mean over windows of ``kernel`` x ``kernel``, as stride."""

    kernel: int


@dataclasses.dataclass(frozen=True)
class Flatten:
    """``(B, ...)`` to ``(B, features)``."""


@dataclasses.dataclass(frozen=True)
class Residual:
    """``body(x) + shortcut(x)``; an empty shortcut is the identity."""

    body: tuple["Layer", ...]
    shortcut: tuple["Layer", ...] = ()


Layer: TypeAlias = Conv | Linear | Norm | Relu | MaxPool | AvgPool | Flatten | Residual
Layers: TypeAlias = tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """A market, the plan of its paths and a batch; inputs are raw 0 to 255 values."""

    name: str
    specs: tuple[Layers, ...]
    vendors: tuple[int, ...]
    batch: int
    sample: tuple[int, ...]
    plan: str = "tree"
    classes: int = 10
    gpu_only: bool = False  # takes a CPU seconds a probe: left out there unless it is named

    @property
    def convolutional(self) -> bool:
        """Whether it has convolutions, so that they are nearly all of its work."""
        return any(has_conv(layers) for layers in self.specs)

    def small(self) -> "Case":
        """Give the same market with two vendors at most and a batch of 4."""
        vendors = tuple(min(count, 2) for count in self.vendors)
        return dataclasses.replace(self, vendors=vendors, batch=4)

    def paths(self) -> NDArray[np.int32]:
        """List the paths in the order of their losses, ``(P, S)``."""
        if self.plan == "tree":  # the last spec's vendor changes slowest
            backwards = itertools.product(*(range(count) for count in reversed(self.vendors)))
            return np.array([path[::-1] for path in backwards], np.int32)
        rows = [[0] * len(self.vendors)]
        for spec, count in enumerate(self.vendors):
            for vendor in range(1, count):
                rows.append([vendor if i == spec else 0 for i in range(len(self.vendors))])
        return np.array(rows, np.int32)


def has_conv(layers: Layers) -> bool:
    """Whether some layer is a convolution."""
    return any(
        isinstance(layer, Conv)
        or (isinstance(layer, Residual) and has_conv(layer.body + layer.shortcut))
        for layer in layers
    )


def _two_convs(channels: int, out: int, kernel: int) -> Layers:
    first, second = Conv(channels, out, kernel), Conv(out, out, kernel)
    return (first, Relu(), second, Relu(), Norm(out), MaxPool())


BEAUTIFUL_MNIST: tuple[Layers, ...] = (
    _two_convs(1, 32, 5),
    (*_two_convs(32, 64, 3), Flatten()),
    (Linear(576, 10),),
)
MLP: tuple[Layers, ...] = (
    (Linear(784, 512), Relu()),
    (Linear(512, 512), Relu()),
    (Linear(512, 10),),
)


def _same_conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> Conv:
    return Conv(channels, out, kernel, stride, kernel // 2)


def _block(channels: int, out: int, stride: int) -> Layers:
    body = (
        _same_conv(channels, out, stride=stride), Norm(out), Relu(),
        _same_conv(out, out), Norm(out),
    )  # fmt: skip
    changes = stride > 1 or channels != out
    shortcut = (_same_conv(channels, out, 1, stride), Norm(out)) if changes else ()
    return (Residual(body, shortcut), Relu())


RESNET: tuple[Layers, ...] = (
    (_same_conv(3, 32), Norm(32), Relu(), *_block(32, 32, 1)),
    _block(32, 64, 2),
    (AvgPool(16), Flatten(), Linear(64, 10)),
)


def _conv_relu(channels: int, out: int) -> Layers:
    return (_same_conv(channels, out), Relu())


VGG: tuple[Layers, ...] = (
    (
        *_conv_relu(3, 64), *_conv_relu(64, 64), MaxPool(),
        *_conv_relu(64, 128), *_conv_relu(128, 128), MaxPool(),
        Flatten(), Linear(128 * 8 * 8, 10),
    ),
)  # fmt: skip


def _depthwise(channels: int, out: int, stride: int) -> Layers:
    each = Conv(channels, channels, 3, stride, 1, groups=channels)
    return (each, Norm(channels), Relu(), Conv(channels, out, 1), Norm(out), Relu())


MOBILE: tuple[Layers, ...] = (
    (_same_conv(3, 32), Norm(32), Relu(), *_depthwise(32, 64, 1)),
    (*_depthwise(64, 128, 2), *_depthwise(128, 128, 1)),
    (AvgPool(16), Flatten(), Linear(128, 10)),
)

DIGIT, PHOTO = (1, 28, 28), (3, 32, 32)
CASES = {
    case.name: case
    for case in (
        Case("tree-4", BEAUTIFUL_MNIST, (4, 4, 4), 64, DIGIT),
        Case("tree-8", BEAUTIFUL_MNIST, (8, 8, 8), 128, DIGIT),
        Case("tree-16", BEAUTIFUL_MNIST, (16, 16, 16), 512, DIGIT, gpu_only=True),
        Case("star-512", BEAUTIFUL_MNIST, (8, 40, 512), 64, DIGIT, "star"),
        Case("star-1024", BEAUTIFUL_MNIST, (32, 160, 1024), 16, DIGIT, "star"),
        Case("mlp", MLP, (8, 8, 8), 128, (784,)),
        Case("resnet", RESNET, (4, 4, 4), 32, PHOTO),
        Case("huge", VGG, (8,), 32, PHOTO),
        Case("mobile", MOBILE, (4, 4, 4), 32, PHOTO),
    )
}
