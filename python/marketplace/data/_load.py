"""Loading whole data sets: which source to take, and the checks on what it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._cache import (
    DEBIAN_FASHION,
    IDX_NAMES,
    cache_directory,
    fashion_directories,
    find_files,
    mnist_directories,
)
from ._download import MNIST_FILES, download
from .idx import read_idx

if TYPE_CHECKING:
    from .images import ImageFiles

DATASETS = ("mnist", "fashion")
SOURCES = ("auto", "full", "bundled")
CLASS_COUNT = 10
BUNDLED = Path(__file__).parent / "bundled"

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels, split into training and test.

    Attributes
    ----------
    name : str
        What it is, for people: "MNIST", "MNIST (bundled subset)" or "Fashion-MNIST".
    directory : Path
        Where its files lie.
    x_train, x_test : ndarray
        Images (N, C, H, W), uint8, raw values 0 to 255: (N, 1, 28, 28), or of three colours; or
        ``ImageFiles``, which decodes what it is asked for.
    y_train, y_test : ndarray
        Labels (N,), int32, from 0.
    class_names : tuple of str
        Names of the classes, where they have any.
    """

    name: str
    directory: Path
    x_train: NDArray[np.uint8] | ImageFiles
    y_train: NDArray[np.int32]
    x_test: NDArray[np.uint8] | ImageFiles
    y_test: NDArray[np.int32]
    class_names: tuple[str, ...] = ()

    @property
    def class_count(self) -> int:
        """How many classes the labels are of."""
        return len(self.class_names) or 1 + int(max(self.y_train.max(), self.y_test.max()))

    def only(self, classes: Sequence[int]) -> Dataset:
        """Keep the images of some classes, with the labels that they have.

        Parameters
        ----------
        classes : sequence of int
            The classes to keep.

        Returns
        -------
        Dataset
            Training and test images of these classes, in their order.

        Raises
        ------
        ValueError
            For no classes, or one without training or without test images.
        """
        for part, labels in (("training", self.y_train), ("test", self.y_test)):
            missing = sorted(set(classes) - set(labels.tolist()))
            if missing or not classes:
                raise ValueError(
                    f"only: expected classes with {part} images in {self.name}, "
                    f"received {missing or 'none'}"
                )
        train, test = (np.isin(labels, list(classes)) for labels in (self.y_train, self.y_test))
        return dataclasses.replace(
            self,
            name=f"{self.name}, classes {','.join(map(str, sorted(classes)))}",
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
        )


def load(dataset: str = "mnist", source: str = "auto", *, report: Report | None = None) -> Dataset:
    """Load MNIST or Fashion-MNIST.

    Parameters
    ----------
    dataset : str
        "mnist" or "fashion".
    source : str
        "auto": the full set when it is in the cache, else the bundled subset (MNIST only).
        "full": the full set; MNIST is downloaded into the cache when it is not there.
        "bundled": the subset of MNIST that comes with the package (8,000 + 2,000 digits).
        The cache is the directory that ``MARKETPLACE_DATA`` names, see `cache_directory`.
    report : callable, optional
        Called with one line of text for each download.

    Returns
    -------
    Dataset
        Images as raw uint8, labels as int32.

    Raises
    ------
    ValueError
        Unknown name or source, no bundled subset of that set, or a file with wrong content.
    FileNotFoundError
        The full set is neither on this machine nor to be had.
    OSError
        A file cannot be read or written.
    """
    _check_choice("dataset", dataset, DATASETS)
    _check_choice("source", source, SOURCES)
    if dataset == "fashion":
        return load_fashion_mnist(source)
    return load_mnist(source, report=report)


def load_mnist(source: str = "auto", *, report: Report | None = None) -> Dataset:
    """Load MNIST.

    Parameters
    ----------
    source : {"auto", "full", "bundled"}
        "auto": the full set when it is in the cache, else the bundled subset; "full": the full set,
        downloaded into the cache when it is not there; "bundled": the subset (8,000 + 2,000).
    report : callable, optional
        Called with one line of text for each download.

    Returns
    -------
    Dataset
        Images (N, 1, 28, 28), uint8, and labels (N,), int32; 60,000 + 10,000 of the full set.

    Raises
    ------
    ValueError, FileNotFoundError, OSError
        As `load`.
    """
    _check_choice("source", source, SOURCES)
    files = None if source == "bundled" else find_files(mnist_directories())
    if files is not None:
        return _read("MNIST", files)
    if source == "full":
        return _read("MNIST", _download_mnist(report))
    return _read("MNIST (bundled subset)", [BUNDLED / f"{name}.gz" for name in IDX_NAMES])


def load_fashion_mnist(source: str = "auto") -> Dataset:
    """Load Fashion-MNIST from the cache or Debian's folder; see `load`. Never downloads."""
    _check_choice("source", source, SOURCES)
    if source == "bundled":
        raise ValueError(
            'load: expected source "auto" or "full" for Fashion-MNIST, which has '
            'no bundled subset, received "bundled"'
        )
    files = find_files(fashion_directories())
    if files is None:
        raise FileNotFoundError(
            f"Fashion-MNIST is not on this machine: put its four IDX files into "
            f"{cache_directory() / 'fashion-mnist'} (MARKETPLACE_DATA names another cache "
            f"directory), or install Debian's package dataset-fashion-mnist ({DEBIAN_FASHION})"
        )
    return _read("Fashion-MNIST", files)


def _download_mnist(report: Report | None) -> list[Path]:
    directory = cache_directory() / "mnist"
    try:
        return download(MNIST_FILES, directory, report=report)
    except ConnectionError as error:
        raise FileNotFoundError(
            f"full MNIST is not on this machine and could not be downloaded ({error}): put its "
            f"four IDX files into {directory}, or let MARKETPLACE_DATA name the directory that "
            f"holds them, or take the bundled subset"
        ) from error


def _read(name: str, files: list[Path]) -> Dataset:
    """Read the files in the order of ``IDX_NAMES``."""
    train_images, train_labels, test_images, test_labels = files
    x_train, y_train = _read_pair(train_images, train_labels)
    x_test, y_test = _read_pair(test_images, test_labels)
    return Dataset(name, train_images.parent, x_train, y_train, x_test, y_test)


def _read_pair(image_file: Path, label_file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    images = read_idx(image_file)
    labels = read_idx(label_file)
    _check(
        image_file,
        images.dtype == np.uint8 and images.shape[1:] == (28, 28),
        "uint8 images of shape (N, 28, 28)",
        images,
    )
    _check(
        label_file,
        labels.dtype == np.uint8 and labels.ndim == 1,
        "uint8 labels of shape (N,)",
        labels,
    )
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"load: {label_file}: expected one label for each image of "
            f"{image_file.name}, at least one, received {len(labels)} labels for "
            f"{len(images)} images"
        )
    if labels.max() >= CLASS_COUNT:
        raise ValueError(
            f"load: {label_file}: expected labels from 0 to {CLASS_COUNT - 1}, "
            f"received {labels.max()}"
        )
    return images[:, np.newaxis], labels.astype(np.int32)


def _check(path: Path, good: bool, expected: str, array: NDArray[Any]) -> None:
    if not good:
        raise ValueError(
            f"load: {path}: expected {expected}, received {array.dtype} of shape {array.shape}"
        )


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"load: expected {what} to be one of {', '.join(choices)}, received {value!r}"
        )
