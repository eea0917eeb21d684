"""The reference's algorithm as it runs there: on tinygrad, vendor after vendor, in a ``TinyJit``.

All vendors' weights lie ready, so that the reference is spared adding its stored deltas in every
step. Compiling takes a minute or more, hence the contender only runs with ``--include-slow``.
"""

import os
import shutil
from typing import Any

from benchmarks import forest
from benchmarks.cases import Case, Conv, Linear, Norm
from benchmarks.harness import Run
from benchmarks.problem import F32, Problem

MOST_UNROLLED = 64  # vendors in all; beyond, compiling takes too long


def load(threads: int, device: str = "cpu") -> None:
    """Import the library; compile with clang where it is installed, else with LLVM's library."""
    if device != "cpu":
        raise RuntimeError(f"load: expected the device cpu, received {device}")
    if not any(os.environ.get(name) for name in ("CPU", "LLVM")):
        os.environ["CPU" if shutil.which("clang") else "LLVM"] = "1"
    from tinygrad.device import Device

    Device[Device.DEFAULT]  # opens it, so that a missing compiler is noticed here


def why_not(name: str, case: Case, dtype: str) -> str | None:
    """Say why a contender does not take part, if so."""
    if dtype != "float32":
        return "float32 only, as the reference"
    if sum(case.vendors) > MOST_UNROLLED:
        return f"more than {MOST_UNROLLED} vendors to unroll"
    return None


class Ops:
    """The layers for one vendor's weights."""

    def conv(self, x: Any, layer: Conv, weight: Any, bias: Any) -> Any:
        return x.conv2d(weight, bias, layer.groups, layer.stride, padding=layer.padding)

    def linear(self, x: Any, layer: Linear, weight: Any, bias: Any) -> Any:
        return x.linear(weight.T, bias)

    def norm(self, x: Any, layer: Norm, weight: Any, bias: Any) -> Any:
        flat = x.reshape(x.shape[0], layer.channels, -1).layernorm(eps=1e-5).reshape(x.shape)
        return flat * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)

    def relu(self, x: Any) -> Any:
        return x.relu()

    def max_pool(self, x: Any) -> Any:
        return x.max_pool2d()

    def avg_pool(self, x: Any, kernel: int) -> Any:
        return x.avg_pool2d(kernel)

    def flatten(self, x: Any) -> Any:
        return x.flatten(1)

    def add(self, a: Any, b: Any) -> Any:
        return a + b


def _weights(problem: Problem) -> list[list[dict[str, Any]]]:
    from tinygrad.tensor import Tensor

    stacks = [problem.vendors(spec) for spec in range(len(problem.case.specs))]
    return [
        [{key: Tensor(value[v]).realize() for key, value in stack.items()} for v in range(count)]
        for stack, count in zip(stacks, problem.case.vendors, strict=True)
    ]


def prepare(name: str, problem: Problem, dtype: str, threads: int) -> Run:
    """Give the function that computes all losses."""
    from tinygrad.engine.jit import TinyJit
    from tinygrad.tensor import Tensor

    case, weights, ops = problem.case, _weights(problem), Ops()
    x, y = Tensor(problem.x).realize(), Tensor(problem.y).realize()

    def one(spec: int, vendor: int, x: Any) -> Any:
        return forest.run_layers(case.specs[spec], x, weights[spec][vendor], ops)

    def every(spec: int, x: Any) -> Any:
        outputs = Tensor.stack(*(one(spec, v, x) for v in range(case.vendors[spec])), dim=0)
        return outputs.reshape(-1, *outputs.shape[2:])

    @TinyJit
    def evaluate(x: Any, y: Any) -> Any:
        join = lambda parts: parts[0].cat(*parts[1:], dim=0)  # noqa: E731
        out = forest.logits(case, x, every, lambda spec, x: one(spec, 0, x), join)
        logits = out.reshape(-1, case.batch, case.classes)
        losses = (each.sparse_categorical_crossentropy(y) for each in logits)
        return Tensor.stack(*losses, dim=0).realize()

    def run() -> F32:
        losses: F32 = evaluate(x, y).numpy()
        return losses

    return run
