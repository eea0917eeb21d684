"""``python -m marketplace info``: how this package was built, and which devices it can use."""

import argparse
import json
from collections.abc import Sequence

from . import build_info, devices


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process without it.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="marketplace", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print build and devices as JSON")
    parser.parse_args(arguments)
    print(json.dumps({"build": build_info(), "devices": devices()}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
