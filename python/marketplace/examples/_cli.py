"""The command line that the examples share: options, their checks, exit statuses.

A value that can be judged by itself is refused by the parser: a message, status 2. What only
the machine can tell (no such device, no data, a full disk) is one line and status 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import operator
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..replay._recorder import base_checkpoint
from ._arguments import (
    LR_FINAL,
    Defaults,
    add_logs,
    add_machine,
    add_output,
    add_schedule,
    add_training,
    add_update,
)
from ._values import AUTO, find_clash, find_path_problem

STATUS_OK = 0
STATUS_FAILED = 1
STATUS_INTERRUPTED = 128 + signal.SIGINT
STATUS_TERMINATED = 128 + signal.SIGTERM
STOPPED = (STATUS_INTERRUPTED, STATUS_TERMINATED)

PLOT_FORMATS = (".png", ".svg", ".pdf")
LOG_FORMATS = (".jsonl", ".csv")
REPLAY_BASE = "--replay-log's checkpoint"


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What probes are shared through.

    Attributes
    ----------
    engine : {"ray", "mpi"}
        What starts the workers.
    address : str or None
        Of an existing Ray cluster.
    workers : int
        Of Ray; MPI has its own.
    """

    engine: str
    address: str | None
    workers: int


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line of every example asks for; None means not given.

    ``plan``, ``vendors``, ``lr``, ``probe_scale``, ``update``, ``momentum``, ``shaping``,
    ``antithetic``, ``meta_lr``, ``seed`` and ``dtype`` can come from a checkpoint, so a default for
    them is settled only when no run is resumed.
    """

    steps: int
    batch_size: int
    forward_pass: int
    marketplace_replica: int
    algorithm: str
    unit_vector_mode: str
    vendors: tuple[int, ...] | str | None
    flops: float | None
    upstream_sampling: tuple[int, ...] | None
    plan: str | None
    lr: float | None
    lr_schedule: str
    lr_decay: float
    lr_final: float
    schedule_steps: int
    probe_scale: float | None
    update: str | None
    momentum: float | None
    shaping: str | None
    antithetic: bool | None
    meta_lr: float | None
    seed: int | None
    device: str
    dtype: str | None
    threads: int | None
    eval_every: int
    checkpoint: Path | None
    checkpoint_every: int
    resume: Path | None
    plot: Path | None
    json: Path | None
    log: Path | None
    mlflow: str | None
    tensorboard: Path | None
    replay_log: Path | None
    quiet: bool

    @property
    def auto_vendors(self) -> bool:
        """Whether vendors follow from ``flops``."""
        return self.vendors == AUTO

    @property
    def vendor_counts(self) -> tuple[int, ...] | None:
        """The vendors that were named."""
        return self.vendors if isinstance(self.vendors, tuple) else None

    @property
    def distribution(self) -> Distribution | None:
        """Who else evaluates paths."""
        return None

    @property
    def loss_classes(self) -> tuple[int, ...] | None:
        """The classes that the loss is over; None for all."""
        return None

    @property
    def default_plan(self) -> str:
        """The plan where none is named."""
        return "star"

    @property
    def plan_reason(self) -> str | None:
        """What made it another than the example's usual one."""
        return None

    def reason_for(self, plan: str) -> str | None:
        """Say what the plan comes from; None for ``--plan`` and for the usual one."""
        if self.plan is not None:
            return None
        if self.resume is not None and plan != self.default_plan:
            return f"--resume {self.resume}"
        return self.plan_reason


Given = TypeVar("Given", bound=Options)


def parse(
    kind: type[Given],
    parser: argparse.ArgumentParser,
    defaults: Defaults,
    argv: Sequence[str] | None = None,
    find_problem: Callable[[Given], str | None] | None = None,
    choose_plan: Callable[[Mapping[str, object]], str | None] = operator.itemgetter("plan"),
) -> Given:
    """Parse and check a command line.

    Parameters
    ----------
    kind : type of Options
        The example's options; a field for every argument of the parser.
    parser : ArgumentParser
        Of `make_parser`, with the example's own arguments added.
    defaults : Defaults
        The example's defaults.
    argv : sequence of str, optional
        The arguments; by default those of the process.
    find_problem : callable, optional
        Says what is wrong with the example's own values, or None.
    choose_plan : callable
        From the parser's values to the plan, or None where the market decides.

    Returns
    -------
    Options
        Checked values.

    Raises
    ------
    SystemExit
        With status 2 after a message about a bad value; with 0 after ``--help``.
    """
    given = vars(parser.parse_args(argv))
    plan = choose_plan(given)
    if given["lr_schedule"] is None:
        given["lr_schedule"] = "cosine" if plan == "node" else "exponential"
    problem = _find_schedule_problem(given) or _find_update_problem(given, plan)
    if given["lr_decay"] is None:
        given["lr_decay"] = defaults.lr_decay if given["lr_schedule"] == "exponential" else 0.0
    if given["lr_final"] is None:
        given["lr_final"] = LR_FINAL
    if given["schedule_steps"] is None:
        given["schedule_steps"] = max(given["steps"], 1)
    options = kind(**given)
    problem = problem or _find_problem(options) or (find_problem and find_problem(options))
    if problem:
        parser.error(problem)
    return options


