"""Where data sets lie on this machine: the cache directory and its files."""

from __future__ import annotations

import os
from pathlib import Path

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


def cache_directory() -> Path:
    """Return the directory where data sets are looked for and downloads are kept.

    Returns
    -------
    Path
        The directory that the environment variable ``MARKETPLACE_DATA`` names; without it,
        ``marketplace`` in ``XDG_CACHE_HOME`` or in ``~/.cache``. It need not exist.
    """
    named = os.environ.get("MARKETPLACE_DATA")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "marketplace"


def mnist_directories() -> list[Path]:
    """Directories that may hold full MNIST, best first."""
    cache = cache_directory()
    return [cache / "mnist"] if _says_fashion(cache) else [cache / "mnist", cache]


def fashion_directories() -> list[Path]:
    """Directories that may hold Fashion-MNIST, best first.

    Its files have the same names as MNIST's, so the cache directory itself counts only when
    its own name says which of the two it holds.
    """
    cache = cache_directory()
    places = [cache / "fashion-mnist", cache / "fashion_mnist", cache / "fashion"]
    if _says_fashion(cache):
        places.append(cache)
    return [*places, DEBIAN_FASHION]


def find_files(directories: list[Path]) -> list[Path] | None:
    """Return the four IDX files of the first directory that has any of them.

    Returns
    -------
    list of Path or None
        In the order of ``IDX_NAMES``; None when no directory has a single one.

    Raises
    ------
    FileNotFoundError
        A directory has some of the four files, but not all.
    """
    for directory in directories:
        found = [_find(directory, name) for name in IDX_NAMES]
        if all(path is None for path in found):
            continue
        missing = [name for name, path in zip(IDX_NAMES, found, strict=True) if path is None]
        if missing:
            raise FileNotFoundError(
                f"{directory}: expected the four IDX files of a data set, "
                f"received all but {', '.join(missing)} (plain or .gz)"
            )
        return [path for path in found if path is not None]
    return None


def _says_fashion(directory: Path) -> bool:
    return "fashion" in directory.name.lower()


def _find(directory: Path, name: str) -> Path | None:
    """One IDX file, plain or .gz, under either of its two usual names."""
    for stem in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = directory / (stem + suffix)
            if path.is_file():
                return path
    return None
