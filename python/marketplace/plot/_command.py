"""``python -m marketplace plot``."""

import argparse
from pathlib import Path
from typing import Any

from .._arrays import refusal
from .._disk import same_file
from ._figures import FORMATS, continual_curves, learning_curves, require_matplotlib, save
from ._runs import AXES, Run, load_run


def add_to(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = commands.add_parser(
        "plot",
        help="draw learning curves of one or several runs",
        description="Draw the learning curves of runs. RUN is a log (.jsonl, .csv) or a JSON "
        "report (.json), or LABEL=FILE: runs with the same label are drawn as their mean, with a "
        "band of one standard deviation. Runs of continual learning show old and new classes.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="FILE or LABEL=FILE")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="PNG, SVG or PDF to write"
    )
    parser.add_argument(
        "--x",
        default="step",
        metavar="X[,X]",
        help=f"what to draw against: {', '.join(AXES)}, or several of them (default: step)",
    )
    parser.add_argument(
        "--metrics",
        metavar="NAME[,NAME]",
        help="what to draw (default: testing/accuracy,training/loss)",
    )
    parser.add_argument("--title", metavar="TEXT", help="line above the picture")
    parser.add_argument("--log-x", action="store_true", help="logarithmic x")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    require_matplotlib()
    if options.out.suffix.lower() not in FORMATS:
        raise refusal(ValueError, "--out", f"a name ending in {', '.join(FORMATS)}", options.out)
    for file in map(_file, options.runs):
        if same_file(options.out, file):
            raise refusal(ValueError, "--out", "a file other than the runs'", options.out)
    runs = [_load(text) for text in options.runs]
    if options.metrics is None and all("testing/old_accuracy" in run.metrics for run in runs):
        figure = continual_curves(runs, x=options.x, title=options.title)
    else:
        chosen = {} if options.metrics is None else {"metrics": options.metrics.split(",")}
        figure = learning_curves(
            runs, x=options.x.split(","), title=options.title, log_x=options.log_x, **chosen
        )
    save(figure, options.out)


def _load(text: str) -> Run:
    """Load FILE or LABEL=FILE."""
    file = _file(text)
    return load_run(file) if file == text else load_run(file, text.partition("=")[0])


def _file(text: str) -> str:
    """Give the file of FILE or LABEL=FILE; one whose own name has such a sign is taken as FILE."""
    _, sign, name = text.partition("=")
    return name if sign and not Path(text).exists() else text
