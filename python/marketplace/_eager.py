"""Functions on arrays: one operation recorded as a model of its own, and run."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import F32, default_engine, float_input, refusal
from ._parameters import Parameter
from ._trace import Trace, Value

Parameters = Mapping[str, Parameter]
Write = Callable[[Value, Parameters], Value]


class Weight(NamedTuple):
    """A weight as the caller gave it, how many axes it has without vendors, whether it must be."""

    value: ArrayLike | None
    rank: int
    required: bool = False


@dataclass(frozen=True)
class Layout:
    """How many axes ``x (B, ...)`` has without vendors: one of ``ranks``, or from the first on."""

    ranks: tuple[int, ...]
    open_ended: bool = False

    def has_vendor_axis(self, rank: int, vendors: int | None) -> bool:
        """Tell whether ``x`` of ``rank`` axes is ``(V, B, ...)``."""
        if self.open_ended:
            return vendors is not None and rank > self.ranks[0]
        return rank not in self.ranks and rank - 1 in self.ranks


def one_op_model(write: Write, parameters: Parameters) -> _core.Model:
    """Record ``write`` on a fresh trace and give the model, parameter values included."""
    trace = Trace({id(parameter): name for name, parameter in parameters.items()})
    trace.graph.set_output(write(trace.input, parameters).node)
    model = _core.Model(trace.graph)
    for name, parameter in trace.parameters.items():
        model.set(name, np.asarray(parameter.value, dtype=np.float32))
    return model


def nothing(market: _core.Market, lead: Sequence[int], sample_shape: Sequence[int]) -> F32:
    """Give the results ``(*lead, ...)`` of no samples, which the engine does not run."""
    return np.zeros((*lead, *market.output_shape(sample_shape)), dtype=np.float32)


@contextlib.contextmanager
def named(op: str) -> Iterator[None]:
    """Let refusals of the batch's values, which markets know as ``batch``, name the function."""
    try:
        yield
    except ValueError as error:
        prefix, colon, rest = str(error).partition(": ")
        if prefix != "batch":
            raise
        raise ValueError(f"{op}{colon}{rest}") from None


def infer(model: _core.Model, x: NDArray[Any], op: str) -> F32:
    """Run one model on ``x (B, ...)`` with its own weights and running statistics."""
    market = _core.Market(default_engine(), [model])
    if len(x) == 0:
        return nothing(market, (0,), x.shape[1:])
    with named(op):
        outputs: F32 = market.infer(x)
    return outputs


def run(
    op: str,
    x: Any,
    write: Write,
    weights: Mapping[str, Weight],
    layout: Layout,
    *,
    statistics: Parameters | None = None,
    from_batch: bool = False,
) -> F32:
    """Run one operation, for every vendor where the weights have a vendor axis.

    ``statistics`` are the running statistics of a batch norm, ``from_batch`` tells whether the
    batch's own take their place.
    """
    for name, weight in weights.items():
        if weight.required and weight.value is None:
            raise refusal(TypeError, op, f"{name} as an array of numbers", None)
    given = {
        name: float_input(weight.value, op, name)
        for name, weight in sorted(weights.items())
        if weight.value is not None
    }
    batched = {name: a for name, a in given.items() if _is_batched(op, name, a, weights[name].rank)}
    vendors = _vendor_count(op, batched)
    single = {name: Parameter(a[0] if name in batched else a) for name, a in given.items()}
    model = one_op_model(write, {**single, **(statistics or {})})
    array = float_input(x, op)
    leads = layout.has_vendor_axis(array.ndim, vendors)
    if vendors is None:
        return _run_once(op, model, array, leads, from_batch)
    if leads and array.shape[0] != vendors:
        wanted = f"x (B, ...) or ({vendors}, B, ...) as the weights"
        raise refusal(ValueError, op, wanted, array.shape)
    values = _flat_values(given, batched, vendors)
    if statistics and not from_batch:
        return _infer_each(op, model, single, values, array, leads)
    return _run_rows(op, model, _core.VendorWeights.explicit(values), vendors, array, leads)


def _is_batched(op: str, name: str, array: F32, rank: int) -> bool:
    if array.ndim not in (rank, rank + 1):
        wanted = f"{name} of {rank} axes, or {rank + 1} with a leading vendor axis"
        raise refusal(ValueError, op, wanted, f"shape {array.shape}")
    return array.ndim == rank + 1


def _vendor_count(op: str, batched: Mapping[str, F32]) -> int | None:
    counts = [int(array.shape[0]) for array in batched.values()]
    if not counts:
        return None
    if len(set(counts)) > 1 or counts[0] < 1:
        wanted = f"one vendor count of at least 1 for {' and '.join(batched)}"
        raise refusal(ValueError, op, wanted, counts)
    return counts[0]


def _flat_values(given: Mapping[str, F32], batched: Mapping[str, F32], vendors: int) -> F32:
    """Give every vendor's weights in a row, in the order of their names: ``(V, n)``."""
    rows = [
        array.reshape(vendors, -1)
        if name in batched
        else np.broadcast_to(array.reshape(1, -1), (vendors, array.size))
        for name, array in given.items()
    ]
    return np.concatenate(rows, axis=1)


def _run_once(op: str, model: _core.Model, x: F32, leads: bool, from_batch: bool) -> F32:
    """Run one set of weights; a leading axis of ``x`` joins the batch, or keeps batches apart."""
    if from_batch:
        return _run_rows(op, model, _core.VendorWeights.base(1), 1, x, leads)
    if not leads:
        return infer(model, x, op)
    out = infer(model, x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), op)
    return out.reshape(*x.shape[:2], *out.shape[1:])


def _run_rows(
    op: str, model: _core.Model, weights: _core.VendorWeights, vendors: int, x: F32, leads: bool
) -> F32:
    """Run vendor v on ``x[v]``, or on the one batch that all share; one vendor runs on each."""
    inputs = x if leads else x[None]
    market = _core.Market(default_engine(), [model])
    rows = max(vendors, len(inputs)) if len(inputs) else 0
    if 0 in inputs.shape[:2]:
        out = nothing(market, (rows, inputs.shape[1]), inputs.shape[2:])
    else:
        runs = np.arange(rows, dtype=np.int32)
        plan = _core.Plan.rows(runs % np.int32(vendors), runs % np.int32(len(inputs)))
        with named(op):
            out = market.forward(plan, [weights], inputs)
    return out if leads or weights.kind != "base" else out[0]


def _infer_each(
    op: str, model: _core.Model, single: Parameters, values: F32, x: F32, leads: bool
) -> F32:
    """Run every vendor with the running statistics, which only inference uses."""
    names = sorted(single)
    ends = np.cumsum([int(np.prod(single[name].shape)) for name in names])[:-1]
    outs = []
    for vendor, row in enumerate(values):
        for name, part in zip(names, np.split(row, ends), strict=True):
            model.set(name, np.ascontiguousarray(part).reshape(single[name].shape))
        outs.append(infer(model, x[vendor] if leads else x, op))
    return np.stack(outs)
