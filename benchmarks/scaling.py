"""How time and memory of a probe grow with vendors, batch, depth and threads.

    python -m benchmarks.scaling [--sweeps vendors,batch] [--dtype float32] [--plot FILE]

Every point is measured in a process of its own. Prints a table, and keeps it with a plot in
benchmarks/results/, or where ``--json`` and ``--plot`` say.
"""

import argparse
import pathlib
import sys
import tempfile
from typing import Any

from benchmarks import fresh, harness
from benchmarks.cases import (
    BEAUTIFUL_MNIST,
    DIGIT,
    Case,
    Conv,
    Flatten,
    Layers,
    Linear,
    MaxPool,
    Relu,
)
from benchmarks.contenders import OURS
from benchmarks.problem import make_problem

MIB = 2**20
Point = tuple[float, Case, int]  # the quantity, the case, threads
AXES = {
    "vendors": "vendors of each spec (tree)",
    "star": "vendors of the first spec (star v, 5v, 64v)",
    "batch": "samples (tree 4, 4, 4)",
    "depth": "convolutional specs (star of 4 vendors each)",
    "threads": "threads (tree 8, 8, 8)",
}


def _mnist(vendors: tuple[int, ...], batch: int, plan: str = "tree") -> Case:
    name = f"{plan}-{'-'.join(map(str, vendors))}-{batch}"
    return Case(name, BEAUTIFUL_MNIST, vendors, batch, DIGIT, plan)


def _deep(convolutions: int, batch: int) -> Case:
    first: Layers = (Conv(1, 32, 5), Relu(), MaxPool())
    middle: Layers = (Conv(32, 32, 3, padding=1), Relu())
    last: Layers = (Flatten(), Linear(32 * 12 * 12, 10))
    specs = (first, *[middle] * (convolutions - 1), last)
    return Case(f"deep-{convolutions}", specs, (4,) * len(specs), batch, DIGIT, "star")


def _thread_counts(most: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 < most:
        counts.append(counts[-1] * 2)
    return sorted({*counts, most})


def points(sweep: str, threads: int, quick: bool) -> list[Point]:
    """List what a sweep measures."""
    batch = 4 if quick else 64
    most = 2 if quick else 16
    counts = [n for n in (1, 2, 4, 8, 16) if n <= most]
    if sweep == "vendors":
        return [(v, _mnist((v, v, v), batch), threads) for v in counts]
    if sweep == "star":
        return [(v, _mnist((v, 5 * v, 64 * v), batch, "star"), threads) for v in counts]
    if sweep == "batch":
        return [(b, _mnist((4, 4, 4), b), threads) for b in (batch * n // 4 for n in counts)]
    if sweep == "depth":
        return [(d, _deep(d, batch), threads) for d in counts]
    case = _mnist((2, 2, 2) if quick else (8, 8, 8), batch)
    return [(n, case, n) for n in _thread_counts(threads)]


def measure(sweep: str, point: Point, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one point."""
    value, case, threads = point
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(case, pathlib.Path(folder), threads)
        task = fresh.Task(OURS, problem, options.dtype, threads, options.repeats)
        measured = fresh.measure(task)
        flops = problem.flops
    return {
        "sweep": sweep, "value": value, "paths": len(case.paths()), "gflop": flops / 1e9,
        "median_ms": measured["later_ms"], "first_ms": measured["first_ms"],
        "gflops": flops / measured["later_ms"] / 1e6, "peak_bytes": measured["peak_bytes"],
    }  # fmt: skip


HEADER = (
    f"{'sweep':<9} {'value':>6} {'paths':>7} {'GFLOP':>9} {'median ms':>10} {'GFLOP/s':>8} "
    f"{'peak MB':>8}"
)


def line(row: dict[str, Any]) -> str:
    """Give one row of the table."""
    return (
        f"{row['sweep']:<9} {row['value']:>6} {row['paths']:>7} {row['gflop']:>9.2f} "
        f"{row['median_ms']:>10.2f} {row['gflops']:>8.1f} {row['peak_bytes'] / MIB:>8.1f}"
    )


# -- plot ------------------------------------------------------------------------------------------


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Draw time above and memory below, a column per sweep."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    size = (3.2 * len(sweeps), 5.6)
    figure, axes = pyplot.subplots(2, len(sweeps), figsize=size, squeeze=False, sharex="col")
    for column, sweep in enumerate(sweeps):
        mine = [row for row in rows if row["sweep"] == sweep]
        _draw_time(axes[0][column], mine)
        _draw_memory(axes[1][column], mine)
        axes[1][column].set_xlabel(AXES[sweep], fontsize=8)
    axes[0][0].set_ylabel("probe, ms")
    axes[0][0].legend(fontsize=8)
    axes[1][0].set_ylabel("peak memory beyond imports, MB")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw_time(axis: Any, rows: list[dict[str, Any]]) -> None:
    from matplotlib import ticker

    values, last = [row["value"] for row in rows], rows[-1]
    axis.loglog(values, [row["median_ms"] for row in rows], "o-", label="measured")
    if rows[0]["sweep"] == "threads":
        ideal = [rows[0]["median_ms"] * values[0] / value for value in values]
    else:
        ideal = [last["median_ms"] * row["gflop"] / last["gflop"] for row in rows]
    axis.loglog(values, ideal, ":", color="grey", label="proportional to the work")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.grid(alpha=0.3)


def _draw_memory(axis: Any, rows: list[dict[str, Any]]) -> None:
    from matplotlib import ticker

    values = [row["value"] for row in rows]
    peaks = [row["peak_bytes"] / MIB for row in rows]
    axis.plot(values, peaks, "s-", color="tab:red")
    axis.set_ylim(0, max(1.0, 1.2 * max(peaks)))
    axis.set_xscale("log", base=2)  # shared with the axis above
    axis.xaxis.set_major_locator(ticker.FixedLocator(values))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.grid(alpha=0.3)


# -- command line ----------------------------------------------------------------------------------


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sweeps", default=",".join(AXES), help="with commas; default all")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=harness.usable_cores(), help="at most")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each; default 5")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="the result's file")
    parser.add_argument("--plot", metavar="FILE", type=pathlib.Path, help="the plot's, a PNG")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    options = parser.parse_args(arguments)
    options.sweeps = options.sweeps.split(",")
    for sweep in options.sweeps:
        if sweep not in AXES:
            parser.error(f"--sweeps: expected some of {', '.join(AXES)}, received {sweep!r}")
    return options


def main(arguments: list[str]) -> None:
    """Measure all points, print the table, keep table and plot."""
    options = parse(arguments)
    made = harness.record("scaling", arguments)
    lines = [harness.heading(made), "", HEADER]
    print("\n".join(lines))
    rows = []
    for sweep in options.sweeps:
        for point in points(sweep, options.threads, options.quick):
            rows.append(measure(sweep, point, options))
            lines.append(line(rows[-1]))
            print(lines[-1], flush=True)
    whole = options.sweeps == list(AXES) and not options.quick
    kept = harness.result_path(f"scaling-{options.dtype}", made) if whole else None
    if path := options.json or kept:
        result = {**made, "dtype": options.dtype, "repeats": options.repeats, "rows": rows}
        harness.write_result(path, result, "\n".join(lines))
    if path := options.plot or (kept and kept.with_suffix(".png")):
        plot(rows, path)


if __name__ == "__main__":
    main(sys.argv[1:])
