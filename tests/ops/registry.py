"""What an entry of the op registry is, and the rounding analysis that its bounds are made of.

An entry says how to make the layer, what the oracle computes, how far rounding may take the engine
from it, and which cases to try. Bounds are first-order rounding analysis (Higham, Accuracy and
Stability of Numerical Algorithms, ch. 3): ``gamma(n) = n·u`` for a sum of n terms in any order, u
the unit roundoff of float32. They depend on dtype, reduction length and the values alone.
"""

import dataclasses
from collections.abc import Callable, Mapping

U32 = 2.0**-24  # unit roundoff of float32, round to nearest
LANES = (1, 3, 7, 8, 11, 12, 13, 15, 16, 17, 31, 32, 33)  # around every vector and tile width


def gamma(count):
    """Relative error of a float32 sum of ``count`` terms, in any order."""
    return count * U32 / (1 - count * U32)


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration of an op: input shape ``(B, ...)`` and the layer's options."""

    shape: tuple
    options: Mapping = dataclasses.field(default_factory=dict)

    def __str__(self):
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return "x".join(map(str, self.shape)) + (f"[{options}]" if options else "")


@dataclasses.dataclass(frozen=True)
class Op:
    """One op: how to make it, what it computes, how far rounding may take it, what to try."""

    name: str
    kinds: tuple  # methods of the engine's graph that it exercises
    layer: Callable  # (options) -> what a Model takes
    oracle: Callable  # (x, params, options) -> y
    error: Callable  # (x, params, options, y, u) -> error bound; u of stored results
    cases: tuple
    parameters: Callable = lambda options, shape: {}  # name -> shape
    functional: Callable | None = None  # (x, params, options) on arrays
    # (case) -> whether, with vendor-batched weights, x of this rank is taken to have the axis too
    open_ended: Callable = lambda case: False
    product: bool = False  # multiplies matrices: rounds both operands in bfloat16
    float_result: bool = False  # at the end of a market its result is float32, never bfloat16


OPS: dict[str, Op] = {}


def register(op):
    """Add an op to what the tests run."""
    OPS[op.name] = op


def cases():
    """Every (op, case) of the registry."""
    return [(op, case) for op in OPS.values() for case in op.cases]


def chosen(options, *names):
    """Those of the case's options that the call in question understands."""
    return {name: options[name] for name in names if name in options}
