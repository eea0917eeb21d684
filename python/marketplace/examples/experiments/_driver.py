"""Running an experiment: its base models, its runs one after another, its results."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._arrays import refusal
from ..._disk import same_file
from .. import _cli, _plot
from ._experiment import Experiment, Trial
from ._options import EXPERIMENTS, PROG, list_lines, parse
from ._results import Result, table, write_json, write_plot

Report = Mapping[str, Any]
_REPORT = ".json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the reference's experiments.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 after an error or when a run failed, 130 after Ctrl-C, 143 after
        SIGTERM.

    Raises
    ------
    SystemExit
        With status 2 after a bad option, with 0 after ``--help``.
    """
    options = parse(list(sys.argv[1:] if argv is None else argv))
    if options.list:
        print("\n".join(list_lines()))
        return _cli.STATUS_OK
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _cli.STATUS_INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        return _cli.fail(PROG, error)


def _run(options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        directory = options.out
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sweep = _Sweep(EXPERIMENTS[options.name], options, directory)
        if options.dry_run:
            print("\n".join(sweep.lines()))
            return _cli.STATUS_OK
        directory.mkdir(parents=True, exist_ok=True)
        sweep.check()
        return sweep.run()


class _Sweep:
    """One experiment with what was asked for.

    Parameters
    ----------
    experiment : Experiment
        The preset.
    options : Namespace
        The command line.
    directory : Path
        Where reports and base models lie.
    """

    def __init__(
        self, experiment: Experiment, options: argparse.Namespace, directory: Path
    ) -> None:
        self._experiment = experiment
        self._options = options
        self._directory = directory
        numbers = options.runs or range(1, len(experiment.trials) + 1)
        self._trials = [experiment.trials[number - 1] for number in numbers]

    def lines(self) -> list[str]:
        """Give the commands that would run."""
        bases = [
            _line("mnist", (*self._base_words(name), "--checkpoint", str(self._base_path(name))))
            for name in self._bases()
        ]
        return bases + [_line(each.program, self._command(each)) for each in self._trials]

    def check(self) -> None:
        """Find out before the first run what is wrong with any command line."""
        if self._options.plot is not None:
            _plot.require_matplotlib()
        for each in self._trials:
            _module(each.program).parse(self._command(each))
        for name in ("json", "plot"):
            path = getattr(self._options, name)
            if path is not None and any(same_file(path, own) for own in self._own_files()):
                raise refusal(ValueError, f"--{name}", "a file that is no run's own in --out", path)

    def run(self) -> int:
        """Run everything; give the exit status."""
        if self._experiment.note:
            self._tell(f"{self._experiment.name}: {self._experiment.note}")
        for name in self._bases():
            status = self._train_base(name)
            if status != _cli.STATUS_OK:
                return status
        results: list[Result] = []
        status = _cli.STATUS_OK
        for number, each in enumerate(self._trials, start=1):
            self._tell(f"[{number}/{len(self._trials)}] {each.name}")
            report, status = self._run_trial(each)
            if status in _cli.STOPPED:
                break
            results.append(Result(each, self._command(each), report))
        if results:
            self._write(results)
        if status in _cli.STOPPED:
            return status
        failed = any(result.report is None for result in results)
        return _cli.STATUS_FAILED if failed else _cli.STATUS_OK

    def _own_files(self) -> Iterator[Path]:
        """Name what the runs and their base models write, or find there."""
        for name in self._bases():
            yield from (self._base_path(name), self._base_path(name).with_suffix(".json"))
        for each in self._trials:
            yield from (self._file_path(each, end) for end in (_REPORT, *each.files.values()))

    def _file_path(self, each: Trial, ending: str) -> Path:
        return self._directory / f"{self._experiment.name}-{each.stem}{ending}"

    # -- base models -------------------------------------------------------------------------------

    def _bases(self) -> list[str]:
        """Name the models that are to be trained for the chosen runs."""
        if self._options.base is not None:
            return []
        return list(dict.fromkeys(each.base for each in self._trials if each.base is not None))

    def _base_path(self, name: str) -> Path:
        return self._directory / f"{self._experiment.name}-{name}.safetensors"

    def _base_words(self, name: str) -> tuple[str, ...]:
        words = self._experiment.bases[name]
        if self._options.base_steps is not None:
            words = (*words, "--steps", str(self._options.base_steps))
        return (*words, *self._options.base_options)

    def _train_base(self, name: str) -> int:
        path, words = self._base_path(name), self._base_words(name)
        told = path.with_suffix(".json")
        if path.exists() and _kept(told, words) is not None:
            self._tell(f"{name}: {path} is there")
            return _cli.STATUS_OK
        self._tell(f"{name}: {shlex.join(words)}")
        report, status = self._call("mnist", (*words, "--checkpoint", str(path), "--quiet"))
        if report is not None:
            _keep(told, words, report)
        return status

    # -- runs --------------------------------------------------------------------------------------

    def _command(self, each: Trial) -> tuple[str, ...]:
        """Give a run's command line; what comes later overrules what came before."""
        words = list(each.arguments)
        if each.base is not None:
            words += ["--base", str(self._options.base or self._base_path(each.base))]
        if self._options.out is not None:
            for option, ending in each.files.items():
                words += [option, str(self._file_path(each, ending))]
        if self._options.steps is not None:
            words += ["--steps", str(self._options.steps)]
        return (*words, *self._options.extra, "--quiet")

    def _run_trial(self, each: Trial) -> tuple[Report | None, int]:
        """Run a trial, unless the report of the same one is there already."""
        path = self._file_path(each, _REPORT)
        command = self._command(each)
        words = command
        if each.base is not None and self._options.base is None:
            words = (*command, *self._base_words(each.base))  # another base, another result
        kept = _kept(path, words)
        if kept is not None:
            self._tell(f"{path} is there")
            return kept, _cli.STATUS_OK
        report, status = self._call(each.program, command)
        if report is not None:
            _keep(path, words, report)
        return report, status

    def _call(self, program: str, command: Sequence[str]) -> tuple[Report | None, int]:
        """Run an example in this process; give its report and its status."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "report.json"
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                status = _module(program).main([*command, "--json", str(path)])
            if said.getvalue():
                self._tell(said.getvalue().rstrip())
            if status != _cli.STATUS_OK:
                return None, status
            report: Report = json.loads(path.read_text(encoding="utf-8"))
            return report, status

    # -- results -----------------------------------------------------------------------------------

    def _write(self, results: Sequence[Result]) -> None:
        print(table(self._experiment, results), flush=True)
        if self._options.json is not None:
            write_json(self._options.json, self._experiment, results)
        if self._options.plot is not None:
            write_plot(self._options.plot, self._experiment, results)

    def _tell(self, line: str) -> None:
        if not self._options.quiet:
            print(line, file=sys.stderr, flush=True)


def _module(program: str) -> Any:
    return importlib.import_module(f"marketplace.examples.{program}")


def _line(program: str, words: Sequence[str]) -> str:
    return f"python -m marketplace.examples.{program} {shlex.join(words)}"


def _keep(path: Path, words: Sequence[str], report: Report) -> None:
    content = {"arguments": list(words), "report": report}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _kept(path: Path, words: Sequence[str]) -> Report | None:
    """Read the report of the same command, if there is one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        report: Report = content["report"]
        return report if content["arguments"] == list(words) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
