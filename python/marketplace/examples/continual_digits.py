"""A model that has never seen a 9 learns it from a stream of digits, while it answers.

Run as ``python -m marketplace.examples.continual_digits``. Without ``--base`` the model is first
trained on the other nine classes. Then every batch is answered by inference and, its labels being
known, learnt from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ..data import load
from . import _continual_cli, _continual_main
from ._continual_cli import Defaults, Options, scatter
from ._stream import Task, held_back

PROG = "python -m marketplace.examples.continual_digits"
DESCRIPTION = "Teach a digit to a model that knows the other nine, while it answers."
DEFAULTS = Defaults(
    new_class=9,
    new_per_batch=26,
    scatter=scatter(steps=2000, lr_decay=0.001, new_class_weight=1.0),
)


def load_task(options: Options, report: Callable[[str], None]) -> Task:
    """Load the digits, one of them held back.

    Raises
    ------
    ValueError, OSError
        As ``marketplace.data.load``; or the digits lack the new class.
    """
    return held_back(load("mnist", options.data, report=report), options.new_class)


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
