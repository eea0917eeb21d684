"""The table of ``benchmarks.peers``, and what it says about the project's goals."""

import dataclasses
from collections.abc import Iterable, Sequence

from benchmarks.cases import CASES
from benchmarks.contenders import OURS

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Goals:
    """What a device is to reach, by dtype.

    How many times faster than the best peer, with convolutions and without; the least share of peak
    on the tree cases; how many times faster than some libraries; TFLOP/s by case; the most host
    memory beside weights and batch, panels of the vendors' weights included.
    """

    ratio: dict[str, tuple[float, float]]
    share: dict[str, float] = dataclasses.field(default_factory=dict)
    families: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    tflops: dict[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    working_mb: float | None = None


CPU_GOALS = Goals(  # two AVX-512 cores
    ratio={"float32": (1.3, 1.0), "bfloat16": (1.4, 1.0)},
    share={"float32": 0.70, "bfloat16": 0.55},
    families={"float32": {"jax": 4.0, "tinygrad": 10.0}},
    working_mb=64.0,
)
GPU_GOALS = Goals(  # one H200
    ratio={"float32": (1.0, 1.0), "bfloat16": (3.0, 1.0)},
    families={"bfloat16": {"jax": 3.0}},
    tflops={("tree-16", "bfloat16"): 250.0},
)
FIRST_RUN = 1.2
IMPORT_MS = 300.0


@dataclasses.dataclass
class Row:
    """One contender's figures for one case and dtype."""

    case: str
    contender: str
    dtype: str
    median_ms: float
    min_ms: float
    max_ms: float
    first_ms: float  # in the common process; includes compiling
    gflops: float  # GFLOP/s
    share_of_peak: float
    loss_difference: float  # largest, relative to our float32 losses
    losses_agree: bool
    repeats: int = 0  # timed runs that median and range are of; 0: not timed yet
    peak_bytes: float | None = None  # of a process of its own, as the next three
    working_bytes: float | None = None  # of the peak, beyond weights and batch
    fresh_first_ms: float | None = None
    fresh_later_ms: float | None = None
    ratio_to_best_peer: float | None = None  # above 1: faster than every peer

    @property
    def family(self) -> str:
        """The library's name."""
        return self.contender.split("-")[0]


def rank(rows: list[Row]) -> list[Row]:
    """Sort one case's rows, fastest first, and fill in their ratios to the best peer."""
    peers = [row.median_ms for row in rows if row.family != OURS]
    for row in rows:
        row.ratio_to_best_peer = min(peers) / row.median_ms if peers else None
    return sorted(rows, key=lambda row: row.median_ms)


HEADER = (
    f"{'case':<10} {'contender':<19} {'dtype':<9} {'median ms':>10} {'GFLOP/s':>8} {'of peak':>8} "
    f"{'peak MB':>8} {'x best peer':>12} {'losses':>9}"
)


def line(row: Row) -> str:
    """Give one row of the table."""
    memory = "" if row.peak_bytes is None else f"{row.peak_bytes / MIB:.1f}"
    ratio = "" if row.ratio_to_best_peer is None else f"{row.ratio_to_best_peer:.2f}"
    losses = f"{row.loss_difference:.0e}" + ("" if row.losses_agree else "!")
    return (
        f"{row.case:<10} {row.contender:<19} {row.dtype:<9} {row.median_ms:>10.2f} "
        f"{row.gflops:>8.1f} {row.share_of_peak:>8.1%} {memory:>8} {ratio:>12} {losses:>9}"
    )


def legend(peaks: dict[str, float]) -> str:
    """Explain the columns."""
    measured = ", ".join(f"{dtype} {peak / 1e9:.1f} GFLOP/s" for dtype, peak in peaks.items())
    return (
        f"peak: our microkernel on data in cache, all threads, measured here: {measured}.\n"
        "GFLOP/s: operations of direct sums, whoever computes them; convolutions that filter with "
        "fewer can pass the peak.\n"
        "peak MB: most memory of a process of its own, beyond its imports, weights and batch "
        "included.\n"
        "x best peer: the fastest peer's median over this one's, same dtype. losses: largest "
        "difference from our float32 losses, relative."
    )


# -- goals -----------------------------------------------------------------------------------------


def _verdict(text: str, value: float, goal: float, at_most: bool = False) -> str:
    met = value <= goal if at_most else value >= goal
    sign = "<=" if at_most else ">="
    return f"{text} {value:.2f} (goal {sign} {goal:g}: {'met' if met else 'MISSED'})"


def verdicts(rows: Iterable[Row], device: str) -> list[str]:
    """Compare ours with the goals for such a device, one line per case and dtype."""
    goals = CPU_GOALS if device == "cpu" else GPU_GOALS
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.case, row.dtype), []).append(row)
    lines = []
    for (case, dtype), group in groups.items():
        ours = next((row for row in group if row.contender == OURS), None)
        judged = _judge(ours, [row for row in group if row.family != OURS], goals) if ours else []
        if judged:
            lines.append(f"{case} {dtype}: {'; '.join(judged)}")
    return lines


def _judge(ours: Row, peers: Sequence[Row], goals: Goals) -> list[str]:
    dtype = ours.dtype
    found = []
    if peers:
        best = min(peers, key=lambda row: row.median_ms)
        goal = goals.ratio[dtype][0 if CASES[ours.case].convolutional else 1]
        ratio = best.median_ms / ours.median_ms
        found.append(_verdict(f"x {best.contender}", ratio, goal))
    for family, goal in goals.families.get(dtype, {}).items():
        medians = [row.median_ms for row in peers if row.family == family]
        if medians:
            found.append(_verdict(f"x {family}", min(medians) / ours.median_ms, goal))
    if ours.case.startswith("tree") and dtype in goals.share:
        found.append(_verdict("share of peak", ours.share_of_peak, goals.share[dtype]))
    if (ours.case, dtype) in goals.tflops:
        goal = goals.tflops[ours.case, dtype]
        found.append(_verdict("TFLOP/s", ours.gflops / 1e3, goal))
    if ours.fresh_first_ms is not None and ours.fresh_later_ms is not None:
        first = ours.fresh_first_ms / ours.fresh_later_ms
        found.append(_verdict("first run / later", first, FIRST_RUN, at_most=True))
    if ours.working_bytes is not None and goals.working_mb is not None:
        working = ours.working_bytes / MIB
        found.append(
            _verdict("MB beside weights and batch", working, goals.working_mb, at_most=True)
        )
    return found


def import_verdict(median_ms: float) -> str:
    """Compare the time of importing the package with its goal."""
    return _verdict("import of the package, ms:", median_ms, IMPORT_MS, at_most=True)
