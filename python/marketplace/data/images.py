"""Colour images: folders of files, CIFAR-10's binaries, and a small synthetic set.

Images are uint8 ``(N, 3, H, W)``, raw values from 0 to 255. Decoding files needs the extra
``[images]`` (Pillow).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .. import random
from .._arrays import integer, refusal, seed_input
from ._load import Dataset

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("val", "test")
DECODED_BYTES = 1 << 30  # larger sets are decoded when they are used
_EVERY = 5  # where a folder has no test images of its own, every fifth file becomes one

CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR10_TEST = "test_batch.bin"
_CIFAR10_RECORD_BYTES = 1 + 3 * 32 * 32

U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]


class ImageFiles:
    """Images that are decoded when they are asked for; indexed like an array ``(N, 3, S, S)``.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    size : int
        Height and width S: the largest square in the middle, resized with bilinear filtering.
    """

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = list(paths)
        self.size = size

    def __len__(self) -> int:
        """Count the images."""
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of all images."""
        return (len(self.paths), 3, self.size, self.size)

    @overload
    def __getitem__(self, index: slice) -> ImageFiles: ...
    @overload
    def __getitem__(self, index: NDArray[np.int64]) -> U8: ...
    @overload
    def __getitem__(self, index: NDArray[np.bool_]) -> ImageFiles: ...
    def __getitem__(self, index: slice | NDArray[Any]) -> ImageFiles | U8:
        """Choose images: undecoded by a slice or mask (N,), decoded by an array of indices.

        Raises
        ------
        ValueError
            A file is no image, or a damaged one; the message names it.
        OSError
            A file cannot be opened.
        """
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self.size)
        if index.dtype == bool:
            return ImageFiles([self.paths[i] for i in np.flatnonzero(index)], self.size)
        chosen = np.arange(len(self.paths))[index]
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for row, position in enumerate(chosen):
            images[row] = _decode(self.paths[position], self.size)
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Decode all images."""
        images = self[np.arange(len(self.paths))]
        return images if dtype is None else images.astype(dtype)


def load_image_folder(
    directory: str | os.PathLike[str],
    size: int,
    *,
    report: Callable[[str], None] | None = None,
    decoded_bytes: int = DECODED_BYTES,
) -> Dataset:
    """Load images from a folder with one subfolder per class.

    ``DIR/train/CLASS/FILE`` and ``DIR/val/CLASS/FILE`` (or ``test``) are training and test images;
    in ``DIR/CLASS/FILE`` the first of every five files of a class, by name, is a test image.
    Classes are numbered in the order of their names.

    Parameters
    ----------
    directory : path-like
        The folder.
    size : int
        Height and width of the images: the largest square in the middle of a file, resized.
    report : callable, optional
        Called with one line of text about files that are no images.
    decoded_bytes : int
        Sets of up to this size are decoded at once; larger ones image by image as they are used.

    Returns
    -------
    Dataset
        Training and test images; ``class_names`` are those of the subfolders.

    Raises
    ------
    ValueError
        Fewer than two classes, a class without enough images, a test class that is not trained, or
        a file that cannot be decoded; the message names it.
    OSError
        The folder or a file cannot be read.
    RuntimeError
        Pillow is not installed.
    """
    _pillow()
    root = Path(directory)
    integer(size, "load_image_folder", "size", 1)
    train_root, test_root = _parts(root)
    train = _class_files(train_root, report)
    if test_root is None:
        test = {name: files[::_EVERY] for name, files in train.items()}
        train = {n: [f for i, f in enumerate(fs) if i % _EVERY] for n, fs in train.items()}
    else:
        test = _class_files(test_root, report)
    _check_classes(root, train, test)
    names = tuple(train)
    x_train, y_train = _images(train, names, size, decoded_bytes)
    x_test, y_test = _images(test, names, size, decoded_bytes)
    return Dataset(root.name or str(root), root, x_train, y_train, x_test, y_test, names)


def load_cifar10(directory: str | os.PathLike[str]) -> Dataset:
    """Load CIFAR-10 from its binary version.

    Parameters
    ----------
    directory : path-like
        Holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, by itself or in
        its subfolder ``cifar-10-batches-bin``.

    Returns
    -------
    Dataset
        Images (N, 3, 32, 32), labels from 0 to 9.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        A file is cut short or has labels out of range; the message names it.
    OSError
        A file cannot be read.

    Notes
    -----
    A record is one byte of label and 3 x 1,024 bytes of red, green and blue rows. Source:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    root = Path(directory)
    inner = root / "cifar-10-batches-bin"
    root = inner if inner.is_dir() else root
    missing = [name for name in (*CIFAR10_TRAIN, CIFAR10_TEST) if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"load_cifar10: {root}: expected CIFAR-10's binary version, received none of "
            f"{', '.join(missing)}"
        )
    parts = [_read_cifar10(root / name) for name in CIFAR10_TRAIN]
    x_train = np.concatenate([images for images, _ in parts])
    y_train = np.concatenate([labels for _, labels in parts])
    x_test, y_test = _read_cifar10(root / CIFAR10_TEST)
    return Dataset("CIFAR-10", root, x_train, y_train, x_test, y_test)


