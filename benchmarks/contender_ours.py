"""Ours: ``Optimizer.probe``. It is given seeds and makes every vendor's weights while it runs."""

from typing import Any

from benchmarks.cases import AvgPool, Case, Conv, Flatten, Layers, Linear, MaxPool, Norm, Relu
from benchmarks.harness import Run
from benchmarks.problem import LEARNING_RATE, PROBE_SCALE, Problem


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
    x, y = problem.x, problem.y
    return lambda: optimizer.probe(x, y)[0]
