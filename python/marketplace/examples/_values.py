"""Values of command-line options: what each must be, said before anything runs."""

from __future__ import annotations

import argparse
import itertools
import math
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from .._disk import same_file


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Make a parser of integers from ``low`` to ``high``."""
    span = f"of at least {low}" if high is None else f"from {low} to {high}"

    def parse_whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number {span}, received {text!r}")
        return value

    return parse_whole


def number(
    *, low: float, high: float = math.inf, low_included: bool = False
) -> Callable[[str], float]:
    """Make a parser of numbers between two bounds; the upper one is always excluded."""
    span = f"{'at least' if low_included else 'above'} {low:g}"
    if high < math.inf:
        span += f" and below {high:g}"

    def parse_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Written so that NaN fails.
        if not (low < value < high or (low_included and value == low)):
            raise argparse.ArgumentTypeError(f"expected a number {span}, received {text!r}")
        return value

    return parse_number


def vendor_counts(text: str) -> tuple[int, ...]:
    """Parse the vendors of a market's specs; one number counts for all."""
    counts = _whole_numbers(text)
    if not counts or min(counts) < 1 or max(counts) < 2:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers of at least 1, not all 1, such as 8,40,512, received {text!r}"
        )
    return counts


AUTO = "auto"


def vendor_choice(text: str) -> tuple[int, ...] | str:
    """Parse ``vendor_counts``, or ``AUTO``."""
    return AUTO if text == AUTO else vendor_counts(text)


def sampling_counts(text: str) -> tuple[int, ...]:
    """Parse the upstream sampling of a market's specs."""
    counts = _whole_numbers(text)
    if not counts or min(counts) < 0:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers of at least 0, such as 0,2,4, received {text!r}"
        )
    return counts


def class_list(text: str) -> tuple[int, ...]:
    """Parse some classes, each named once."""
    classes = _whole_numbers(text)
    if not classes or min(classes) < 0 or len(set(classes)) < len(classes):
        raise argparse.ArgumentTypeError(
            f"expected different classes of at least 0, such as 0,1,2, received {text!r}"
        )
    return tuple(sorted(classes))


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        return ()


def find_clash(
    files: Mapping[str, Path | None], allowed: Collection[tuple[str, str]] = ()
) -> str | None:
    """Say which two options name the same file, of which one would destroy the other's; or None.

    Parameters
    ----------
    files : mapping of str to Path or None
        What is read and written, by option.
    allowed : collection of pairs of str
        Options that may share a file, each pair in the order of ``files``.
    """
    given = [(name, path) for name, path in files.items() if path is not None]
    for (one, first), (other, second) in itertools.combinations(given, 2):
        if (one, other) not in allowed and same_file(first, second):
            return f"argument {other}: expected another file than that of {one}, received {second}"
    return None


def find_path_problem(path: Path) -> str | None:
    """Why this file cannot be written; better said before the training than after it."""
    if path.is_dir():
        return f"expected a file, received the directory {path}"
    folder = Path(os.path.realpath(path)).parent  # a link is followed when the file is written
    if not folder.is_dir():
        return f"expected a file in a directory that exists, received {path}"
    if not os.access(folder, os.W_OK):
        return f"expected a directory that can be written to, received {folder}"
    return None
