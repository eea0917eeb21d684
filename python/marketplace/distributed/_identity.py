"""What workers must have in common before they share a probe."""

import dataclasses
import json
import zlib
from typing import TypeAlias

from .. import _core
from .._arrays import refusal
from ..optimizers import Optimizer
from ..replay._header import checksum_of, layout_of

Identity: TypeAlias = dict[str, str]  # by what is compared, in the order of comparison

_PLANS = ("tree", "star")


def check_plan(optimizer: Optimizer, op: str) -> None:
    """Refuse plans whose losses cannot be shared out."""
    if optimizer.plan not in _PLANS:
        wanted = "plan 'tree' or 'star', whose paths can be shared out"
        raise refusal(ValueError, op, wanted, f"'{optimizer.plan}'")


def identify(optimizer: Optimizer) -> Identity:
    """Describe what stays: version, market, options, seed."""
    specs = [dataclasses.asdict(layout) for layout in layout_of(optimizer.marketplace)]
    options = ("plan", "dtype", "update", "momentum", "shaping", "antithetic")
    return {
        "version": _core.__version__,
        "market": json.dumps(specs),
        "upstream_sampling": str([spec.upstream_sampling for spec in optimizer.marketplace]),
        "options": str({name: getattr(optimizer, name) for name in options}),
        "seed": str(optimizer.seed),
    }


def identify_state(optimizer: Optimizer) -> Identity:
    """Describe what training changes: rates, step, weights."""
    rates = ("learning_rate", "probe_scale", "meta_learning_rate")
    return {
        "rates": str({name: _number(getattr(optimizer, name)) for name in rates}),
        "step": str(optimizer.global_step),
        "weights": f"checksum {checksum(optimizer):08x}",
    }


def find_difference(mine: Identity, other: Identity) -> tuple[str, str, str] | None:
    """Give the first thing that differs, with both values; None where nothing does."""
    for key, value in mine.items():
        if other.get(key) != value:
            return key, _short(value), _short(other.get(key, "none"))
    return None


def checksum(optimizer: Optimizer) -> int:
    """Give the CRC-32 of all weights and running statistics."""
    return checksum_of([spec.model._core for spec in optimizer.marketplace])


def _number(rate: object) -> float | None:
    return None if rate is None else float(rate)  # type: ignore[arg-type]  # a float or 0-d array


def _short(text: str) -> str:
    """Keep messages readable: long values are told apart by their checksum."""
    if len(text) <= 200:
        return text
    return f"{text[:160]}... ({len(text)} characters, CRC-32 {zlib.crc32(text.encode()):08x})"
