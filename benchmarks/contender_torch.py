"""PyTorch: what a user would write without this package, in every way that we know to be fast.

- ``torch-loop``: vendor after vendor, each on all of its upstream results as one batch.
- ``torch-tiled``: the loop, on 128 samples at a time.
- ``torch-grouped``: a spec's vendors at once, as groups of one convolution and as batched products.
- ``torch-mixed``: the loop for specs with convolutions, batched products for the others.
- ``torch-vmap``: ``torch.func.vmap`` over the vendors.
- ``torch-loop-nhwc`` and ``torch-grouped-nhwc``: the same with channels last in memory.
- ``torch-compile`` (slow): the loop, its specs compiled by ``torch.compile``.

All vendors' weights lie ready in the dtype and memory format; making them is not timed.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import forest
from benchmarks.cases import Case, Conv, Layers, Linear, Norm, has_conv
from benchmarks.harness import Run
from benchmarks.problem import F32, Problem

TILE = 128  # samples
MOST_COMPILED = 64  # variants of one function; the default falls back to eager beyond 8


def load(threads: int, device: str = "cpu") -> None:
    """Import the library and set its threads; float32 stays float32 on a GPU."""
    import torch

    torch.set_num_threads(threads)
    if device != "cpu":
        torch.empty(0, device=own_name(device))  # raises where there is none
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def own_name(device: str) -> str:
    """Name a device as PyTorch does, which calls AMD's cards cuda too."""
    return device.replace("hip", "cuda")


def why_not(name: str, case: Case, dtype: str) -> str | None:
    """Say why a contender does not take part, if so."""
    if name.endswith("nhwc") and not case.convolutional:
        return "no convolutions"
    if name == "torch-tiled" and case.batch * _most_upstream(case) <= TILE:
        return "its batches are no larger than a tile"
    if name == "torch-mixed" and len({has_conv(layers) for layers in case.specs}) == 1:
        return "its specs are all of one kind"
    return None


def _most_upstream(case: Case) -> int:
    counts = case.vendors[:-1]
    return math.prod(counts) if case.plan == "tree" else max((1, *counts))


class Ops:
    """The layers for one vendor's weights, and for all vendors' under ``vmap``."""

    def __init__(self, memory_format: Any) -> None:
        import torch

        self.F = torch.nn.functional
        self.memory_format = memory_format
        self.channels_last = memory_format == torch.channels_last

    def conv(self, x: Any, layer: Conv, weight: Any, bias: Any) -> Any:
        options = (layer.stride, layer.padding, 1, layer.groups)
        return self.F.conv2d(x, weight, bias, *options)

    def linear(self, x: Any, layer: Linear, weight: Any, bias: Any) -> Any:
        return self.F.linear(x, weight, bias)

    def norm(self, x: Any, layer: Norm, weight: Any, bias: Any) -> Any:
        return self.norm_groups(x, layer.channels, weight, bias)

    def norm_groups(self, x: Any, channels: int, weight: Any, bias: Any) -> Any:
        # the same formula; each is the faster one in its memory format
        if self.channels_last:
            return self.F.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
        return self.F.group_norm(x, channels, weight, bias, eps=1e-5)

    def relu(self, x: Any) -> Any:
        return self.F.relu(x)

    def max_pool(self, x: Any) -> Any:
        return self.F.max_pool2d(x, 2)

    def avg_pool(self, x: Any, kernel: int) -> Any:
        return self.F.avg_pool2d(x, kernel)

    def flatten(self, x: Any) -> Any:
        return x.flatten(1)

    def add(self, a: Any, b: Any) -> Any:
        return a + b


@dataclasses.dataclass(frozen=True)
class Grouped:
    """Results of all vendors: images ``(N, V C, H, W)`` or features ``(V, N, F)``.

    A plain tensor is an input that all vendors share.
    """

    tensor: Any


class GroupedOps(Ops):
    """The layers for all vendors' weights ``(V, ...)`` at once."""

    def __init__(self, memory_format: Any, vendors: int) -> None:
        super().__init__(memory_format)
        self.vendors = vendors

    def conv(self, x: Any, layer: Conv, weight: Any, bias: Any) -> Any:
        kernels = weight.flatten(0, 1).contiguous(memory_format=self.memory_format)
        # all vendors share a plain input, but not a part of it
        shared = not isinstance(x, Grouped) and layer.groups == 1
        groups = 1 if shared else self.vendors * layer.groups
        options = (layer.stride, layer.padding, 1, groups)
        inputs = x if shared else self._expand(x)
        return Grouped(self.F.conv2d(inputs, kernels, bias.flatten(), *options))

    def linear(self, x: Any, layer: Linear, weight: Any, bias: Any) -> Any:
        import torch

        if isinstance(x, Grouped):
            return Grouped(torch.baddbmm(bias[:, None], x.tensor, weight.transpose(1, 2)))
        out = self.F.linear(x, weight.flatten(0, 1), bias.flatten())
        return Grouped(out.unflatten(1, (self.vendors, -1)).transpose(0, 1))

    def norm(self, x: Any, layer: Norm, weight: Any, bias: Any) -> Any:
        channels, every = self.vendors * layer.channels, self._expand(x)
        return Grouped(self.norm_groups(every, channels, weight.flatten(), bias.flatten()))

    def relu(self, x: Any) -> Any:
        return _map(super().relu, x)

    def max_pool(self, x: Any) -> Any:
        return _map(super().max_pool, x)

    def avg_pool(self, x: Any, kernel: int) -> Any:
        return _map(functools.partial(super().avg_pool, kernel=kernel), x)

    def flatten(self, x: Any) -> Any:
        if not isinstance(x, Grouped):
            return x.flatten(1)
        return Grouped(x.tensor.unflatten(1, (self.vendors, -1)).flatten(2).transpose(0, 1))

    def add(self, a: Any, b: Any) -> Any:
        return Grouped(self._expand(a) + self._expand(b))

    def _expand(self, x: Any) -> Any:
        return x.tensor if isinstance(x, Grouped) else x.repeat(1, self.vendors, 1, 1)

    def merge(self, x: Grouped) -> Any:
        """Give the vendors' results as one batch ``(V N, ...)``."""
        import torch

        if x.tensor.dim() == 3:
            return x.tensor.flatten(0, 1)
        return torch.cat(x.tensor.chunk(self.vendors, dim=1))


