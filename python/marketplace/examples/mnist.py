"""The beautiful-MNIST market learns digits (or clothes) with forward passes only.

Run as ``python -m marketplace.examples.mnist``. Images enter as raw values from 0 to 255, as
in the reference; the instance norms make up for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..data import Dataset
from ..training import Spec
from . import _digits, _program
from ._arguments import Defaults
from ._digits import DigitOptions, load_digits
from ._markets import Structure, digit_structure

PROG = "python -m marketplace.examples.mnist"
DEFAULTS = Defaults(
    steps=1000,
    batch_size=64,
    lr=0.1,
    lr_decay=0.001,
    probe_scale=0.01,
    jitter=0.01,
    vendors="1,1,1,65,1 with plan node, 8,40,512 with star, 8,8,8 with tree",
    plan="node; star where that cannot run what is asked for or --vendors has one or three "
    "numbers, tree for pyramids",
)


def make_market(vendors: Sequence[int]) -> list[Spec]:
    """Build the beautiful-MNIST market, its initial weights drawn from `marketplace.random`.

    Parameters
    ----------
    vendors : sequence of int
        Vendors of each of the three specs.

    Returns
    -------
    list of Spec
        Images (B, 1, 28, 28) to logits (B, 10); 87,850 parameters.
    """
    return digit_structure().specs("star", tuple(vendors))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM.

    Raises
    ------
    SystemExit
        With status 2 after a bad option, with 0 after ``--help``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parse(arguments)
    return _program.run(PROG, options, DEFAULTS, arguments, load_digits, _structure)


def parse(argv: Sequence[str]) -> DigitOptions:
    """Parse and check a command line; exits with status 2 after a bad option."""
    return _digits.parse(PROG, "Train the beautiful-MNIST market.", DEFAULTS, argv)


def _structure(options: DigitOptions, dataset: Dataset) -> Structure:
    return options.structure


if __name__ == "__main__":
    sys.exit(main())
