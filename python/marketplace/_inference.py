"""Markets that plain inference runs on, kept while their models live.

The engine packs a market's weights once and packs them again when they have changed, so a market
that is kept answers its next batch without reading the weights twice.
"""

import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import _core

# What is kept is about as large as the weights. Those beyond are packed by every call.
_MOST_BYTES = 48 * 2**20
_MOST_MARKETS = 8


class _Kept(NamedTuple):
    market: _core.Market
    weight_bytes: int
    owners: tuple["weakref.ref[Any]", ...]  # who of them dies first takes the entry along


# By process, engine and models. A child of fork must not find its parent's markets: another
# thread's call may have locked them at that moment, for good.
_kept: dict[tuple[int, ...], _Kept] = {}


def inference_market(engine: _core.Engine, models: Sequence[_core.Model]) -> _core.Market:
    """Give a market of some models, the same as long as they, the engine and memory last."""
    owners = (engine, *models)
    key = (os.getpid(), *map(id, owners))
    known = _kept.get(key)
    if known is not None:
        return known.market
    market = _core.Market(engine, models)
    weight_bytes = sum(4 * model.parameter_count for model in models)
    # what a market holds on a GPU is not this module's to keep
    if engine.device == "cpu" and weight_bytes <= _MOST_BYTES:
        _make_room(weight_bytes)
        refs = tuple(weakref.ref(owner, lambda _: _kept.pop(key, None)) for owner in owners)
        _kept[key] = _Kept(market, weight_bytes, refs)
    return market


def _make_room(weight_bytes: int) -> None:
    """Let the oldest go until one more fits."""
    while _kept and (
        len(_kept) >= _MOST_MARKETS
        or sum(kept.weight_bytes for kept in list(_kept.values())) + weight_bytes > _MOST_BYTES
    ):
        _kept.pop(next(iter(list(_kept))), None)
