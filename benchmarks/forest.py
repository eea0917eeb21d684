"""One evaluation of all paths, the same for every contender: each prefix is computed once.

A contender brings its ops and two functions: all vendors of a spec on one shared input, and the
leader alone. Results of several vendors are one batch, vendor by vendor: ``(V B, ...)``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from benchmarks.cases import Case, Conv, Layers, Linear, Norm, Residual

Weights = Mapping[str, Any]
AllVendors = Callable[[int, Any], Any]  # (spec, x (N, ...)) -> (V N, ...)
Leader = Callable[[int, Any], Any]  # (spec, x (N, ...)) -> (N, ...)
Concatenate = Callable[[Sequence[Any]], Any]  # along the batch


class Ops(Protocol):
    """A library's spelling of the layers."""

    def conv(self, x: Any, layer: Conv, weight: Any, bias: Any) -> Any: ...
    def linear(self, x: Any, layer: Linear, weight: Any, bias: Any) -> Any: ...
    def norm(self, x: Any, layer: Norm, weight: Any, bias: Any) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def max_pool(self, x: Any) -> Any: ...
    def avg_pool(self, x: Any, kernel: int) -> Any: ...
    def flatten(self, x: Any) -> Any: ...
    def add(self, a: Any, b: Any) -> Any: ...


def run_layers(layers: Layers, x: Any, weights: Weights, ops: Ops, prefix: str = "") -> Any:
    """Run a spec's layers on a batch."""
    for index, layer in enumerate(layers):
        key = f"{prefix}layers.{index}."
        if isinstance(layer, Residual):
            body = run_layers(layer.body, x, weights, ops, f"{key}body.")
            x = ops.add(body, run_layers(layer.shortcut, x, weights, ops, f"{key}shortcut."))
        elif isinstance(layer, Conv | Linear | Norm):
            run = getattr(ops, type(layer).__name__.lower())
            x = run(x, layer, weights[f"{key}weight"], weights[f"{key}bias"])
        else:
            x = _run_function(layer, x, ops)
    return x


def _run_function(layer: Any, x: Any, ops: Ops) -> Any:
    match type(layer).__name__:
        case "Relu":
            return ops.relu(x)
        case "MaxPool":
            return ops.max_pool(x)
        case "AvgPool":
            return ops.avg_pool(x, layer.kernel)
        case "Flatten":
            return ops.flatten(x)
        case name:
            raise TypeError(f"run_layers: expected a layer of cases.py, received {name}")


def logits(case: Case, x: Any, all_vendors: AllVendors, leader: Leader, join: Concatenate) -> Any:
    """Give the logits of all paths, ``(P B, classes)``, in the order of ``case.paths()``."""
    if case.plan == "tree":
        for spec in range(len(case.specs)):
            x = all_vendors(spec, x)
        return x
    deviations: list[Any] = []
    for spec in range(len(case.specs)):
        deviations = [leader(spec, part) for part in deviations]
        outputs = all_vendors(spec, x)  # vendor 0, the leader, is the next spec's input
        x = outputs[: case.batch]
        if case.vendors[spec] > 1:
            deviations.append(outputs[case.batch :])
    return join([x, *deviations])
