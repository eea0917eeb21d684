"""Draw the subset of MNIST that comes with the package, from the full set.

Run as ``python -m marketplace.data.make_bundled`` with full MNIST in the cache (the directory
that ``MARKETPLACE_DATA`` names). ``--check`` compares instead of writing.

The draw depends on nothing but the data: within each class, images are ranked by the SHA-256
of ``"<split> <index>"``, and the first ones are taken. How many per class follows the class's
share of the full split (largest remainders). The images keep the order of the full set.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._cache import IDX_NAMES, find_files, mnist_directories
from ._load import BUNDLED
from .idx import read_idx, write_idx

SIZES = {"train": 8_000, "t10k": 2_000}


def allot(class_counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share ``total`` places out over the classes, in proportion to their counts.

    Parameters
    ----------
    class_counts : ndarray
        Images of each class, (classes,).
    total : int
        Places; at most the sum of the counts.

    Returns
    -------
    ndarray
        Places of each class, (classes,), with sum ``total``: the whole part of each exact
        share, then one more for the largest remainders (ties to the lower class).

    Raises
    ------
    ValueError
        ``total`` is negative or exceeds the images there are.
    """
    image_count = int(class_counts.sum())
    if not 0 <= total <= image_count:
        raise ValueError(f"allot: expected a total from 0 to {image_count}, received {total}")
    exact = class_counts * total
    places = exact // image_count
    by_remainder = np.argsort(-(exact % image_count), kind="stable")
    places[by_remainder[: total - places.sum()]] += 1
    return places


def draw(split: str, labels: NDArray[Any], total: int) -> NDArray[np.int64]:
    """Choose images of one split, class by class.

    Parameters
    ----------
    split : str
        "train" or "t10k"; part of what is hashed.
    labels : ndarray
        Labels of the full split, (N,), uint8.
    total : int
        How many images to choose.

    Returns
    -------
    ndarray
        Their indices, ascending, (total,).
    """
    chosen: list[int] = []
    places = allot(np.bincount(labels).astype(np.int64), total)
    for label, count in enumerate(places):
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda index: hashlib.sha256(f"{split} {index}".encode()).digest())
        chosen += members[:count]
    return np.array(sorted(chosen), dtype=np.int64)


def bundled_arrays() -> dict[str, NDArray[Any]]:
    """Return the subset's four arrays by IDX name, drawn from the full set in the cache.

    Raises
    ------
    FileNotFoundError
        Full MNIST is not in the cache.
    """
    files = find_files(mnist_directories())
    if files is None:
        places = ", ".join(str(path) for path in mnist_directories())
        raise FileNotFoundError(f"make_bundled: expected full MNIST in one of {places}")
    full = {name: read_idx(path) for name, path in zip(IDX_NAMES, files, strict=True)}
    subset = {}
    for split, total in SIZES.items():
        images, labels = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
        indices = draw(split, full[labels], total)
        subset[images], subset[labels] = full[images][indices], full[labels][indices]
    return subset


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the subset; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m marketplace.data.make_bundled",
        description="Draw the bundled subset of MNIST from the full set in the cache.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=BUNDLED,
        metavar="DIR",
        help="directory for the four files (default: the package's own)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the files that are there with the draw; write nothing",
    )
    options = parser.parse_args(argv)
    try:
        arrays = bundled_arrays()
        if options.check:
            return _check(arrays, options.output)
        _write(arrays, options.output)
    except (OSError, ValueError) as error:
        print(f"make_bundled: {error}", file=sys.stderr)
        return 1
    return 0


def _write(arrays: dict[str, NDArray[Any]], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        path = directory / f"{name}.gz"
        write_idx(path, array)
        print(f"{path.name}: {array.shape}, {path.stat().st_size:,} bytes")


def _check(arrays: dict[str, NDArray[Any]], directory: Path) -> int:
    differing = [
        name
        for name, array in arrays.items()
        if not np.array_equal(read_idx(directory / f"{name}.gz"), array)
    ]
    print(f"differs from the draw: {', '.join(differing)}" if differing else "as drawn")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