def stop_status(signum: int) -> int:
    """Give the exit status of a run that a signal ended early; 0 is none."""
    return 128 + signum if signum else STATUS_OK


def fail(prog: str, error: BaseException) -> int:
    """Print an error as one line on standard error; return the exit status for it."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"{prog}: error: {text}", file=sys.stderr)
    return STATUS_FAILED


def make_parser(prog: str, description: str, defaults: Defaults) -> argparse.ArgumentParser:
    """Make a parser of what all examples share.

    Parameters
    ----------
    prog : str
        The command, as shown in its help.
    description : str
        One sentence for its help.
    defaults : Defaults
        The example's defaults.

    Returns
    -------
    ArgumentParser
        To which an example may add its own groups.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    add_training(parser.add_argument_group("training"), defaults)
    add_update(parser.add_argument_group("updates"), defaults)
    add_schedule(parser.add_argument_group("learning rate"), defaults)
    add_machine(parser.add_argument_group("machine"))
    add_output(parser.add_argument_group("output"))
    add_logs(parser.add_argument_group("logs"))
    return parser


def _find_schedule_problem(given: dict[str, object]) -> str | None:
    schedule = given["lr_schedule"]
    if given["lr_decay"] is not None and schedule != "exponential":
        return f"argument --lr-decay: expected none with --lr-schedule {schedule}, received one"
    for name in ("schedule_steps", "lr_final"):
        if given[name] is not None and schedule != "cosine":
            option = name.replace("_", "-")
            return f"argument --{option}: expected --lr-schedule cosine, received {schedule}"
    return None


def _find_update_problem(given: dict[str, object], plan: str | None) -> str | None:
    kept = given["resume"] is not None  # as it was in the resumed run
    update = given["update"] or ("unit" if plan != "node" and not kept else None)
    if given["momentum"] is not None and update == "unit":
        return "argument --momentum: expected --update momentum, clipup or adam, received unit"
    return None


def _find_problem(options: Options) -> str | None:
    """Look for what values say only together, or about this machine's directories."""
    if options.flops is not None and not options.auto_vendors:
        return "argument --flops: expected --vendors auto, received none"
    if options.auto_vendors and options.plan == "tree":
        return "argument --plan: expected star or node with --vendors auto, received tree"
    if options.plan == "node" and (options.antithetic or (options.shaping or "z") != "z"):
        name = "--antithetic" if options.antithetic else f"--shaping {options.shaping}"
        return f"argument --plan: expected star or tree with {name}, received node"
    if options.antithetic and options.meta_lr is not None:
        return "argument --antithetic: expected none with --meta-lr, received one"
    if options.algorithm == "v1" and options.plan == "node":
        return "argument --plan: expected star or tree with --algorithm v1, received node"
    if options.algorithm == "v1":
        given = (options.probe_scale, options.meta_lr)
        names = [
            name
            for name, value in zip(("--probe-scale", "--meta-lr"), given, strict=True)
            if value is not None
        ]
        if options.marketplace_replica > 1:
            names.append("--marketplace-replica")
        if names:
            return f"argument {names[0]}: expected --algorithm v2, received v1, which has no such"
    return _find_file_problem(options)


def find_format_problem(plot: Path | None, log: Path | None) -> str | None:
    """Say which of two files has a name that tells no format, or None."""
    for name, path, formats in (("plot", plot, PLOT_FORMATS), ("log", log, LOG_FORMATS)):
        if path is not None and path.suffix.lower() not in formats:
            expected = ", ".join(formats)
            return f"argument --{name}: expected a name ending in {expected}, received {path}"
    return None


def replay_files(log: Path | None) -> dict[str, Path | None]:
    """Name the two files of a replay log, as ``find_clash`` takes them."""
    return {"--replay-log": log, REPLAY_BASE: None if log is None else base_checkpoint(log)}


def _find_file_problem(options: Options) -> str | None:
    if (problem := find_format_problem(options.plot, options.log)) is not None:
        return problem
    for name in ("checkpoint", "plot", "json", "log", "replay_log"):
        path: Path | None = getattr(options, name)
        if path is not None and (problem := find_path_problem(path)) is not None:
            return f"argument --{name.replace('_', '-')}: {problem}"
    files = {
        "--resume": options.resume,
        "--checkpoint": options.checkpoint,
        "--plot": options.plot,
        "--json": options.json,
        "--log": options.log,
        **replay_files(options.replay_log),
    }
    # a run may go on in the file that it came from
    return find_clash(files, [("--resume", "--checkpoint"), ("--resume", REPLAY_BASE)])
