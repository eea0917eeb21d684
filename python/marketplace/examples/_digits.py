"""What the examples on digits share: their data, their market, and the options for both."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ..data import DATASETS, SOURCES, Dataset, load
from . import _cli
from ._arguments import Defaults
from ._cli import Distribution, Options
from ._markets import DIGIT_MARKETS, NORMS, Structure, digit_structure
from ._values import class_list, whole

IMAGE_SHAPE = (1, 28, 28)
CLASS_COUNT = 10
DISTRIBUTED = ("ray", "mpi")
DEFAULT_WORKERS = 2


@dataclasses.dataclass(frozen=True)
class DigitOptions(Options):
    """Options of an example that trains on MNIST or Fashion-MNIST."""

    data: str
    dataset: str
    only_classes: tuple[int, ...] | None
    exclude_missing_from_loss: bool
    market: str | None
    norm: str
    distributed: str | None
    address: str | None
    workers: int | None

    @property
    def distribution(self) -> Distribution | None:
        """Who else evaluates paths."""
        if self.distributed is None:
            return None
        return Distribution(self.distributed, self.address, self.workers or DEFAULT_WORKERS)

    @property
    def loss_classes(self) -> tuple[int, ...] | None:
        """The classes that the loss is over; None for all."""
        return self.only_classes if self.exclude_missing_from_loss else None

    @property
    def structure(self) -> Structure:
        """The market that was asked for."""
        node = choose_plan(vars(self)) == "node"
        return digit_structure(self.market or ("depth-5" if node else "depth-3"), self.norm, node)

    @property
    def default_plan(self) -> str:
        """The plan where none is named."""
        return self.structure.plan

    @property
    def plan_reason(self) -> str | None:
        """The option that plan node cannot run."""
        return find_reason(vars(self))


# What plan node runs; any other value is a reason for the market's own plan. A pyramid is there for
# its upstream sampling, which nodes have no use for.
_NODE_RUNS: Mapping[str, tuple[object, ...]] = {
    "algorithm": ("v2",),
    "norm": ("instance",),
    "market": (None, "depth-1", "depth-3", "depth-5"),
    "shaping": (None, "z"),
    "antithetic": (None, False),
    "meta_lr": (None,),
    "distributed": (None,),
    "upstream_sampling": (None,),
    "exclude_missing_from_loss": (False,),
}


def choose_plan(given: Mapping[str, object]) -> str | None:
    """Choose node perturbation of the market that suits it, unless it cannot run what is asked for.

    Parameters
    ----------
    given : mapping
        The command line's values by name.

    Returns
    -------
    str or None
        The plan; None where that is the market's own choice.
    """
    if given["plan"] is not None:
        return str(given["plan"])
    return "node" if find_reason(given) is None else None


def find_reason(given: Mapping[str, object]) -> str | None:
    """Give the option, in its user's words, that plan node cannot run; None without one."""
    for name, values in _NODE_RUNS.items():
        if given[name] not in values:
            return _in_words(name, given[name])
    vendors = given["vendors"]
    # counts of the market depth-3, made for stars and trees: node takes five for its own market,
    # where one number for all would be many probes of every channel
    if given["market"] is None and isinstance(vendors, tuple) and len(vendors) in (1, 3):
        return _in_words("vendors", vendors)
    return None


def _in_words(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    return f"{flag} {','.join(map(str, value)) if isinstance(value, tuple) else value}"


def parse(
    prog: str, description: str, defaults: Defaults, argv: Sequence[str] | None = None
) -> DigitOptions:
    """Parse and check the command line of an example on digits; see ``_cli.parse``."""
    parser = _cli.make_parser(prog, description, defaults)
    _add_data(parser.add_argument_group("data"))
    _add_market(parser.add_argument_group("market"))
    _add_distribution(parser.add_argument_group("many machines"))
    return _cli.parse(DigitOptions, parser, defaults, argv, _find_problem, choose_plan)


def load_digits(options: DigitOptions, report: Callable[[str], None] | None) -> Dataset:
    """Load the data that was asked for, all classes of it or some.

    Raises
    ------
    ValueError, OSError
        As ``marketplace.data.load``.
    """
    dataset = load(options.dataset, options.data, report=report)
    return dataset if options.only_classes is None else dataset.only(options.only_classes)


def _add_data(group: argparse._ArgumentGroup) -> None:
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
    group.add_argument(
        "--only-classes",
        type=class_list,
        metavar="N,N,...",
        help="train and test on these classes alone; the others can be learnt later",
    )
    group.add_argument(
        "--exclude-missing-from-loss",
        action="store_true",
        help="leave the classes that --only-classes does not name out of the loss, so that it says "
        "nothing about them",
    )


def _add_market(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--market",
        choices=DIGIT_MARKETS,
        help="how the network is cut into specs: two blocks and the output layer (depth-3), one "
        "spec (depth-1), every convolution by itself (depth-5), or the same with vendors doubling "
        "from spec to spec and half of them sampled upstream (pyramid-32, pyramid-64; plan tree) "
        "(default: depth-5 with plan node, else depth-3)",
    )
    group.add_argument(
        "--norm",
        choices=NORMS,
        default="instance",
        help="instance norms, or batch norms instead (default: %(default)s)",
    )


def _add_distribution(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--distributed",
        choices=DISTRIBUTED,
        help="share every probe among workers, one thread each unless --threads says more: actors "
        "of a Ray cluster, or the ranks of `mpiexec -n N`; plan star or tree",
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the Ray cluster (default: a new one on this machine)",
    )
    group.add_argument(
        "--workers",
        type=whole(1),
        metavar="N",
        help=f"actors of --distributed ray (default: {DEFAULT_WORKERS})",
    )


def _find_distribution_problem(options: DigitOptions) -> str | None:
    for name in ("address", "workers"):
        if getattr(options, name) is not None and options.distributed != "ray":
            return f"argument --{name}: expected --distributed ray, received {options.distributed}"
    if options.distributed is None:
        return None
    if options.plan == "node":
        return "argument --plan: expected star or tree with --distributed, received node"
    if options.exclude_missing_from_loss:
        return (
            "argument --exclude-missing-from-loss: expected none with --distributed, received one"
        )
    return None


def _find_problem(options: DigitOptions) -> str | None:
    if (problem := _find_distribution_problem(options)) is not None:
        return problem
    if options.dataset == "fashion" and options.data == "bundled":
        return "argument --data: Fashion-MNIST has no bundled subset, expected auto or full"
    if options.only_classes is not None and options.only_classes[-1] >= CLASS_COUNT:
        return (
            f"argument --only-classes: expected classes below {CLASS_COUNT}, "
            f"received {options.only_classes[-1]}"
        )
    if options.exclude_missing_from_loss and options.only_classes is None:
        return "argument --exclude-missing-from-loss: expected --only-classes, received none"
    if options.exclude_missing_from_loss and options.plan == "node":
        return "argument --exclude-missing-from-loss: expected --plan star or tree, received node"
    structure = options.structure
    return structure.find_problem(options.plan, options.vendor_counts, options.upstream_sampling)
