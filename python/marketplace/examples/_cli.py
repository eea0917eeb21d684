"""The command line that the examples share: options, their checks, exit statuses.

A value that can be judged by itself is refused by the parser: a message, status 2. What only
the machine can tell (no such device, no data, a full disk) is one line and status 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data import DATASETS, SOURCES
from ._values import find_path_problem, number, vendor_counts, whole

STATUS_OK = 0
STATUS_FAILED = 1
STATUS_INTERRUPTED = 130

PLANS = ("star", "tree")
DTYPES = ("float32", "bfloat16")
PLOT_FORMATS = (".png", ".svg", ".pdf")
DEFAULT_SEED = 42
DEFAULT_PLAN = "star"
DEFAULT_VENDORS = {"star": (8, 40, 512), "tree": (8, 8, 8)}


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; None means not given.

    ``plan``, ``vendors``, ``lr``, ``probe_scale``, ``meta_lr``, ``seed`` and ``dtype`` can come
    from a checkpoint, so a default for them is settled only when no run is resumed.
    """

    steps: int
    batch_size: int
    vendors: tuple[int, ...] | None
    plan: str | None
    lr: float | None
    lr_decay: float
    probe_scale: float | None
    meta_lr: float | None
    seed: int | None
    device: str
    dtype: str | None
    threads: int | None
    data: str
    dataset: str
    eval_every: int
    checkpoint: Path | None
    checkpoint_every: int
    resume: Path | None
    plot: Path | None
    json: Path | None
    quiet: bool


@dataclasses.dataclass(frozen=True)
class Defaults:
    """An example's own defaults, as tuned for it."""

    steps: int
    batch_size: int
    lr: float
    lr_decay: float
    probe_scale: float


def parse(
    prog: str, description: str, defaults: Defaults, argv: Sequence[str] | None = None
) -> Options:
    """Parse and check a command line.

    Parameters
    ----------
    prog : str
        The command, as shown in its help.
    description : str
        One sentence for its help.
    defaults : Defaults
        The example's defaults.
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    Options
        Checked values.

    Raises
    ------
    SystemExit
        With status 2 after a message about a bad value; with 0 after ``--help``.
    """
    parser = _parser(prog, description, defaults)
    options = Options(**vars(parser.parse_args(argv)))
    problem = _find_problem(options)
    if problem is not None:
        parser.error(problem)
    return options


def fail(prog: str, error: BaseException) -> int:
    """Print an error as one line on standard error; return the exit status for it."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"{prog}: error: {text}", file=sys.stderr)
    return STATUS_FAILED


def _parser(prog: str, description: str, defaults: Defaults) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    _add_training(parser.add_argument_group("training"), defaults)
    _add_machine(parser.add_argument_group("machine and data"))
    _add_output(parser.add_argument_group("output"))
    return parser


_Group = argparse._ArgumentGroup


def _add_training(group: _Group, defaults: Defaults) -> None:
    group.add_argument(
        "--steps",
        type=whole(0),
        default=defaults.steps,
        metavar="N",
        help="train until step N (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size",
        type=whole(1),
        default=defaults.batch_size,
        metavar="N",
        help="images per step (default: %(default)s)",
    )
    group.add_argument(
        "--vendors",
        type=vendor_counts,
        metavar="N,N,N",
        help="vendors of each spec, or one number for all (default: 8,40,512 "
        "with plan star, 8,8,8 with plan tree)",
    )
    group.add_argument(
        "--plan",
        choices=PLANS,
        help="which paths are tried: every one (tree), or those that leave the "
        "leader's path in one place (star, the default)",
    )
    group.add_argument(
        "--lr", type=number(low=0.0), metavar="X", help=f"learning rate (default: {defaults.lr})"
    )
    group.add_argument(
        "--lr-decay",
        type=number(low=0.0, high=1.0, low_included=True),
        default=defaults.lr_decay,
        metavar="X",
        help="the learning rate, or the meta learning rate where there is one, "
        "is multiplied by 1 - X after each step (default: %(default)s)",
    )
    group.add_argument(
        "--probe-scale",
        type=number(low=0.0),
        metavar="X",
        help=f"size of the deltas relative to the learning rate (default: {defaults.probe_scale})",
    )
    group.add_argument(
        "--meta-lr",
        type=number(low=0.0, high=1.0),
        metavar="X",
        help="search along each direction with learning rates changed by up to "
        "this share (default: no search)",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        metavar="N",
        help="seed of everything random: initial weights, deltas, batches "
        f"(default: {DEFAULT_SEED})",
    )


def _add_machine(group: _Group) -> None:
    group.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, or one that `python -m marketplace info` lists (default: %(default)s)",
    )
    group.add_argument(
        "--dtype", choices=DTYPES, help="what to compute in; weights are float32 (default: float32)"
    )
    group.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads on a CPU (default: one per core)"
    )
    group.add_argument(
        "--data",
        choices=SOURCES,
        default="auto",
        help="full: the whole set, MNIST is downloaded when it is not in the "
        "cache; bundled: the subset in the package; auto: the whole set if it is "
        "there, else the subset (default: %(default)s). The directory that "
        "MARKETPLACE_DATA names is the cache",
    )
    group.add_argument(
        "--dataset",
        choices=DATASETS,
        default="mnist",
        help="digits or clothes (default: %(default)s)",
    )


def _add_output(group: _Group) -> None:
    group.add_argument(
        "--eval-every",
        type=whole(1),
        default=25,
        metavar="N",
        help="measure the test accuracy every N steps, on at most 1,000 test "
        "images; at the end on all of them (default: %(default)s)",
    )
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="write the state of training there, now and then, at the end and on Ctrl-C",
    )
    group.add_argument(
        "--checkpoint-every",
        type=whole(1),
        default=100,
        metavar="N",
        help="steps from one checkpoint to the next (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="go on from a checkpoint; with the other options as before, the "
        "result is the same to the bit as without the stop",
    )
    group.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the learning curve (PNG; or SVG, PDF by the file's name)",
    )
    group.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write settings, results and history as one JSON object",
    )
    group.add_argument("--quiet", action="store_true", help="no progress, only the summary line")


def _find_problem(options: Options) -> str | None:
    """Look for what values say only together, or about this machine's directories."""
    if options.dataset == "fashion" and options.data == "bundled":
        return "argument --data: Fashion-MNIST has no bundled subset, expected auto or full"
    if options.plot is not None and options.plot.suffix.lower() not in PLOT_FORMATS:
        expected = ", ".join(PLOT_FORMATS)
        return f"argument --plot: expected a name ending in {expected}, received {options.plot}"
    for name in ("checkpoint", "plot", "json"):
        path: Path | None = getattr(options, name)
        if path is not None and (problem := find_path_problem(path)) is not None:
            return f"argument --{name}: {problem}"
    return None
