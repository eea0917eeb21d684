"""The commands of ``python -m marketplace``: info, plot, replay."""

import argparse
import json
import sys
from collections.abc import Sequence

from . import build_info, devices
from .plot import _command as plot_command
from .replay import _command as replay_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process without it.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error, told in one line.

    Raises
    ------
    SystemExit
        With status 2 after a bad option, with 0 after ``--help``.
    """
    parser = argparse.ArgumentParser(prog="marketplace", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="print build and devices as JSON")
    info.set_defaults(run=_info)
    plot_command.add_to(commands)
    replay_command.add_to(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"marketplace {chosen.command}: error: {text}", file=sys.stderr)
        return 1
    return 0


def _info(_: argparse.Namespace) -> None:
    print(json.dumps({"build": build_info(), "devices": devices()}, indent=2))


if __name__ == "__main__":
    raise SystemExit(main())
