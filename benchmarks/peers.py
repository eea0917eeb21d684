"""Ours beside what a user could pick instead: the same probe, identical weights, one process.

    python -m benchmarks.peers [--cases tree-8,mlp] [--contenders ours,torch] [--dtype float32]
    python -m benchmarks.peers --device cuda:0 --cases tree-16 --contenders ours,torch,jax

Times every contender's evaluation of all losses turn by turn, checks that the losses agree, and
prints a table. A full run is kept in benchmarks/results/, or where ``--json`` says. Peers find all
vendors' weights ready; ours makes them from seeds within the time that is measured. On a GPU all
find the batch there; ``ours-host`` takes it from the host.

On a GPU, where compiling takes longer than all timing, the contenders are timed together anew
whenever one more is ready (``--one-by-one``). ``--json`` holds what is known by then; Ctrl-C and
SIGTERM end a run with the table of what was measured and a line of what is missing.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

from benchmarks import contender_ours, contenders, fresh, harness, table
from benchmarks.cases import CASES, Case
from benchmarks.contenders import OURS, Contender
from benchmarks.problem import Problem, make_problem
from benchmarks.table import Row

# Largest relative difference of a path's loss from our float32 one. bfloat16 keeps 8 bits, and its
# rounding errors add up over the layers of a path.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
FEWEST_REPEATS = 3  # that an interrupted timing must have to count
INTERRUPTED = 130  # as a shell says it of Ctrl-C


@dataclasses.dataclass
class Contest:
    """One case in one dtype: who is ready to run, and what is known of them."""

    problem: Problem
    dtype: str
    runs: dict[str, harness.Run] = dataclasses.field(default_factory=dict)
    rows: dict[str, Row] = dataclasses.field(default_factory=dict)

    def what(self, contender: str) -> str:
        """Name what a contender does here."""
        return _what(contender, self.problem.case.name, self.dtype)

    def ranked(self) -> list[Row]:
        """Give the rows of those that were timed, fastest first."""
        return table.rank([row for row in self.rows.values() if row.repeats])


def _what(contender: str, case: str, dtype: str) -> str:
    return f"{contender} in {case} {dtype}"


def _by_contest(what: list[str]) -> dict[str, list[str]]:
    """Give the contenders of every case and dtype."""
    names: dict[str, list[str]] = {}
    for contender, _, contest in (one.partition(" in ") for one in what):
        names.setdefault(contest, []).append(contender)
    return names


class Peers:
    """One run of the benchmark.

    Parameters
    ----------
    options : argparse.Namespace
        The command line's.
    folder : pathlib.Path
        For the problems' files.
    made : dict
        The record of the run.
    """

    def __init__(
        self, options: argparse.Namespace, folder: pathlib.Path, made: dict[str, Any]
    ) -> None:
        self.options = options
        self.made = made
        self.folder = folder
        self.on_gpu = options.device != "cpu"
        self.contenders: list[Contender] = []
        self.planned: list[str] = []
        self.rows: list[Row] = []
        self.peaks: dict[str, float] = {}
        self.imported: dict[str, float] | None = None
        self.notes: list[str] = []
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Print a line, and keep it."""
        print(text, flush=True)
        self.lines.append(text)

    def note(self, what: str, reason: str) -> None:
        """Say that something is left out."""
        self.notes.append(f"{what}: {reason}")
        self.say(f"skipped {what}: {reason}")

    # -- the course of a run -----------------------------------------------------------------------

    def run(self, cases: list[Case]) -> None:
        """Measure everything; an interrupt ends it, and what was measured stays."""
        try:
            self._start(cases)
            for case in cases:
                self._run_case(case)
            if not self.on_gpu:  # the host's figure, as memory is
                self.imported = harness.import_times_ms(
                    "marketplace", 1 if self.options.quick else 5
                )
        except KeyboardInterrupt:
            self.say("interrupted")

    def _start(self, cases: list[Case]) -> None:
        options = self.options
        self.say(f"{harness.heading(self.made)}; {options.threads} threads; {options.device}")
        chosen = contenders.choose(options.contenders, options.include_slow, options.device)
        self._plan(chosen, cases)
        self.contenders, missing = contenders.load(chosen, options.threads, options.device)
        self._plan(self.contenders, cases)
        for name, reason in missing.items():
            self.note(name, reason)
        if self.on_gpu:
            self.say(f"our batch: {contender_ours.whereabouts(options.device)}")
        self.say(f"\n{table.HEADER}")

    def _plan(self, chosen: list[Contender], cases: list[Case]) -> None:
        dtypes = self.options.dtype.split(",")
        self.planned = [
            _what(contender.name, case.name, dtype)
            for case in cases for dtype in dtypes for contender in chosen
        ]  # fmt: skip

    def _run_case(self, case: Case) -> None:
        problem = make_problem(case, self.folder, self.options.threads, self.options.device)
        for dtype in self.options.dtype.split(","):
            contest = Contest(problem, dtype)
            try:
                self._hold(contest)
            finally:
                for row in contest.ranked():
                    self.rows.append(row)
                    self.say(table.line(row))
        problem.path.unlink()

    def _hold(self, contest: Contest) -> None:
        every = self.contenders
        groups = [[one] for one in every] if self.options.one_by_one else [every]
        for group in groups:
            if sum([self._admit(contender, contest) for contender in group]):
                self._time(contest)
                self._alone(contest)
                self.keep(contest)

    # -- one contest -------------------------------------------------------------------------------

    def _admit(self, contender: Contender, contest: Contest) -> bool:
        what, case = contest.what(contender.name), contest.problem.case
        reason = contender.module.why_not(contender.name, case, contest.dtype)
        if reason is not None:
            self.note(what, reason)
            return False
        try:
            self._first(contender, contest)
        except Exception as error:  # a peer's failure must not cost the others' results
            if contender.family == OURS:
                raise
            self.note(what, f"{type(error).__name__}: {error}".splitlines()[0])
            return False
        return True

    def _first(self, contender: Contender, contest: Contest) -> None:
        problem, dtype, name = contest.problem, contest.dtype, contender.name
        run = contender.module.prepare(name, problem, dtype, self.options.threads)
        seconds, losses = harness.timed(run)
        expected = problem.losses.astype(np.float64)
        difference = float(np.max(np.abs(losses - expected) / np.abs(expected)))
        contest.runs[name] = run
        contest.rows[name] = Row(
            case=problem.case.name, contender=name, dtype=dtype,
            median_ms=0.0, min_ms=0.0, max_ms=0.0, first_ms=seconds * 1e3,
            gflops=0.0, share_of_peak=0.0,
            loss_difference=difference, losses_agree=difference <= TOLERANCE[dtype],
        )  # fmt: skip

    def _time(self, contest: Contest) -> None:
        dtype, every, peaks = contest.dtype, dict(contest.runs), list[float]()
        if not self.on_gpu:  # whose speed hangs on what else the machine does at the time
            every["peak"] = self._yardstick(dtype, peaks)
        elif dtype not in self.peaks:
            harness.warm_up(self._yardstick(dtype, peaks), FEWEST_REPEATS)
        seconds: dict[str, list[float]] = {}
        try:
            harness.interleaved(every, self.options.repeats, seconds=seconds)
        finally:
            best = self.peaks.get(dtype, 0.0)
            self.peaks[dtype] = max([best, *peaks])
            self._fill(contest, seconds, max(peaks, default=best))

    def _yardstick(self, dtype: str, peaks: list[float]) -> harness.Run:
        from marketplace._core import Engine

        engine = Engine(self.options.device, dtype, self.options.threads)
        seconds = 0.01 if self.options.quick else 0.2
        return lambda: peaks.append(engine.measure_peak(seconds))

    def _fill(self, contest: Contest, seconds: dict[str, list[float]], peak: float) -> None:
        """Enter times that all have; where an interrupt left too few, those of before stay."""
        repeats = min(map(len, seconds.values()), default=0)
        if repeats < min(FEWEST_REPEATS, self.options.repeats):
            return
        for name, row in contest.rows.items():
            for field, value in harness.statistics_ms(seconds[name][:repeats]).items():
                setattr(row, field, value)
            row.repeats = repeats
            row.gflops = contest.problem.flops / row.median_ms / 1e6
            row.share_of_peak = row.gflops * 1e9 / peak

    def _alone(self, contest: Contest) -> None:
        if self.options.no_memory:
            return
        for row in contest.rows.values():
            if row.peak_bytes is not None:
                continue
            task = fresh.Task(row.contender, contest.problem, row.dtype, self.options.threads)
            measured = fresh.measure(task)
            row.peak_bytes = measured["peak_bytes"]
            row.working_bytes = measured["peak_bytes"] - measured["ready_bytes"]
            row.fresh_first_ms, row.fresh_later_ms = measured["first_ms"], measured["later_ms"]

    # -- what comes of it --------------------------------------------------------------------------

    def missing(self, rows: list[Row]) -> list[str]:
        """List what was to be measured and neither was nor was left out for a reason."""
        settled = {_what(row.contender, row.case, row.dtype) for row in rows}
        settled.update(note.partition(":")[0] for note in self.notes)
        return [what for what in self.planned if what not in settled]

    def keep(self, contest: Contest) -> None:
        """Write down what is known so far, for whoever finds the run killed."""
        if self.options.json is not None:
            known = contest.ranked()
            text = [*self.lines, *map(table.line, known), *self._absent([*self.rows, *known])]
            result = self.result([*self.rows, *known])
            harness.write_result(self.options.json, result, "\n".join(text))

    def _absent(self, rows: list[Row]) -> list[str]:
        planned, missing = _by_contest(self.planned), _by_contest(self.missing(rows))
        whole = [contest for contest, names in missing.items() if names == planned[contest]]
        parts = [
            f"{', '.join(names)} in {contest}"
            for contest, names in missing.items() if contest not in whole
        ]  # fmt: skip
        if whole:
            parts.append(f"everything in {', '.join(whole)}")
        return [f"missing: {'; '.join(parts)}"] if parts else []

    def finish(self) -> dict[str, Any]:
        """Print the legend, the goals and what is missing; give all figures."""
        verdicts = table.verdicts(self.rows, self.options.device)
        for text in ("", table.legend(self.peaks), "", *verdicts):
            self.say(text)
        if self.imported is not None:
            self.say(table.import_verdict(self.imported["median_ms"]))
        for text in self._absent(self.rows):
            self.say(text)
        return self.result(self.rows)

    def result(self, rows: list[Row]) -> dict[str, Any]:
        """Give the figures of some rows, and how they were made."""
        options = self.options
        return {
            **self.made,
            "load_average_after": list(os.getloadavg()),
            "threads": options.threads,
            "device": options.device,
            "our_batch": contender_ours.whereabouts(options.device),
            "repeats": options.repeats,
            "tolerance": TOLERANCE,
            "peak_flops": self.peaks,
            "import_ms": self.imported,
            "notes": self.notes,
            "missing": self.missing(rows),
            "rows": [dataclasses.asdict(row) for row in rows],
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
    parser.add_argument(
        "--one-by-one",
        action="store_true",
        help="time all that are ready anew with each one more; always so on a GPU",
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
    options.one_by_one |= options.device != "cpu"
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
    with harness.interruptible(), tempfile.TemporaryDirectory() as folder:
        peers = Peers(options, pathlib.Path(folder), made)
        peers.run(chosen_cases(options))
        result = peers.finish()
    whole = not (options.cases or options.contenders or options.quick or result["missing"])
    path = options.json or (harness.result_path("peers", made) if whole else None)
    if path is not None:
        harness.write_result(path, result, "\n".join(peers.lines))
    wrong = [row for row in peers.rows if not row.losses_agree]
    for row in wrong:
        print(f"losses differ: {table.line(row)}", file=sys.stderr)
    return 1 if wrong else INTERRUPTED if result["missing"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
