"""Who takes part: every method's name, its settings, and the module that trains with it."""

import dataclasses
import importlib
import itertools
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from benchmarks.learning.network import Weights

CONTROL = "control"
BATCH = 64
Settings = Mapping[str, Any]


class Trainer(Protocol):
    """One run of a method."""

    def step(self, x: Any, y: Any, rate: float) -> float:
        """Learn from one batch, uint8 ``(B, 1, 28, 28)``; give a loss from before the update."""
        ...

    def weights(self) -> Weights:
        """Give the weights that the method would answer with now."""
        ...


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train the network.

    Its module has ``load(threads)``, which imports the library; ``flops_per_step(settings)``; and
    ``make(settings, weights, seed, threads)``, which gives a ``Trainer``. Of a ``grid``, the
    settings with the best accuracy are taken.
    """

    name: str
    label: str
    package: str
    module_name: str
    settings: Settings
    steps: int
    colour: str
    grid: Sequence[Settings] = ()
    stands_in_for: str = ""  # a method whose package may be absent

    @property
    def module(self) -> ModuleType:
        """The module, imported; the library itself is not."""
        return importlib.import_module(f"benchmarks.learning.{self.module_name}")

    def with_settings(self, changed: Settings) -> "Method":
        """Change some settings; a grid does not vary what was given."""
        grid = [{k: v for k, v in point.items() if k not in changed} for point in self.grid]
        distinct = [point for i, point in enumerate(grid) if point and point not in grid[:i]]
        return dataclasses.replace(
            self,
            settings={**self.settings, **changed},
            grid=tuple(distinct) if len(distinct) > 1 else (),
        )


def _ours(
    name: str, label: str, colour: str, steps: int, settings: Settings, **changed: Any
) -> Method:
    common = {"batch": BATCH, "schedule": "cosine", "dtype": "float32"}
    return Method(
        name, label, "marketplace", "ours", {**common, **settings, **changed}, steps, colour
    )


def _lattice(**values: Sequence[float]) -> tuple[Settings, ...]:
    points = itertools.product(*values.values())
    return tuple(dict(zip(values, point, strict=True)) for point in points)


_NODE = {"market": "depth-5", "plan": "node", "update": "adam", "lr": 3e-3, "probe_scale": 0.05}
_STRATEGY = {
    "batch": BATCH, "schedule": "cosine", "population": 64, "sigma": 0.03, "lr": 0.01,
}  # fmt: skip
_NOISE_GRID = _lattice(lr=(0.003, 0.01, 0.03), sigma=(0.01, 0.03))
_WEIGHTS = {"market": "depth-3", "update": "unit", "lr": 0.1}

ALL = (
    _ours(CONTROL, "control: random features, closed-form output layer", "tab:gray", 600, _NODE,
          vendors=(1, 1, 1, 1, 1)),
    _ours("tree", "ours: tree (the reference's V2)", "tab:cyan", 600, _WEIGHTS,
          plan="tree", vendors=(8, 8, 8), probe_scale=0.01),
    _ours("star", "ours: star", "tab:blue", 600, _WEIGHTS,
          plan="star", vendors=(8, 40, 512), probe_scale=0.1),
    _ours("node", "ours: node, last convolution and output", "tab:purple", 1000, _NODE,
          vendors=(1, 1, 1, 65, 1), probe_scale=0.003),
    _ours("node-2", "ours: node, last two convolutions and output", "tab:pink", 1000, _NODE,
          vendors=(1, 1, 17, 65, 1), probe_scale=0.003),
    Method("sgd", "backprop: SGD with momentum (PyTorch)", "torch", "backprop",
           {"batch": BATCH, "schedule": "cosine", "optimizer": "sgd", "momentum": 0.9, "lr": 0.03},
           1000, "tab:orange", _lattice(lr=(0.001, 0.003, 0.01, 0.03, 0.1))),
    Method("adam", "backprop: Adam (PyTorch)", "torch", "backprop",
           {"batch": BATCH, "schedule": "cosine", "optimizer": "adam", "lr": 3e-3},
           1000, "tab:red", _lattice(lr=(3e-4, 1e-3, 3e-3, 1e-2))),
    # what plan node learns, and with its errors exact the same gradients: its fair comparison
    Method("adam-last", "backprop of the last convolution and output alone: Adam (PyTorch)",
           "torch", "backprop",
           {"batch": BATCH, "schedule": "cosine", "optimizer": "adam", "lr": 3e-3, "first": 8},
           1000, "black", _lattice(lr=(3e-4, 1e-3, 3e-3, 1e-2))),
    Method("open-es", "Open-ES (evosax), Adam", "evosax", "evosax_open_es",
           _STRATEGY, 200, "tab:green", _NOISE_GRID),
    Method("open-es-torch", "Open-ES (written here, PyTorch), Adam", "torch", "open_es",
           _STRATEGY, 200, "tab:olive", _NOISE_GRID, stands_in_for="open-es"),
    Method("eggroll", "low-rank noise after EGGROLL (written here, PyTorch), Adam", "torch",
           "eggroll", {**_STRATEGY, "rank": 1}, 200, "tab:brown", _NOISE_GRID),
)  # fmt: skip
BY_NAME = {method.name: method for method in ALL}


def choose(names: str | None) -> list[Method]:
    """Pick methods by name; the control is always among them."""
    wanted = list(BY_NAME) if names is None else [CONTROL, *filter(None, names.split(","))]
    for name in wanted:
        if name not in BY_NAME:
            raise SystemExit(f"--methods: expected some of {', '.join(BY_NAME)}, received {name!r}")
    return [method for method in ALL if method.name in wanted]


def without_stand_ins(methods: Sequence[Method], named: str | None) -> list[Method]:
    """Leave out stand-ins for methods that are there themselves, unless they were named."""
    here = {method.name for method in methods}
    asked = (named or "").split(",")
    return [m for m in methods if m.stands_in_for not in here or m.name in asked]
