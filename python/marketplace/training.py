"""Forward passes over a market, and V1: keep the best path's vendors and mutate.

A market is a list of specs; data flows through them in order. Vendor v of a spec runs with the
spec's base weights plus its delta; vendor 0, the leader, with the base weights alone.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from . import _core, random
from ._allocation import allocate_vendors
from ._arrays import (
    I32,
    default_engine,
    describe,
    float_input,
    listed,
    path_input,
    paths_input,
    refusal,
    scalar,
    seed_input,
    to_array,
)
from ._eager import nothing
from ._gpu_arrays import Call, Samples, with_leading_axis
from ._inference import inference_market
from ._market import (
    Mutation,
    OwnVendors,
    Spec,
    Vendor,
    Vendors,
    VendorSource,
    check_market,
    full_set,
    make_market,
    vendors_of,
)
from .device_array import DeviceArray
from .tensor import Tensor

__all__ = [
    "Spec",
    "Vendor",
    "allocate_vendors",
    "forward",
    "mutate",
    "produce",
    "straight_forward",
]


@overload
def produce(
    spec: Spec,
    x: Any,
    vendors: Vendors | None = None,
    paths: ArrayLike | None = None,
    *,
    out: Literal["numpy"] = "numpy",
    stream: Any = None,
) -> tuple[Tensor, Tensor]: ...


@overload
def produce(
    spec: Spec,
    x: Any,
    vendors: Vendors | None = None,
    paths: ArrayLike | None = None,
    *,
    out: str,
    stream: Any = None,
) -> tuple[Tensor | DeviceArray, Tensor]: ...


def produce(
    spec: Spec,
    x: Any,
    vendors: Vendors | None = None,
    paths: ArrayLike | None = None,
    *,
    out: str = "numpy",
    stream: Any = None,
) -> tuple[Tensor | DeviceArray, Tensor]:
    """Run one spec's vendors on the input, or on the results of the previous spec.

    Parameters
    ----------
    spec : Spec
        The spec.
    x : array (B, ...), with ``paths`` (U, B, ...)
        Input of the market, or U upstream results; of dtypes as for ``forward``.
    vendors : sequence of callable, optional
        One function of a batch per vendor. ``opt.vendors[i]`` runs as one native call, other
        functions one by one, each on its upstream results merged into one batch. Without it, the
        vendors that the last ``mutate`` made; before the first, all equal the base weights.
    paths : integer array (U, S), optional
        Paths of the upstream results; none for the first spec.
    out : {"numpy", "device"}
        "device" leaves the outputs on the GPU that the vendors of an optimizer, or of no other
        source, run on.
    stream : int or object, optional
        See ``forward``.

    Returns
    -------
    outputs : Tensor or DeviceArray (V, B, ...) or (V k, B, ...)
        Vendor-major: row ``v k + i`` is vendor v on its i-th upstream result, k being
        ``spec.upstream_sampling``, or U.
    paths : Tensor (V, 1) or (V k, S + 1)
        Int32; the upstream's path with the vendor appended.

    Raises
    ------
    TypeError, ValueError
        For input of another dtype or shape, or another number of vendors.
    """
    if not isinstance(spec, Spec):
        raise refusal(TypeError, "produce", "a Spec", type(spec).__name__)
    own = vendors_of(OwnVendors([spec]))[0] if vendors is None else vendors
    chosen = _functions(spec, own, "produce")
    if len(chosen) != spec.vendor_count:
        raise refusal(ValueError, "produce", f"{spec.vendor_count} vendors", len(chosen))
    first = full_set(chosen)
    if first is None and (out != "numpy" or stream is not None):
        wanted = "vendors of an optimizer, or none, with out or stream"
        raise refusal(ValueError, "produce", wanted, "functions")
    call = None if first is None else Call("produce", first.source.engine, stream, out)
    data = to_array(x, "produce", "x") if call is None else call.samples(x)
    rows = np.arange(len(chosen), dtype=np.int32)
    if paths is None:
        inputs = np.zeros((len(chosen), 1), dtype=np.int32)
        return _run_all(call, chosen, inputs, with_leading_axis(data)), Tensor.wrap(rows[:, None])
    known = paths_input(paths, "produce")
    if len(data.shape) < 2 or data.shape[0] != known.shape[0]:
        received = f"x {data.shape} and paths {known.shape}"
        raise refusal(ValueError, "produce", "x (U, B, ...) and paths (U, S)", received)
    inputs = _choose_inputs(spec, chosen, data.shape[0])
    grown = [known[inputs.ravel()], np.repeat(rows, inputs.shape[1])[:, None]]
    return _run_all(call, chosen, inputs, data), Tensor.wrap(np.concatenate(grown, axis=1))


def _functions(spec: Spec, vendors: Any, op: str) -> Vendors:
    """Give one spec's vendors as a list, refusing what cannot be called or is another spec's."""
    wanted = "one spec's vendors as a list of functions"
    chosen = listed(vendors, op, wanted)
    for vendor in chosen:
        if not callable(vendor):
            raise refusal(TypeError, op, wanted, f"a list with {describe(vendor)}")
        if isinstance(vendor, Vendor) and vendor.source.specs[vendor.spec].model is not spec.model:
            raise refusal(ValueError, op, "vendors of the spec that they are given for", vendor)
    return chosen


def _choose_inputs(spec: Spec, vendors: Vendors, upstream: int) -> I32:
    """Give the upstream results of every vendor, ``(V, k)``."""
    if spec.upstream_sampling == 0:
        every = np.arange(upstream, dtype=np.int32)
        return np.broadcast_to(every, (len(vendors), upstream))
    first = full_set(vendors)
    if first is None:
        return OwnVendors([spec]).sample(0, upstream)
    return first.source.sample(first.spec, upstream)


def _run_all(call: Call | None, vendors: Vendors, inputs: I32, x: Any) -> Tensor | DeviceArray:
    """Run vendor v on ``x[inputs[v, i]]`` of ``x (U, B, ...)``; outputs ``(V k, B, ...)``.

    ``call``: of vendors that are all of one spec's; None for other functions.
    """
    first = full_set(vendors)
    if call is not None and first is not None:
        own = np.repeat(np.arange(len(vendors)), inputs.shape[1])
        return call.finish(first.run_rows(own, inputs.ravel(), x, call.place))
    outputs = []
    for vendor, mine in zip(vendors, inputs, strict=True):
        inner = x[mine].reshape(len(mine) * x.shape[1], *x.shape[2:])
        merged = np.asarray(vendor(Tensor.wrap(inner)))
        outputs.append(merged.reshape(len(mine), *x.shape[1:2], *merged.shape[1:]))
    return Tensor.wrap(np.concatenate(outputs))


@overload
def forward(
    marketplace: Sequence[Spec],
    x: Any,
    vendors: Sequence[Vendors] | None = None,
    initial_paths: ArrayLike | None = None,
    *,
    out: Literal["numpy"] = "numpy",
    stream: Any = None,
) -> tuple[Tensor, Tensor]: ...


@overload
def forward(
    marketplace: Sequence[Spec],
    x: Any,
    vendors: Sequence[Vendors] | None = None,
    initial_paths: ArrayLike | None = None,
    *,
    out: str,
    stream: Any = None,
) -> tuple[Tensor | DeviceArray, Tensor]: ...


def forward(
    marketplace: Sequence[Spec],
    x: Any,
    vendors: Sequence[Vendors] | None = None,
    initial_paths: ArrayLike | None = None,
    *,
    out: str = "numpy",
    stream: Any = None,
) -> tuple[Tensor | DeviceArray, Tensor]:
    """Run the whole tree of paths: ``produce`` for every spec in turn.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market.
    x : array (B, ...), with ``initial_paths`` (U, B, ...)
        Input, of which there may be none. Uint8 and float32 are taken as they are, other real
        dtypes become float32; on a GPU, only these two.
    vendors : sequence of sequence of callable, optional
        Per spec, as for ``produce``; ``opt.vendors`` runs as one native call.
    initial_paths : integer array (U, S), optional
        Paths of results that another market produced.
    out : {"numpy", "device"}
        Where the outputs go: into NumPy's memory, or they stay on the GPU as a ``DeviceArray``.
    stream : int or object, optional
        A stream of the first GPU: a handle, or an object with ``__cuda_stream__()``, ``ptr`` or
        ``cuda_stream``. The call follows what the stream holds, and with ``out="device"`` does not
        wait: what the stream gets next follows the call, x stays as it is until then, and the
        values of an x on a GPU are not checked.

    Returns
    -------
    outputs : Tensor or DeviceArray (P, B, ...)
        One output per path.
    paths : Tensor (P, S)
        Int32 vendor indices, one per spec.

    Raises
    ------
    TypeError, ValueError
        As ``produce``.
    """
    specs = check_market(marketplace, "forward")
    given = vendors_of(OwnVendors(specs)) if vendors is None else vendors
    lists = listed(given, "forward", "vendors as a list per spec, such as opt.vendors")
    if len(lists) != len(specs):
        raise refusal(ValueError, "forward", f"vendors of {len(specs)} specs", len(lists))
    chosen = [_functions(*pair, "forward") for pair in zip(specs, lists, strict=True)]
    if [len(own) for own in chosen] != [spec.vendor_count for spec in specs]:
        wanted = f"{[spec.vendor_count for spec in specs]} vendors"
        raise refusal(ValueError, "forward", wanted, [len(own) for own in chosen])
    source = _market_source(specs, chosen)
    if source is not None and initial_paths is None:
        call = Call("forward", source.engine, stream, out)
        outputs, paths = _forward_tree(source, call.samples(x), call.place)
        return call.finish(outputs), Tensor.wrap(paths)
    data: Any = x
    known: Any = initial_paths
    for index, spec in enumerate(specs):
        data, known = produce(spec, data, chosen[index], known, out=out, stream=stream)
    return data, known


def _market_source(specs: Sequence[Spec], vendors: Sequence[Vendors]) -> VendorSource | None:
    """Give the source that all vendors of a market come from, if there is one."""
    firsts = [full_set(own) for own in vendors]
    source = None if firsts[0] is None else firsts[0].source
    if source is None or len(source.specs) != len(specs):
        return None
    for index, (spec, first) in enumerate(zip(specs, firsts, strict=True)):
        if first is None or first.source is not source or first.spec != index:
            return None
        if source.specs[index] is not spec:
            return None
    return source


def _forward_tree(
    source: VendorSource, x: Samples, place: tuple[bool, bool]
) -> tuple[Samples, I32]:
    empty = x.shape[0] == 0 and not place[0]
    own_way = None if empty else source.forward(x, place)
    if own_way is not None:
        return own_way
    sampled: list[I32 | None] = [None]
    upstream = source.specs[0].vendor_count
    for index, spec in enumerate(source.specs[1:], start=1):
        sampled.append(source.sample(index, upstream) if spec.upstream_sampling else None)
        upstream = spec.vendor_count * (spec.upstream_sampling or upstream)
    plan = _core.Plan.tree([spec.vendor_count for spec in source.specs], sampled)
    weights = [source.weights(index) for index in range(len(source.specs))]
    market = make_market(source.specs, source.engine)
    if empty:
        return nothing(market, (plan.path_count, 0), x.shape[1:]), plan.paths
    return market.forward(plan, weights, x, *place), plan.paths


@overload
def straight_forward(
    specs: Sequence[Spec],
    x: Any,
    *,
    out: Literal["numpy"] = "numpy",
    stream: Any = None,
) -> Tensor: ...


@overload
def straight_forward(
    specs: Sequence[Spec],
    x: Any,
    *,
    out: str,
    stream: Any = None,
) -> Tensor | DeviceArray: ...


def straight_forward(
    specs: Sequence[Spec], x: Any, *, out: str = "numpy", stream: Any = None
) -> Tensor | DeviceArray:
    """Run the base weights alone; batch norms use their running statistics.

    Parameters
    ----------
    specs : sequence of Spec
        The market.
    x : array (B, ...)
        Input; of dtypes as for ``forward``.
    out, stream
        As for ``forward``.

    Returns
    -------
    Tensor or DeviceArray (B, ...)
        Float32 outputs.

    Raises
    ------
    TypeError, ValueError
        For input of another dtype or shape.
    """
    models = [spec.model._core for spec in check_market(specs, "straight_forward")]
    market = inference_market(default_engine(), models)
    call = Call("straight_forward", market.engine, stream, out)
    batch = call.samples(x)
    if batch.shape[0] == 0 and not call.on_device:
        return Tensor.wrap(nothing(market, (0,), batch.shape[1:]))
    return call.finish(market.infer(batch, *call.place))


def mutate(
    marketplace: Sequence[Spec],
    leading_path: ArrayLike,
    jitter: Any,
    *,
    seed: int | None = None,
) -> None:
    """Keep the best path's vendors as base weights, and make new vendors around them (V1).

    Vendor v > 0 becomes ``base + uniform(-jitter, jitter)``; vendor 0, the leader, the base.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market; its base weights and vendors change.
    leading_path : integer array (S,)
        The best path of a ``forward`` without other vendors.
    jitter : float or 0-d array
        Largest change of a weight.
    seed : int, optional
        What the new vendors follow from; drawn from ``marketplace.random`` if not given.

    Raises
    ------
    TypeError, ValueError
        For what is no path of this market, no such number or no seed. Nothing has changed then.
    """
    specs = check_market(marketplace, "mutate")
    path = path_input(leading_path, "mutate", [spec.vendor_count for spec in specs])
    amplitude = float(float_input(scalar(jitter, "mutate", "jitter"), "mutate", "jitter"))
    master = random.generator().seed64() if seed is None else seed_input(seed, "mutate")
    source = OwnVendors(specs)
    market = make_market(specs, source.engine)
    for index, vendor in enumerate(path):
        market.apply_vendor(index, source.weights(index), vendor)
    for index, spec in enumerate(specs):
        seeds = _core.derive_seeds(master, 0, index, spec.vendor_count, True)
        spec._mutation = Mutation(seeds, amplitude)
