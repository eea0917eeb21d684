"""The command line of the experiments' driver."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

from .. import _cli
from .._values import find_clash, find_path_problem, whole
from ._experiment import Experiment
from ._streams import STREAMS
from ._sweeps import SWEEPS

PROG = "python -m marketplace.examples.experiments"
EXPERIMENTS: Mapping[str, Experiment] = {each.name: each for each in (*SWEEPS, *STREAMS)}


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the command line; what follows ``--`` goes to the runs."""
    cut = words.index("--") if "--" in words else len(words)
    parser = _parser()
    options = parser.parse_args(words[:cut])
    options.extra = words[cut + 1 :]
    problem = _find_problem(options)
    if problem is not None:
        parser.error(problem)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Run one of the reference's experiments. What follows -- is handed to each of "
        "its runs, as in: lr --steps 100 -- --plan star --vendors 8,40,512",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="which one; see --list")
    parser.add_argument("--list", action="store_true", help="say what there is")
    _add_runs(parser)
    _add_files(parser)
    return parser


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps", type=whole(0), metavar="N", help="steps of every run (default: the reference's)"
    )
    parser.add_argument(
        "--base-steps",
        type=whole(0),
        metavar="N",
        help="steps of the model to start from (default: the reference's)",
    )
    parser.add_argument(
        "--base-options",
        type=shlex.split,
        default=[],
        metavar="TEXT",
        help="more options for training the model to start from, such as "
        "--base-options='--plan star --vendors 8,40,512'",
    )
    parser.add_argument(
        "--runs",
        type=_choice,
        metavar="N,N-N",
        help="only these runs, by their numbers from 1 (default: all)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands instead of running them"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep every run's report, its other files and the models to start from there; what is "
        "there already, of the same command, is not run again",
    )
    parser.add_argument(
        "--base", type=Path, metavar="FILE", help="a checkpoint to start from instead of training"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all results as one JSON object"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the learning curves (PNG, SVG or PDF)"
    )


def _choice(text: str) -> tuple[int, ...]:
    """Parse numbers and ranges, such as 1,4-6."""
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(first) < 1:
            raise argparse.ArgumentTypeError(
                f"expected numbers from 1 and ranges of them, such as 1,4-6, received {text!r}"
            )
        chosen += range(int(first), int(last if dash else first) + 1)
    if not chosen:
        raise argparse.ArgumentTypeError(f"expected at least one number, received {text!r}")
    return tuple(sorted(set(chosen)))


def _find_problem(options: argparse.Namespace) -> str | None:
    if options.list:
        return None
    if options.name not in EXPERIMENTS:
        expected = ", ".join(EXPERIMENTS)
        return f"argument NAME: expected one of {expected}, received {options.name or 'none'}"
    experiment = EXPERIMENTS[options.name]
    count = len(experiment.trials)
    if options.runs is not None and options.runs[-1] > count:
        return f"argument --runs: expected numbers up to {count}, received {options.runs[-1]}"
    for name in ("base", "base_steps", "base_options"):
        if getattr(options, name) and not experiment.bases:
            flag = f"--{name.replace('_', '-')}"
            return f"argument {flag}: expected none, {options.name} starts from nothing"
    if options.plot is not None and options.plot.suffix.lower() not in _cli.PLOT_FORMATS:
        expected = ", ".join(_cli.PLOT_FORMATS)
        return f"argument --plot: expected a name ending in {expected}, received {options.plot}"
    for name in ("json", "plot"):
        path = getattr(options, name)
        if path is not None and (problem := find_path_problem(path)) is not None:
            return f"argument --{name}: {problem}"
    files = {"--base": options.base, "--json": options.json, "--plot": options.plot}
    return find_clash(files)


def list_lines() -> list[str]:
    """Say what experiments there are, one a line."""
    width = max(map(len, EXPERIMENTS))
    return [
        f"{each.name:{width}}  {len(each.trials):3} "
        f"{'run ' if len(each.trials) == 1 else 'runs'}  {each.summary}"
        for each in EXPERIMENTS.values()
    ]
