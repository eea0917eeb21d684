"""A model that knows the digits learns one kind of clothes from a stream, while it answers.

Run as ``python -m marketplace.examples.continual_fashion``; needs Fashion-MNIST. Images of one of
its classes (3: dresses) turn up among the digits and are to be given the same label as the digit.
Without ``--base`` the model is first trained on the digits alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ..data import load
from . import _continual_cli, _continual_main
from ._continual_cli import Defaults, Options, scatter
from ._stream import Task, mixed_in

PROG = "python -m marketplace.examples.continual_fashion"
DESCRIPTION = "Teach one class of clothes to a model that knows the digits, while it answers."
DEFAULTS = Defaults(
    new_class=3,
    new_per_batch=16,
    scatter=scatter(steps=800, lr_decay=0.002, new_class_weight=3.0),
)


def load_task(options: Options, report: Callable[[str], None]) -> Task:
    """Load the digits and the class of clothes.

    Raises
    ------
    ValueError, OSError
        As ``marketplace.data.load``; or the clothes lack the class.
    """
    clothes = load("fashion")  # first: what is missing should show before anything is fetched
    return mixed_in(load("mnist", options.data, report=report), clothes, options.new_class)


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
    return _continual_main.main(PROG, DESCRIPTION, DEFAULTS, load_task, argv)


def parse(argv: Sequence[str]) -> Options:
    """Parse and check a command line; exits with status 2 after a bad option."""
    return _continual_cli.parse(PROG, DESCRIPTION, DEFAULTS, argv)


if __name__ == "__main__":
    sys.exit(main())
