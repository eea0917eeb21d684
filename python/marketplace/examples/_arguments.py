"""The arguments that the examples share, in groups as their help shows them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ..optimizers import UnitVectorMode
from ..schedules import SCHEDULES
from ._values import number, sampling_counts, vendor_choice, whole

PLANS = ("node", "star", "tree")
LR_FINAL = 0.01
UPDATES = ("unit", "momentum", "clipup", "adam")
SHAPINGS = ("z", "rank", "sign")
DTYPES = ("float32", "bfloat16")
ALGORITHMS = ("v2", "v1")
UNIT_VECTOR_MODES = tuple(mode.value for mode in UnitVectorMode)
DEFAULT_SEED = 42

_Group = argparse._ArgumentGroup


@dataclasses.dataclass(frozen=True)
class Defaults:
    """An example's own defaults, as tuned for it.

    Attributes
    ----------
    steps, batch_size : int
        For all plans.
    lr, lr_decay, probe_scale : float
        For plans that disturb weights.
    jitter : float
        V1's learning rate.
    node_lr, node_probe_scale : float
        For plan node, whose learning rate falls as a cosine.
    vendors, plan : str
        What the help says of their defaults.
    """

    steps: int
    batch_size: int
    lr: float
    lr_decay: float
    probe_scale: float
    jitter: float
    node_lr: float = 0.003
    node_probe_scale: float = 0.003
    vendors: str = "8,40,512 with plan star, 8,8,8 with plan tree"
    plan: str = "star"


def add_training(group: _Group, defaults: Defaults) -> None:
    """Add what is trained, and for how long."""
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
        help="images per minibatch (default: %(default)s)",
    )
    group.add_argument(
        "--vendors",
        type=vendor_choice,
        metavar="N,N,N",
        help="vendors of each spec, or one number for all, or auto: as --flops affords with plan "
        f"node or star (default: {defaults.vendors})",
    )
    group.add_argument(
        "--flops",
        type=number(low=0.0),
        metavar="X",
        help="with --vendors auto: GFLOP that a step may cost per image of a minibatch and draw "
        "(default: what the market's own vendors cost)",
    )
    group.add_argument(
        "--upstream-sampling",
        type=sampling_counts,
        metavar="N,N,N",
        help="how many results of the spec before each vendor takes, drawn at random; 0 for all "
        "of them. Plan tree alone",
    )
    group.add_argument(
        "--plan",
        choices=PLANS,
        help="what is disturbed: weights, every combination of vendors (tree) or one vendor at a "
        "time (star); or activations, one channel at a time (node) "
        f"(default: {defaults.plan})",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        metavar="N",
        help="seed of everything random: initial weights, deltas, batches "
        f"(default: {DEFAULT_SEED})",
    )


def add_update(group: _Group, defaults: Defaults) -> None:
    """Add how an update is made from losses."""
    group.add_argument(
        "--algorithm",
        choices=ALGORITHMS,
        default="v2",
        help="v2 combines the losses of all paths into a direction, v1 keeps the best path's "
        "vendors (default: %(default)s)",
    )
    group.add_argument(
        "--unit-vector-mode",
        choices=UNIT_VECTOR_MODES,
        default="per_spec",
        help="what the direction is divided by: each spec's own norm, or that of all together "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--probe-scale",
        type=number(low=0.0),
        metavar="X",
        help="size of the deltas relative to the learning rate "
        f"(default: {defaults.probe_scale}); plan node: of the noise relative to what it is added "
        f"to (default: {defaults.node_probe_scale})",
    )
    group.add_argument(
        "--update",
        choices=UPDATES,
        help="how a direction becomes a step (default: adam with plan node, else unit)",
    )
    group.add_argument(
        "--shaping",
        choices=SHAPINGS,
        help="how losses become scores: by their distance from the mean, their rank, or their side "
        "of the median (default: z)",
    )
    group.add_argument(
        "--antithetic",
        action="store_true",
        default=None,
        help="vendors in pairs of opposite deltas; --plan star or tree",
    )
    group.add_argument(
        "--momentum",
        type=number(low=0.0, high=1.0, low_included=True),
        metavar="X",
        help="of --update momentum, clipup and adam (default: 0.9)",
    )
    repeats = (
        ("--forward-pass", "minibatches per update, with the same vendors; losses are averaged"),
        ("--marketplace-replica", "independent draws of all vendors per update; directions add up"),
    )
    for name, text in repeats:
        group.add_argument(
            name, type=whole(1), default=1, metavar="N", help=f"{text} (default: %(default)s)"
        )


def add_schedule(group: _Group, defaults: Defaults) -> None:
    """Add learning rates, and how they change."""
    group.add_argument(
        "--lr",
        type=number(low=0.0),
        metavar="X",
        help=f"learning rate (default: {defaults.lr}; {defaults.node_lr} with plan node; "
        f"{defaults.jitter} with --algorithm v1, where it is the largest change of a weight)",
    )
    group.add_argument(
        "--lr-schedule",
        choices=SCHEDULES,
        help="how the learning rate changes, or the meta learning rate where there is one "
        "(default: cosine with plan node, else exponential)",
    )
    group.add_argument(
        "--lr-decay",
        type=number(low=0.0, high=1.0, low_included=True),
        metavar="X",
        help=f"exponential: multiply by 1 - X after each step (default: {defaults.lr_decay})",
    )
    group.add_argument(
        "--lr-final",
        type=number(low=0.0, high=1.0),
        metavar="X",
        help=f"cosine: where it ends, as a share of where it starts (default: {LR_FINAL})",
    )
    group.add_argument(
        "--schedule-steps",
        type=whole(1),
        metavar="N",
        help="cosine: the step at which it ends (default: --steps; to be named by a run that "
        "stops and goes on)",
    )
    group.add_argument(
        "--meta-lr",
        type=number(low=0.0, high=1.0),
        metavar="X",
        help="search along each direction with learning rates changed by up to "
        "this share (default: no search)",
    )


def add_machine(group: _Group) -> None:
    """Add where to compute."""
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


def add_output(group: _Group) -> None:
    """Add what to measure and to write."""
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
        help="write the state of training there, now and then, at the end, on Ctrl-C and SIGTERM",
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


def add_logs(group: _Group) -> None:
    """Add what to log of every step, and where."""
    group.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="log every step, as JSON lines (.jsonl) or comma-separated values (.csv); replaced "
        "at step 0, continued by a run that goes on from a checkpoint, where the example can",
    )
    group.add_argument(
        "--mlflow",
        nargs="?",
        const="marketplace",
        metavar="EXPERIMENT",
        help='log to MLflow (experiment "marketplace" if not named); needs the extra [mlflow]',
    )
    group.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="log for TensorBoard; needs the extra [tensorboard]",
    )
    group.add_argument(
        "--replay-log",
        type=Path,
        metavar="FILE",
        help="write down every step, so that `python -m marketplace replay FILE` rebuilds the "
        "weights of any of them; four bytes a vendor and step (plan node: a parameter and step); "
        "replaced at step 0, continued by a run that goes on from a checkpoint, where the example "
        "can",
    )
