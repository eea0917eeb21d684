"""A spec's parameters in a row, in the order of their keys, and cut into arrays again."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import F32, float_input, refusal
from ._market import Spec

Direction: TypeAlias = Mapping[str, ArrayLike]


def split(spec: Spec, values: F32) -> dict[str, F32]:
    """Cut flat values ``(..., n)`` into the spec's parameters, in the order of their keys."""
    core = spec.model._core
    parts: dict[str, F32] = {}
    start = 0
    for key in core.parameter_keys:
        shape = core.shape(key)
        end = start + int(np.prod(shape, dtype=np.int64))
        parts[key] = values[..., start:end].reshape(*values.shape[:-1], *shape)
        start = end
    return parts


def join(spec: Spec, values: Direction, op: str) -> F32:
    """Put a spec's parameters into one flat array ``(n,)``, in the order of their keys."""
    core = spec.model._core
    if not isinstance(values, Mapping):
        raise refusal(TypeError, op, "a mapping of keys to arrays", type(values).__name__)
    if set(values) != set(core.parameter_keys):
        raise refusal(ValueError, op, f"the keys {core.parameter_keys}", sorted(values))
    parts = [np.empty(0, dtype=np.float32)]
    for key in core.parameter_keys:
        part = float_input(values[key], op, key)
        if part.shape != core.shape(key):
            raise refusal(ValueError, op, f"{key} of shape {core.shape(key)}", part.shape)
        if not np.isfinite(part).all():
            where = np.argwhere(~np.isfinite(part))[0].tolist()
            raise refusal(
                ValueError, op, f"{key} of finite values", f"{part[tuple(where)]} at {where}"
            )
        parts.append(part.ravel())
    return np.concatenate(parts)
