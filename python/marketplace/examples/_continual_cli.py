"""The command line that the examples of continual learning share."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import SOURCES
from ..data._load import CLASS_COUNT
from ._arguments import DEFAULT_SEED, DTYPES, add_logs
from ._cli import find_format_problem, replay_files
from ._markets import NODE_VENDORS
from ._stream import AUGMENTATIONS
from ._values import find_clash, find_path_problem, number, vendor_counts, whole

# The beautiful-MNIST network cut into so many specs.
STRUCTURES = {3: "depth-3", 5: "depth-5"}
PLANS = ("node", "scatter")
# What plan node has no use for: its samples weigh the same, and it runs no paths.
SCATTER_ONLY = (
    "balance_labels", "new_class_weight", "control_variate", "probe_share", "focus",
)  # fmt: skip
_Group = argparse._ArgumentGroup


@dataclasses.dataclass(frozen=True)
class PlanDefaults:
    """What a plan learns with unless told otherwise."""

    steps: int
    lr: float
    lr_decay: float
    probe_scale: float
    vendors: tuple[int, ...]
    new_class_weight: float = 1.0
    balance_labels: bool = False
    control_variate: bool = False
    probe_share: float = 1.0
    focus: bool = False


NODE = PlanDefaults(steps=100, lr=0.001, lr_decay=0.0, probe_scale=0.003, vendors=NODE_VENDORS)


def scatter(steps: int, lr_decay: float, new_class_weight: float) -> PlanDefaults:
    """Give what plan scatter learns with."""
    return PlanDefaults(
        steps, 0.12, lr_decay, 0.025, (64,), new_class_weight,
        balance_labels=True, control_variate=True, focus=True,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Defaults:
    """An example's own defaults, as tuned for it."""

    new_class: int
    new_per_batch: int
    scatter: PlanDefaults
    node: PlanDefaults = NODE
    batch_size: int = 256
    base_steps: int = 400

    def of(self, plan: str) -> PlanDefaults:
        """Give a plan's."""
        return self.node if plan == "node" else self.scatter


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; None means not given."""

    new_class: int
    new_per_batch: int
    augment: str
    plan: str
    steps: int
    batch_size: int
    vendors: tuple[int, ...]
    lr: float
    lr_decay: float
    probe_scale: float
    balance_labels: bool
    new_class_weight: float
    control_variate: bool
    probe_share: float
    focus: bool
    seed: int
    base: Path | None
    base_steps: int
    save_base: Path | None
    device: str
    dtype: str
    threads: int | None
    data: str
    eval_every: int
    checkpoint: Path | None
    replay: Path | None
    plot: Path | None
    json: Path | None
    log: Path | None
    mlflow: str | None
    tensorboard: Path | None
    replay_log: Path | None
    quiet: bool


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
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    _add_stream(parser.add_argument_group("what is new"), defaults)
    _add_learning(parser.add_argument_group("learning"), defaults)
    _add_scores(parser.add_argument_group("plan scatter: what a sample's loss tells"), defaults)
    _add_base(parser.add_argument_group("the model that already knows the old"), defaults)
    _add_machine(parser.add_argument_group("machine and data"))
    _add_output(parser.add_argument_group("output"))
    add_logs(parser.add_argument_group("logs"))
    given = vars(parser.parse_args(argv))
    problem = _find_misfit(given)
    if problem is not None:
        parser.error(problem)
    own = dataclasses.asdict(defaults.of(given["plan"]))
    options = Options(
        **{
            name: own[name] if value is None and name in own else value
            for name, value in given.items()
        }
    )
    problem = _find_problem(options)
    if problem is not None:
        parser.error(problem)
    return options


def _add_stream(group: _Group, defaults: Defaults) -> None:
    group.add_argument(
        "--new-class",
        type=whole(0, CLASS_COUNT - 1),
        default=defaults.new_class,
        metavar="N",
        help="the class that appears in the stream (default: %(default)s)",
    )
    group.add_argument(
        "--new-per-batch",
        type=whole(1),
        default=defaults.new_per_batch,
        metavar="N",
        help="how many images of a batch are of it (default: %(default)s)",
    )
    group.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        nargs="?",
        const="both",
        default="none",
        help="rotate and distort images a little at random: the old ones, the new ones, or (the "
        "word left out) both (default: %(default)s)",
    )


def _add_learning(group: _Group, defaults: Defaults) -> None:
    node, other = defaults.node, defaults.scatter
    group.add_argument(
        "--plan",
        choices=PLANS,
        default=PLANS[0],
        help="node: the base weights answer and learn from disturbed activations; scatter: every "
        "sample takes a path of its own through the vendors (default: %(default)s)",
    )
    group.add_argument(
        "--steps",
        type=whole(0),
        metavar="N",
        help=f"batches to answer and learn from (default: {_both(node.steps, other.steps)})",
    )
    group.add_argument(
        "--batch-size",
        type=whole(2),
        default=defaults.batch_size,
        metavar="N",
        help="images per batch (default: %(default)s)",
    )
    group.add_argument(
        "--vendors",
        type=vendor_counts,
        metavar="N,...",
        help="vendors of each spec, of three or, every convolution one of its own, five; or one "
        "number for all of three (default: "
        f"{_both(_joined(node.vendors), _joined(other.vendors))})",
    )
    group.add_argument(
        "--lr",
        type=number(low=0.0),
        metavar="X",
        help=f"learning rate of Adam, or length of a step (default: {_both(node.lr, other.lr)})",
    )
    group.add_argument(
        "--probe-scale",
        type=number(low=0.0),
        metavar="X",
        help="size of the noise relative to what it is added to, or of the deltas relative to --lr "
        f"(default: {_both(node.probe_scale, other.probe_scale)})",
    )
    group.add_argument(
        "--lr-decay",
        type=number(low=0.0, high=1.0, low_included=True),
        metavar="X",
        help="the learning rate is multiplied by 1 - X after each step; noise and deltas keep "
        f"their size (default: {_both(node.lr_decay, other.lr_decay)})",
    )


def _joined(vendors: Sequence[int]) -> str:
    return ",".join(map(str, vendors))


def _both(node: object, other: object) -> str:
    return f"{node}" if node == other else f"{node}; {other} with plan scatter"


def _add_scores(group: _Group, defaults: Defaults) -> None:
    other = defaults.scatter
    group.add_argument(
        "--balance-labels",
        action=argparse.BooleanOptionalAction,
        help="weigh losses against the labels' frequency in the batch (default: yes)",
    )
    group.add_argument(
        "--new-class-weight",
        type=number(low=0.0),
        metavar="X",
        help=f"what the new class's losses weigh (default: {other.new_class_weight})",
    )
    group.add_argument(
        "--control-variate",
        action=argparse.BooleanOptionalAction,
        help="answer with the base weights and learn from how much each path's loss differs from "
        "theirs; without, the paths themselves answer (default: yes)",
    )
    group.add_argument(
        "--probe-share",
        type=number(low=0.0),
        metavar="X",
        help="with the control variate, paths to run for every answer given "
        f"(default: {other.probe_share})",
    )
    group.add_argument(
        "--focus",
        action=argparse.BooleanOptionalAction,
        help="with the control variate, run paths for the samples that the base weights doubt most "
        "(default: yes)",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        default=DEFAULT_SEED,
        metavar="N",
        help="seed of everything random (default: %(default)s)",
    )


def _add_base(group: _Group, defaults: Defaults) -> None:
    group.add_argument(
        "--base",
        type=Path,
        metavar="FILE",
        help="start from this checkpoint of the market instead of training one; "
        "`python -m marketplace.examples.mnist --checkpoint` writes such files",
    )
    group.add_argument(
        "--base-steps",
        type=whole(0),
        default=defaults.base_steps,
        metavar="N",
        help="otherwise train on the old images for so many steps (default: %(default)s)",
    )
    group.add_argument(
        "--save-base",
        type=Path,
        metavar="FILE",
        help="write the model that was trained, for --base",
    )


def _add_machine(group: _Group) -> None:
    group.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, or one that `python -m marketplace info` lists (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="what to compute in; weights are float32 (default: %(default)s)",
    )
    group.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads on a CPU (default: one per core)"
    )
    group.add_argument(
        "--data",
        choices=SOURCES,
        default="auto",
        help="the digits, full: the whole set, downloaded when it is not in the cache; bundled: "
        "the subset in the package; auto: the whole set if it is there, else the subset (default: "
        "%(default)s). The directory that MARKETPLACE_DATA names is the cache",
    )


def _add_output(group: _Group) -> None:
    group.add_argument(
        "--eval-every",
        type=whole(1),
        default=25,
        metavar="N",
        help="measure the accuracy on old and new test images every N steps, on at most 1,000 of "
        "each; at the start and the end on all of them (default: %(default)s)",
    )
    files = (
        ("--checkpoint", "write weights and the optimizer's state there at the end"),
        ("--replay", "write what happened, one JSON object a line and step"),
        ("--plot", "draw the accuracies over the steps (PNG; or SVG, PDF by the file's name)"),
        ("--json", "write settings, results and history as one JSON object"),
    )
    for name, text in files:
        group.add_argument(name, type=Path, metavar="FILE", help=text)
    group.add_argument("--quiet", action="store_true", help="no progress, only the summary line")


def _find_misfit(given: dict[str, Any]) -> str | None:
    """Look for an option that the plan has no use for."""
    for name in SCATTER_ONLY if given["plan"] == "node" else ():
        if given[name] is not None:
            option = f"--{name.replace('_', '-')}"
            return f"argument {option}: expected --plan scatter, received --plan node"
    return None


def _find_problem(options: Options) -> str | None:
    """Look for what values say only together, or about this machine's directories."""
    if options.new_per_batch >= options.batch_size:
        wanted = f"less than the batch size of {options.batch_size}"
        return f"argument --new-per-batch: expected {wanted}, received {options.new_per_batch}"
    if len(options.vendors) not in (1, *STRUCTURES):
        counts = " or ".join(map(str, STRUCTURES))
        wanted = f"{counts} whole numbers, one per spec, or one for all"
        return f"argument --vendors: expected {wanted}, received {len(options.vendors)}"
    if options.base is not None and options.save_base is not None:
        return "argument --save-base: expected no --base, received both"
    if (problem := find_format_problem(options.plot, options.log)) is not None:
        return problem
    files: dict[str, Path | None] = {
        f"--{name.replace('_', '-')}": getattr(options, name)
        for name in ("save_base", "checkpoint", "replay", "plot", "json", "log")
    } | replay_files(options.replay_log)
    for name, path in files.items():
        if path is not None and (problem := find_path_problem(path)) is not None:
            return f"argument {name}: {problem}"
    return find_clash({"--base": options.base, **files})
