"""Ours beside what a user could pick instead: the same probe, identical weights, one process.

    python -m benchmarks.peers [--cases tree-8,mlp] [--contenders ours,torch] [--dtype float32]
    python -m benchmarks.peers --device cuda:0 --cases tree-16 --contenders ours,torch,jax

Times every contender's evaluation of all losses turn by turn, checks that the losses agree, and
prints a table. A full run is kept in benchmarks/results/, or where ``--json`` says. Peers find all
vendors' weights ready; ours makes them from seeds within the time that is measured. On a GPU
the others find the batch there too, ours takes it from the host.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

from benchmarks import contenders, fresh, harness, table
from benchmarks.cases import CASES, Case
from benchmarks.contenders import OURS, Contender
from benchmarks.problem import Problem, make_problem
from benchmarks.table import Row

# Largest relative difference of a path's loss from our float32 one. bfloat16 keeps 8 bits, and its
# rounding errors add up over the layers of a path.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


class Peers:
    """One run of the benchmark.

    Parameters
    ----------
    options : argparse.Namespace
        The command line's.
    folder : pathlib.Path
        For the problems' files.
    """

    def __init__(
        self, options: argparse.Namespace, folder: pathlib.Path, made: dict[str, Any]
    ) -> None:
        self.options = options
        self.made = made
        self.folder = folder
        self.rows: list[Row] = []
        self.peaks: dict[str, float] = {}
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.say(f"{harness.heading(made)}; {options.threads} threads; {options.device}")
        chosen = contenders.choose(options.contenders, options.include_slow)
        self.contenders, missing = contenders.load(chosen, options.threads, options.device)
        for name, reason in missing.items():
            self.note(name, reason)
        self.say(f"\n{table.HEADER}")

    def say(self, text: str) -> None:
        """Print a line, and keep it."""
        print(text, flush=True)
        self.lines.append(text)

    def note(self, what: str, reason: str) -> None:
        """Say that something is left out."""
        self.notes.append(f"{what}: {reason}")
        self.say(f"skipped {what}: {reason}")

    def run_case(self, case: Case) -> None:
        """Measure all contenders on one case, in every dtype."""
        problem = make_problem(case, self.folder, self.options.threads, self.options.device)
        for dtype in self.options.dtype.split(","):
            runs, rows = self._first_runs(problem, dtype)
            if runs:
                self._time(problem, dtype, runs, rows)
                self._alone(problem, rows)
            for row in table.rank(list(rows.values())):
                self.rows.append(row)
                self.say(table.line(row))
        problem.path.unlink()

    def _first_runs(
        self, problem: Problem, dtype: str
    ) -> tuple[dict[str, harness.Run], dict[str, Row]]:
        runs, rows = {}, {}
        for contender in self.contenders:
            what = f"{contender.name} in {problem.case.name} {dtype}"
            reason = contender.module.why_not(contender.name, problem.case, dtype)
            if reason is not None:
                self.note(what, reason)
                continue
            try:
                runs[contender.name], rows[contender.name] = self._first(contender, problem, dtype)
            except Exception as error:  # a peer's failure must not cost the others' results
                if contender.name == OURS:
                    raise
                self.note(what, f"{type(error).__name__}: {error}".splitlines()[0])
        return runs, rows

    def _first(self, contender: Contender, problem: Problem, dtype: str) -> tuple[harness.Run, Row]:
        threads = self.options.threads
        run = contender.module.prepare(contender.name, problem, dtype, threads)
        seconds, losses = harness.timed(run)
        expected = problem.losses.astype(np.float64)
        difference = float(np.max(np.abs(losses - expected) / np.abs(expected)))
        row = Row(
            case=problem.case.name, contender=contender.name, dtype=dtype,
            median_ms=0.0, min_ms=0.0, max_ms=0.0, first_ms=seconds * 1e3,
            gflops=0.0, share_of_peak=0.0,
            loss_difference=difference, losses_agree=difference <= TOLERANCE[dtype],
        )  # fmt: skip
        return run, row

    def _time(
        self, problem: Problem, dtype: str, runs: dict[str, harness.Run], rows: dict[str, Row]
    ) -> None:
        from marketplace._core import Engine

        engine = Engine(self.options.device, dtype, self.options.threads)
        peaks: list[float] = []
        yardstick = 0.01 if self.options.quick else 0.2
        every = runs | {"peak": lambda: peaks.append(engine.measure_peak(yardstick))}
        seconds = harness.interleaved(every, self.options.repeats)
        self.peaks[dtype] = max([self.peaks.get(dtype, 0.0), *peaks])
        for name, row in rows.items():
            for field, value in harness.statistics_ms(seconds[name]).items():
                setattr(row, field, value)
            row.gflops = problem.flops / row.median_ms / 1e6
            row.share_of_peak = row.gflops * 1e9 / max(peaks)

    def _alone(self, problem: Problem, rows: dict[str, Row]) -> None:
        if self.options.no_memory:
            return
        for row in rows.values():
            task = fresh.Task(row.contender, problem, row.dtype, self.options.threads)
            measured = fresh.measure(task)
            row.peak_bytes = measured["peak_bytes"]
            row.working_bytes = measured["peak_bytes"] - measured["ready_bytes"]
            row.fresh_first_ms, row.fresh_later_ms = measured["first_ms"], measured["later_ms"]

    def finish(self) -> dict[str, Any]:
        """Print the legend and the goals; give all figures."""
        imported = harness.import_times_ms("marketplace", 1 if self.options.quick else 5)
        for text in (
            "",
            table.legend(self.peaks),
            "",
            *table.verdicts(self.rows, self.options.device),
        ):
            self.say(text)
        self.say(table.import_verdict(imported["median_ms"]))
        return {
            **self.made,
            "load_average_after": list(os.getloadavg()),
            "threads": self.options.threads,
            "device": self.options.device,
            "repeats": self.options.repeats,
            "tolerance": TOLERANCE,
            "peak_flops": self.peaks,
            "import_ms": imported,
            "notes": self.notes,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", help=f"with commas; default all; of {', '.join(CASES)}")
    contenders.add_arguments(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, hip:0; default cpu")
    parser.add_argument("--dtype", default="float32,bfloat16", help="default float32,bfloat16")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each; default 9")
    parser.add_argument("--threads", type=int, default=harness.usable_cores())
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="the result's file")
    parser.add_argument(
        "--no-memory",
        action="store_true",
        help="no processes for peak memory; never on a GPU, where it is the host's",
    )
    parser.add_argument("--quick", action="store_true", help="tiny batches, to see that it works")
    options = parser.parse_args(arguments)
    for given, known in ((options.cases, CASES), (options.dtype, TOLERANCE)):
        for name in given.split(",") if given else ():
            if name not in known:
                parser.error(f"expected some of {', '.join(known)}, received {name!r}")
    if options.quick:
        options.repeats, options.no_memory = 2, True
    options.no_memory |= options.device != "cpu"
    return options


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Give the named cases, or all that suit the device."""
    if options.cases:
        found = [CASES[name] for name in options.cases.split(",")]
    else:
        found = [case for case in CASES.values() if options.device != "cpu" or not case.gpu_only]
    return [case.small() for case in found] if options.quick else found


def main(arguments: list[str]) -> int:
    """Measure, print the table, keep the result; 1 if some losses do not agree."""
    options = parse(arguments)
    harness.limit_threads(options.threads)
    made = harness.record("peers", arguments)
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(options, pathlib.Path(folder), made)
        for case in chosen_cases(options):
            peers.run_case(case)
        result = peers.finish()
    whole = not (options.cases or options.contenders or options.quick)
    path = options.json or (harness.result_path("peers", made) if whole else None)
    if path is not None:
        harness.write_result(path, result, "\n".join(peers.lines))
    wrong = [row for row in peers.rows if not row.losses_agree]
    for row in wrong:
        print(f"losses differ: {table.line(row)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