def synthetic_images(
    size: int = 32, *, classes: int = 10, train: int = 1000, test: int = 200, seed: int = 0
) -> Dataset:
    """Make images that are no photographs: to try a network where there are no data.

    They are stripes, ``1/2 + 1/2 sin(2 pi (x cos a + y sin a) / p + phase)``, of a random phase and
    colour and under noise. The class k is their angle, ``a = pi (k mod 5) / 5``, and their period,
    ``p = 4 (1 + floor(k / 5))`` thirty-seconds of the image.

    Parameters
    ----------
    size : int
        Height and width, a multiple of 32.
    classes, train, test : int
        How many classes, up to 20, and images.
    seed : int
        What phases, colours and noise follow from.

    Returns
    -------
    Dataset
        Named "synthetic stripes".

    Raises
    ------
    TypeError, ValueError
        For sizes that are no integers, out of range, or no multiple of 32.
    """
    op = "synthetic_images"
    if integer(size, op, "size", 32) % 32:
        raise refusal(ValueError, op, "size as a multiple of 32", size)
    kinds = integer(classes, op, "classes", 2)
    if kinds > 20:
        raise refusal(ValueError, op, "at most 20 classes", kinds)
    counts = [integer(train, op, "train", 1), integer(test, op, "test", 1)]
    rng = random.RandomNumberGenerator(seed_input(seed, op))
    parts = [_draw_stripes(kinds, count, size // 32, rng) for count in counts]
    (x_train, y_train), (x_test, y_test) = parts
    return Dataset("synthetic stripes", Path("memory"), x_train, y_train, x_test, y_test)


def _draw_stripes(
    kinds: int, count: int, scale: int, rng: random.RandomNumberGenerator
) -> tuple[U8, I32]:
    """Draw at 32 x 32, then enlarge by a whole number."""
    labels = (np.arange(count) % kinds).astype(np.int32)
    phases, colours, noise = (
        np.asarray(rng.rand(*shape))
        for shape in ((count, 1, 1, 1), (count, 3, 1, 1), (count, 3, 32, 32))
    )
    angles = (np.pi * (labels % 5) / 5)[:, None, None, None]
    periods = (4 * (1 + labels // 5))[:, None, None, None]
    y, x = np.mgrid[0:32, 0:32]
    place = (x * np.cos(angles) + y * np.sin(angles)) / periods
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * (place + phases))
    pixels = (255 * (0.7 * (0.3 + 0.7 * colours) * stripes + 0.3 * noise)).astype(np.uint8)
    return pixels.repeat(scale, axis=2).repeat(scale, axis=3), labels


# -- files -----------------------------------------------------------------------------------------


def _parts(root: Path) -> tuple[Path, Path | None]:
    """Find the training folder, and the test folder if there is one."""
    if not root.is_dir():
        raise FileNotFoundError(f"load_image_folder: expected a folder, received {root}")
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not (root / "train").is_dir():
        return root, None
    if not tests:
        expected = "val or test beside train"
        raise refusal(FileNotFoundError, f"load_image_folder: {root}", expected, "neither")
    return root / "train", tests[0]


def _class_files(root: Path, report: Callable[[str], None] | None) -> dict[str, list[Path]]:
    """Give the image files of every class, both in the order of their names."""
    found: dict[str, list[Path]] = {}
    others = 0
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    for folder in folders:
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
        found[folder.name] = [path for path in files if path.suffix.lower() in SUFFIXES]
        others += len(files) - len(found[folder.name])
    if others and report is not None:
        report(f"{root}: {others} files that are no images ({', '.join(SUFFIXES)}) passed over")
    return found


def _check_classes(root: Path, train: dict[str, list[Path]], test: dict[str, list[Path]]) -> None:
    op = f"load_image_folder: {root}"
    if len(train) < 2:
        raise refusal(ValueError, op, "at least two subfolders, one per class", sorted(train))
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise refusal(ValueError, op, "test classes that are trained", unknown)
    empty = sorted(name for name, files in train.items() if not files)
    if empty:
        raise refusal(ValueError, op, "training images in every class", f"none in {empty}")
    if not any(test.values()):
        raise refusal(ValueError, op, "test images", "none")


def _images(
    files: dict[str, list[Path]], names: Sequence[str], size: int, decoded_bytes: int
) -> tuple[U8 | ImageFiles, I32]:
    paths = [path for name in names for path in files.get(name, [])]
    counts = [len(files.get(name, [])) for name in names]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    images = ImageFiles(paths, size)
    if len(paths) * 3 * size * size <= decoded_bytes:
        return np.asarray(images), labels
    for path in paths:  # a file that is no image at all shows now; a damaged one when it is used
        _open(path).close()
    return images, labels


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeError(
            f"folders of images need Pillow ({error}): install it with "
            'pip install "marketplace[images]"'
        ) from error
    return Image


def _open(path: Path) -> Any:
    module = _pillow()
    try:
        return module.open(path)
    except (module.UnidentifiedImageError, module.DecompressionBombError) as error:
        raise _damaged(path, error) from error


def _decode(path: Path, size: int) -> U8:
    """Decode the largest square in the middle of an image; (3, size, size)."""
    module = _pillow()
    with _open(path) as image:
        try:
            colours = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise _damaged(path, error) from error
    side = min(colours.size)
    left, top = ((extent - side) // 2 for extent in colours.size)
    # cropped first: the filter of `resize` would reach beyond a box
    square = colours.crop((left, top, left + side, top + side))
    square = square.resize((size, size), module.Resampling.BILINEAR)
    pixels: U8 = np.asarray(square, np.uint8).transpose(2, 0, 1)
    return pixels


def _damaged(path: Path, error: BaseException) -> ValueError:
    return refusal(ValueError, f"load_image_folder: {path}", "an image", error)


def _read_cifar10(path: Path) -> tuple[U8, I32]:
    content = np.fromfile(path, np.uint8)
    op = f"load_cifar10: {path}"
    if content.size == 0 or content.size % _CIFAR10_RECORD_BYTES:
        wanted = f"records of {_CIFAR10_RECORD_BYTES:,} bytes, at least one"
        raise refusal(ValueError, op, wanted, f"{content.size:,} bytes")
    records = content.reshape(-1, _CIFAR10_RECORD_BYTES)
    labels = records[:, 0].astype(np.int32)
    if labels.max() > 9:
        raise refusal(ValueError, op, "labels from 0 to 9", labels.max())
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32), labels