def _map(function: Callable[[Any], Any], x: Any) -> Any:
    return Grouped(function(x.tensor)) if isinstance(x, Grouped) else function(x)


class _Market:
    """A problem's weights as tensors, and the ways to run a spec's vendors."""

    def __init__(self, problem: Problem, dtype: str, memory_format: Any) -> None:
        import torch

        self.case = problem.case
        self.dtype = getattr(torch, dtype)
        self.device = own_name(problem.device)
        self.memory_format = memory_format
        self.ops = Ops(memory_format)
        self.stacks = [
            {key: self._weight(value) for key, value in problem.vendors(spec).items()}
            for spec in range(len(self.case.specs))
        ]
        self.singles = [
            [{key: value[v] for key, value in stack.items()} for v in range(count)]
            for stack, count in zip(self.stacks, self.case.vendors, strict=True)
        ]

    def _weight(self, value: F32) -> Any:
        import torch

        stack: Any = torch.from_numpy(value).to(self.device, self.dtype)
        if stack.dim() != 5:
            return stack
        formatted = stack.flatten(0, 1).contiguous(memory_format=self.memory_format)
        return formatted.unflatten(0, stack.shape[:2])

    def batch(self, x: F32) -> Any:
        import torch

        tensor = torch.from_numpy(x).to(self.device, self.dtype)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=self.memory_format)
        return tensor

    def single(self, spec: int, vendor: int, x: Any) -> Any:
        return forest.run_layers(self.case.specs[spec], x, self.singles[spec][vendor], self.ops)

    def leader(self, spec: int, x: Any) -> Any:
        return self.single(spec, 0, x)

    def join(self, parts: Sequence[Any]) -> Any:
        import torch

        return torch.cat(list(parts))

    def loop(self, spec: int, x: Any) -> Any:
        return self.join([self.single(spec, v, x) for v in range(self.case.vendors[spec])])

    def tiled(self, spec: int, x: Any) -> Any:
        parts, vendors = x.split(TILE), range(self.case.vendors[spec])
        return self.join([self.single(spec, v, part) for v in vendors for part in parts])

    def grouped(self, spec: int, x: Any) -> Any:
        ops = GroupedOps(self.memory_format, self.case.vendors[spec])
        return ops.merge(forest.run_layers(self.case.specs[spec], x, self.stacks[spec], ops))

    def mixed(self, spec: int, x: Any) -> Any:
        return (self.loop if has_conv(self.case.specs[spec]) else self.grouped)(spec, x)

    def vmap(self, spec: int, x: Any) -> Any:
        import torch

        run = torch.func.vmap(self._runner(self.case.specs[spec]), in_dims=(0, None))
        return run(self.stacks[spec], x).flatten(0, 1)

    def _runner(self, layers: Layers) -> Callable[[dict[str, Any], Any], Any]:
        return lambda weights, x: forest.run_layers(layers, x, weights, self.ops)

    def compiled(self) -> Callable[[int, Any], Any]:
        import torch
        import torch._dynamo

        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = MOST_COMPILED
        runs = [torch.compile(self._runner(layers), dynamic=False) for layers in self.case.specs]

        def loop(spec: int, x: Any) -> Any:
            return self.join([runs[spec](weights, x) for weights in self.singles[spec]])

        return loop


def prepare(name: str, problem: Problem, dtype: str, threads: int) -> Run:
    """Give the function that computes all losses."""
    import torch

    nhwc = name.endswith("-nhwc")
    market = _Market(problem, dtype, torch.channels_last if nhwc else torch.contiguous_format)
    way = name.removeprefix("torch-").removesuffix("-nhwc")
    all_vendors = market.compiled() if way == "compile" else getattr(market, way)
    x, y = market.batch(problem.x), torch.from_numpy(problem.y).to(market.device).long()
    labels = y.repeat(len(problem.case.paths()))

    def run() -> F32:
        with torch.inference_mode():
            out = forest.logits(problem.case, x, all_vendors, market.leader, market.join)
            losses = torch.nn.functional.cross_entropy(out.float(), labels, reduction="none")
            result: F32 = losses.view(-1, len(y)).mean(1).cpu().numpy()
        return result

    return run
