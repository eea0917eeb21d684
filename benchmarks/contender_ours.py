"""Ours: ``Optimizer.probe``. It is given seeds and makes every vendor's weights while it runs.

- ``ours``: the batch lies where its peers have it, on a GPU as an array of PyTorch or CuPy.
- ``ours-host`` (GPUs): the batch comes from the host in every probe, as uint8.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import AvgPool, Case, Conv, Flatten, Layers, Linear, MaxPool, Norm, Relu
from benchmarks.contender_torch import own_name
from benchmarks.harness import Run
from benchmarks.problem import LEARNING_RATE, PROBE_SCALE, Problem

Array = NDArray[Any]


class _ResidualBlock:
    """``body(x) + shortcut(x)``, as a user would write it."""

    def __init__(self, body: Layers, shortcut: Layers) -> None:
        from marketplace import nn

        self.body = nn.Model(*_make_layers(body))
        self.shortcut = nn.Model(*_make_layers(shortcut)) if shortcut else None

    def __call__(self, x: Any) -> Any:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


def _make_layer(layer: Any) -> Any:
    from marketplace import nn

    match layer:
        case Conv():
            sizes = layer.channels, layer.out, layer.kernel
            window = {"stride": layer.stride, "padding": layer.padding}
            return nn.Conv2d(*sizes, **window, groups=layer.groups)
        case Linear():
            return nn.Linear(layer.inputs, layer.out)
        case Norm():
            return nn.InstanceNorm(layer.channels)
        case Relu():
            return nn.relu
        case MaxPool():
            return nn.max_pool2d
        case AvgPool():
            return lambda x: x.avg_pool2d(layer.kernel)
        case Flatten():
            return lambda x: x.flatten(1)
    return _ResidualBlock(layer.body, layer.shortcut)


def _make_layers(layers: Layers) -> list[Any]:
    return [_make_layer(layer) for layer in layers]


def make_specs(case: Case) -> list[Any]:
    """Build a case's market, with weights drawn from the package's generator."""
    import marketplace as mp

    return [
        mp.Spec(mp.nn.Model(*_make_layers(layers)), count)
        for layers, count in zip(case.specs, case.vendors, strict=True)
    ]


def load(threads: int, device: str = "cpu") -> None:
    """Import the library."""
    import marketplace  # noqa: F401


def why_not(name: str, case: Case, dtype: str) -> None:
    """Runs everything."""


def make_optimizer(problem: Problem, dtype: str, threads: int) -> Any:
    """Build the optimizer of a problem."""
    import marketplace as mp

    specs = make_specs(problem.case)
    for index, spec in enumerate(specs):
        spec.model.load_state_dict(problem.base(index))
    return mp.Optimizer(
        specs, LEARNING_RATE, probe_scale=PROBE_SCALE, plan=problem.case.plan,
        seeds=problem.seeds(), dtype=dtype, threads=threads, device=problem.device,
    )  # fmt: skip


def prepare(name: str, problem: Problem, dtype: str, threads: int) -> Run:
    """Give the function that computes all losses."""
    optimizer = make_optimizer(problem, dtype, threads)
    x, y = give_batch(problem.x, problem.y, problem.device, from_host=name == "ours-host")
    return lambda: optimizer.probe(x, y)[0]


# -- where the batch lies --------------------------------------------------------------------------


def give_batch(x: Array, y: Array, device: str, from_host: bool = False) -> tuple[Any, Any]:
    """Give a batch of whole numbers from 0 to 255, and its labels, to a device.

    On a GPU it lies there already, as far as a library can bring it; ``from_host``: it stays on the
    host, as uint8, which is how images are kept.
    """
    if from_host:
        return x.astype(np.uint8), y
    library = device_library(device)
    if library is None:
        return x, y
    return _BRING[library](x, device), _BRING[library](y, device)


def whereabouts(device: str) -> str:
    """Say where ``give_batch`` leaves a batch."""
    if device == "cpu":
        return "on the host"
    library = device_library(device)
    if library is None:
        return f"on the host, in float32: neither PyTorch nor CuPy reaches {device}"
    return f"on {device}, by {library}"


@functools.cache
def device_library(device: str) -> str | None:
    """Name what can bring an array to a GPU: what is imported already, else what can be."""
    if device == "cpu":
        return None
    for name in sorted(_BRING, key=lambda name: name not in sys.modules):
        try:
            _BRING[name](np.zeros(1, np.float32), device)
        except Exception:  # each says in its own way that it has no such device
            continue
        return name
    return None


def _by_torch(array: Array, device: str) -> Any:
    import torch

    return torch.from_numpy(array).to(own_name(device))


def _by_cupy(array: Array, device: str) -> Any:
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
        return cupy.asarray(array)


_BRING: dict[str, Callable[[Array, str], Any]] = {"torch": _by_torch, "cupy": _by_cupy}
