"""What ``Optimizer.save`` adds to a checkpoint, and ``Optimizer.resume`` reads back.

Arrays of the state are tensors ``optimizer.{name}``; everything else is one JSON object in the
file's metadata.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import refusal
from ._market import Spec, check_market
from .checkpoint import (
    OPTIMIZER_PREFIX,
    FilePath,
    Tensors,
    check_tensors,
    load_tensors,
    market_tensors,
    read_file,
    write_file,
)
from .tensor import Tensor

if TYPE_CHECKING:
    from .optimizers import Optimizer

_VERSION = 1
RATES = ("learning_rate", "meta_learning_rate", "probe_scale")
_OPTIONS = ("plan", "dtype", "control_variate", "update", "momentum", "shaping", "antithetic")


def save(optimizer: "Optimizer", path: FilePath) -> None:
    """Write an optimizer and its market."""
    state = _native_state(optimizer, "save")
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    settings = {
        "version": _VERSION,
        **{name: getattr(optimizer, name) for name in _OPTIONS},
        "market": _structure(optimizer.marketplace),
        "rates": {name: rate_to_json(getattr(optimizer, name)) for name in RATES},
        "state": {name: value for name, value in state.items() if name not in arrays},
    }
    tensors = market_tensors(optimizer.marketplace, optimizer.global_step)
    tensors |= {OPTIMIZER_PREFIX + name: value for name, value in arrays.items()}
    # one entry only: safetensors writes several in an order that differs from run to run
    write_file(path, tensors, {"optimizer": json.dumps(settings)})


def _native_state(optimizer: "Optimizer", op: str) -> dict[str, Any]:
    """Give the engine's state, refusing one that does not follow from it alone."""
    native = optimizer._ready()
    if not optimizer._vendors_are_seeded():
        wanted = "vendors that follow from their seeds"
        raise refusal(RuntimeError, op, wanted, "a line search under way (update_lr_scales)")
    if optimizer.replica > 0:
        wanted = "no update under way"
        raise refusal(RuntimeError, op, wanted, f"{optimizer.replica} replicas (add_replica)")
    return native.state()


def take_apart(optimizer: "Optimizer") -> tuple[Any, ...]:
    """Give the arguments of ``rebuild``: all that a copy needs."""
    options = {name: getattr(optimizer, name) for name in (*RATES, *_OPTIONS)}
    options["device"] = optimizer.device.split(",")
    options["threads"] = optimizer.threads or None
    options["max_memory_bytes"] = optimizer._max_memory_bytes
    attributes = {"global_step": optimizer.global_step, "classes": optimizer.classes}
    state = _native_state(optimizer, "copy or pickle of an Optimizer (see save and resume)")
    return type(optimizer), optimizer.marketplace, options, state, attributes


def rebuild(
    kind: type["Optimizer"],
    specs: Sequence[Spec],
    options: dict[str, Any],
    state: dict[str, Any],
    attributes: dict[str, Any],
) -> "Optimizer":
    """Make an optimizer of what ``take_apart`` gave."""
    optimizer = kind(specs, **options, seed=0)  # the state brings its own
    optimizer._native.load_state(state)
    for name, value in attributes.items():
        setattr(optimizer, name, value)
    return optimizer


def resume(
    kind: type["Optimizer"],
    path: FilePath,
    marketplace: Sequence[Spec],
    device: str | Sequence[str],
    threads: int | None,
    max_memory_bytes: int | None,
) -> "Optimizer":
    """Read an optimizer and its market; the market changes last, when nothing can fail any more."""
    specs = check_market(marketplace, "resume")
    settings, tensors, step = _read(specs, path)
    optimizer = kind(
        specs,
        **settings["options"],
        device=device,
        threads=threads,
        max_memory_bytes=max_memory_bytes,
        seed=0,  # the state brings its own
    )
    _take(optimizer, settings, tensors, step, path)
    return optimizer


def restore(optimizer: "Optimizer", path: FilePath) -> None:
    """Give an optimizer that has the options of a file's the state of it, and its market."""
    settings, tensors, step = _read(optimizer.marketplace, path)
    for name in RATES:
        setattr(optimizer, name, settings["options"][name])
    optimizer._ready()
    _take(optimizer, settings, tensors, step, path)


def _read(specs: Sequence[Spec], path: FilePath) -> tuple[dict[str, Any], Tensors, int]:
    """Read a file that fits a market: settings, tensors, step."""
    tensors, metadata = read_file(path)
    if "optimizer" not in metadata:
        raise _unfit(path, "a file of Optimizer.save", "one without an optimizer")
    settings = _settings(metadata["optimizer"], path)
    if settings["market"] != _structure(specs):
        raise _unfit(path, f"a market with {_structure(specs)}", settings["market"])
    return settings, tensors, check_tensors(specs, tensors, path)


def _take(
    optimizer: "Optimizer", settings: dict[str, Any], tensors: Tensors, step: int, path: FilePath
) -> None:
    _load_state(optimizer, settings["state"], tensors, path)
    load_tensors(optimizer.marketplace, tensors)
    optimizer.global_step = step


def _structure(specs: Sequence[Spec]) -> dict[str, list[int]]:
    return {
        "vendor_count": [spec.vendor_count for spec in specs],
        "upstream_sampling": [spec.upstream_sampling for spec in specs],
    }


def _settings(text: str, path: FilePath) -> dict[str, Any]:
    try:
        settings = json.loads(text)
        if settings["version"] != _VERSION:
            raise ValueError(f"version {settings['version']}")
        options = {name: rate_from_json(settings["rates"][name]) for name in RATES}
        options |= {"plan": str(settings["plan"]), "dtype": str(settings["dtype"])}
        # files from before there were such options have none
        options["control_variate"] = bool(settings.get("control_variate", False))
        options["update"] = str(settings.get("update", "unit"))
        options["momentum"] = float(settings.get("momentum", 0.9))
        options["shaping"] = str(settings.get("shaping", "z"))
        options["antithetic"] = bool(settings.get("antithetic", False))
        state = dict(settings["state"])
        return {"market": settings["market"], "options": options, "state": state}
    except (ValueError, TypeError, KeyError) as error:
        wanted = f"the settings of an optimizer, version {_VERSION}"
        raise _unfit(path, wanted, f"{type(error).__name__} {error}") from error


def _load_state(
    optimizer: "Optimizer", plain: dict[str, Any], tensors: Tensors, path: FilePath
) -> None:
    arrays = {
        key.removeprefix(OPTIMIZER_PREFIX): value
        for key, value in tensors.items()
        if key.startswith(OPTIMIZER_PREFIX)
    }
    try:
        optimizer._native.load_state({**plain, **arrays})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _unfit(path, "a complete optimizer state", error) from error


def rate_to_json(rate: Any) -> dict[str, Any] | None:
    """Keep what kind of number a rate was, so that it goes on decaying in the same precision."""
    if rate is None:
        return None
    dtype = str(rate.dtype) if isinstance(rate, np.ndarray | np.generic) else None
    return {"value": float(rate), "dtype": dtype}


def rate_from_json(rate: dict[str, Any] | None) -> Any:
    """Give the rate that ``rate_to_json`` was given."""
    if rate is None:
        return None
    value = float(rate["value"])
    return value if rate["dtype"] is None else Tensor(value, dtype=rate["dtype"])


def _unfit(path: FilePath, expected: str, received: object) -> ValueError:
    return refusal(ValueError, f"checkpoint {path}", expected, received)
