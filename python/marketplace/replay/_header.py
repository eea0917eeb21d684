"""The first record of a replay log: of which market, run and checkpoint it is."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import _core
from .._arrays import F32
from .._market import Spec
from ..optimizers import Optimizer
from ._format import Damage


@dataclass(frozen=True)
class SpecLayout:
    """One spec, as far as its weights go.

    Attributes
    ----------
    vendor_count : int
        Vendors.
    parameters, buffers : dict of str to list of int
        Shapes by key; ``buffers`` are the running statistics.
    """

    vendor_count: int
    parameters: dict[str, list[int]]
    buffers: dict[str, list[int]]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.parameters.values())


@dataclass(frozen=True)
class Header:
    """Of which market, run and checkpoint a log is.

    Attributes
    ----------
    specs : list of SpecLayout
        The market.
    seed : int
        Master seed of the run.
    first_step : int
        Where the log begins.
    checkpoint : str
        Name of the checkpoint of ``first_step``, in the log's directory.
    rule : dict
        What makes an update of a direction: the optimizer's plan, update and momentum; and
        ``antithetic``, where vendors come in pairs.
    about : dict
        For people: dtype, device and version that wrote the log.
    """

    specs: list[SpecLayout]
    seed: int
    first_step: int
    checkpoint: str
    rule: dict[str, str | float]
    about: dict[str, str]

    def to_json(self) -> bytes:
        """Give the header's payload."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(payload: bytes) -> "Header":
        """Read a header's payload.

        Raises
        ------
        Damage
            For what is none.
        """
        try:
            values = json.loads(payload)
            values["specs"] = [SpecLayout(**spec) for spec in values["specs"]]
            return Header(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise Damage(f"its header cannot be read: {error}") from error

    @property
    def vendor_counts(self) -> list[int]:
        """Vendors per spec."""
        return [spec.vendor_count for spec in self.specs]

    @property
    def antithetic(self) -> bool:
        """Whether vendors come in pairs of opposite deltas."""
        return bool(self.rule.get("antithetic", False))

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shapes of a checkpoint's arrays by their name there."""
        return {
            f"spec.{index}.{key}": shape
            for index, spec in enumerate(self.specs)
            for key, shape in (spec.parameters | spec.buffers).items()
        }


def layout_of(specs: Sequence[Spec]) -> list[SpecLayout]:
    """Describe a market."""
    return [_spec_layout(spec.model._core, spec.vendor_count) for spec in specs]


def rule_of(optimizer: Optimizer) -> dict[str, str | float]:
    """Describe what makes an update of a direction."""
    rule: dict[str, str | float] = {
        "plan": optimizer.plan,
        "update": optimizer.update,
        "momentum": optimizer.momentum,
    }
    return rule | {"antithetic": True} if optimizer.antithetic else rule


def _spec_layout(model: _core.Model, vendor_count: int) -> SpecLayout:
    trained = set(model.parameter_keys)
    shapes = {key: list(model.shape(key)) for key in model.keys}
    return SpecLayout(
        vendor_count,
        {key: shape for key, shape in shapes.items() if key in trained},
        {key: shape for key, shape in shapes.items() if key not in trained},
    )


def blank_model(layout: SpecLayout) -> _core.Model:
    """Make a model of a spec's arrays without its layers: all that updates need."""
    graph = _core.Graph()
    for key, shape in layout.parameters.items():
        graph.parameter(key, shape)
    for key, shape in layout.buffers.items():
        graph.buffer(key, shape)
    graph.set_output(graph.input())
    return _core.Model(graph)


def checksum_of(models: Sequence[_core.Model]) -> int:
    """Give the CRC-32 of all arrays, running statistics included, spec by spec and key by key."""
    checksum = 0
    for model in models:
        for key in model.keys:
            checksum = zlib.crc32(_little(model.get(key)), checksum)
    return checksum


def get_statistics(models: Sequence[_core.Model], specs: Sequence[SpecLayout]) -> bytes:
    """Give all running statistics as bytes."""
    return b"".join(
        _little(model.get(key))
        for model, layout in zip(models, specs, strict=True)
        for key in layout.buffers
    )


def set_statistics(
    models: Sequence[_core.Model], specs: Sequence[SpecLayout], data: memoryview
) -> None:
    """Take what ``get_statistics`` gave.

    Raises
    ------
    Damage
        For another number of bytes.
    """
    values = np.frombuffer(data, dtype="<f4").astype(np.float32)
    total = sum(
        int(np.prod(shape, dtype=np.int64)) for spec in specs for shape in spec.buffers.values()
    )
    if values.size != total:
        raise Damage(f"it has {values.size} running statistics where its market has {total}")
    start = 0
    for model, layout in zip(models, specs, strict=True):
        for key, shape in layout.buffers.items():
            count = int(np.prod(shape, dtype=np.int64))
            model.set(key, values[start : start + count].reshape(shape))
            start += count


def _little(values: F32) -> Any:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
