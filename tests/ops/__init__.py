"""Registry of ops: every parametrised layer test runs what these modules register."""

from ops import matrix, norms, pointwise, pools, shapes
from ops.registry import LANES, OPS, U32, Case, Op, cases, gamma

MODULES = (matrix, norms, pointwise, pools, shapes)

__all__ = ["LANES", "MODULES", "OPS", "U32", "Case", "Op", "cases", "gamma"]
