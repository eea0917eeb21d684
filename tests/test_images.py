"""Colour images: folders, CIFAR-10's binaries, synthetic stripes; damaged and missing files."""

import os
import sys

import numpy as np
import pytest
from marketplace import data
from marketplace.data import images

Image = pytest.importorskip("PIL.Image")


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def flat(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


def make_folder(root, counts, parts=("",)):
    """Images of one grey value each: 10 x class + number."""
    for part in parts:
        for index, (name, count) in enumerate(counts.items()):
            for number in range(count):
                save(root / part / name / f"{number:02d}.png", flat(10 * index + number))
    return root


# -- folders ---------------------------------------------------------------------------------------


def test_every_fifth_image_is_for_testing(tmp_path):
    root = make_folder(tmp_path / "pets", {"dog": 6, "ant": 2})
    pets = data.load_image_folder(root, 4)
    assert (pets.name, pets.class_names, pets.class_count) == ("pets", ("ant", "dog"), 2)
    assert pets.x_train.dtype == np.uint8 and pets.x_train.shape == (5, 3, 4, 4)
    assert pets.x_train[:, 0, 0, 0].tolist() == [11, 1, 2, 3, 4]
    assert pets.y_train.tolist() == [0, 1, 1, 1, 1] and pets.y_train.dtype == np.int32
    assert pets.x_test[:, 1, 3, 3].tolist() == [10, 0, 5]
    assert pets.y_test.tolist() == [0, 1, 1]


@pytest.mark.parametrize("part", images.TEST_FOLDERS)
def test_folders_of_their_own_for_testing(tmp_path, part):
    make_folder(tmp_path, {"a": 2, "b": 3}, ["train"])
    make_folder(tmp_path, {"a": 1}, [part])
    found = data.load_image_folder(tmp_path, 8)
    assert found.y_train.tolist() == [0, 0, 1, 1, 1] and found.y_test.tolist() == [0]
    assert found.directory == tmp_path


def test_the_middle_square_is_resized(tmp_path):
    """A wide image: its left and right quarters are cut off before the filter sees them."""
    pixels = flat(255, 8, 16)
    pixels[:4, 4:12], pixels[4:, 4:12] = 100, 180
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    save(root / "a" / "00.png", pixels)
    first = data.load_image_folder(root, 8).x_test[0]
    assert first.tolist() == [[[100] * 8] * 4 + [[180] * 8] * 4] * 3
    small = data.load_image_folder(root, 2).x_test[0]
    assert (small[:, 0] < 140).all() and (small[:, 1] > 140).all() and small.max() <= 180


def test_grey_palette_and_alpha_become_colours(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(root / "a" / "00.png")
    Image.fromarray(np.full((8, 8, 4), 9, np.uint8)).save(root / "b" / "00.png")
    found = data.load_image_folder(root, 3)
    assert found.x_test[:, :, 1, 1].tolist() == [[7] * 3, [9] * 3]


def test_other_and_hidden_files_are_passed_over(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    (root / "a" / "notes.txt").write_text("no image")
    (root / "a" / ".hidden.png").write_text("no image")
    (root / ".cache").mkdir()
    lines = []
    found = data.load_image_folder(root, 8, report=lines.append)
    assert len(found.x_train) + len(found.x_test) == 4
    assert len(lines) == 1 and "1 files that are no images" in lines[0]


def test_large_sets_are_decoded_when_used(tmp_path):
    root = make_folder(tmp_path, {"a": 6, "b": 6})
    now = data.load_image_folder(root, 8)
    later = data.load_image_folder(root, 8, decoded_bytes=0)
    assert isinstance(later.x_train, data.ImageFiles)
    assert later.x_train.shape == now.x_train.shape and len(later.x_train) == len(now.x_train)
    assert np.array_equal(np.asarray(later.x_train), now.x_train)
    assert np.array_equal(later.x_train[np.array([3, 0, 3])], now.x_train[[3, 0, 3]])
    assert np.array_equal(np.asarray(later.x_test[::2]), now.x_test[::2])
    assert np.asarray(later.x_test, np.float32).dtype == np.float32
    some, kept = later.only([1]), now.only([1])
    assert isinstance(some.x_train, data.ImageFiles)
    assert np.array_equal(np.asarray(some.x_train), kept.x_train)


def truncated(root):
    save(root / "b" / "01.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path = root / "b" / "01.png"
    path.write_bytes(path.read_bytes()[:600])
    return path


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images_are_named(tmp_path, content):
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    (root / "b" / "01.png").write_bytes(content)
    for limit in (0, images.DECODED_BYTES):
        with pytest.raises(ValueError, match=r"b/01.png: expected an image, received"):
            data.load_image_folder(root, 8, decoded_bytes=limit)


def test_truncated_files_are_named(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    truncated(root)
    with pytest.raises(ValueError, match=r"b/01.png: expected an image, received .*truncated"):
        data.load_image_folder(root, 8)
    later = data.load_image_folder(root, 8, decoded_bytes=0)
    with pytest.raises(ValueError, match=r"b/01.png: expected an image, received .*truncated"):
        later.x_train[np.array([1])]
    assert later.x_train[np.array([0])].shape == (1, 3, 8, 8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_named(tmp_path):
    root = make_folder(tmp_path, {"a": 2, "b": 2})
    (root / "a" / "01.png").chmod(0)
    with pytest.raises(PermissionError, match="01.png"):
        data.load_image_folder(root, 8)


@pytest.mark.parametrize(
    ("counts", "parts", "error", "words"),
    [
        ({"a": 3}, [""], ValueError, r"expected at least two subfolders.*received \['a'\]"),
        ({}, [""], ValueError, r"expected at least two subfolders.*received \[\]"),
        ({"a": 3, "b": 1}, [""], ValueError, r"training images in every class.*\['b'\]"),
        ({"a": 3, "b": 3}, ["train"], FileNotFoundError, "expected val or test beside train"),
    ],
)
def test_folders_that_are_no_data_sets(tmp_path, counts, parts, error, words):
    make_folder(tmp_path, counts, parts)
    with pytest.raises(error, match=words):
        data.load_image_folder(tmp_path, 8)


def test_test_classes_that_nobody_trains(tmp_path):
    make_folder(tmp_path, {"a": 2, "b": 2}, ["train"])
    make_folder(tmp_path, {"a": 1, "c": 1}, ["val"])
    with pytest.raises(ValueError, match=r"expected test classes that are trained.*\['c'\]"):
        data.load_image_folder(tmp_path, 8)


def test_no_test_images(tmp_path):
    make_folder(tmp_path, {"a": 2, "b": 2}, ["train"])
    (tmp_path / "val" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="expected test images, received none"):
        data.load_image_folder(tmp_path, 8)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a folder, received .*nowhere"):
        data.load_image_folder(tmp_path / "nowhere", 8)


def test_without_pillow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeError, match=r"marketplace\[images\]"):
        data.load_image_folder(tmp_path, 8)


# -- CIFAR-10 --------------------------------------------------------------------------------------


def write_cifar10(root, count=3):
    """Six files of a few records; the pixels are random."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    written = {}
    for name in (*images.CIFAR10_TRAIN, images.CIFAR10_TEST):
        records = rng.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] = rng.integers(0, 10, count)
        records.tofile(root / name)
        written[name] = records
    return written


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, inner):
    written = write_cifar10(tmp_path / inner)
    found = data.load_cifar10(tmp_path)
    train = np.concatenate([written[name] for name in images.CIFAR10_TRAIN])
    assert found.x_train.shape == (15, 3, 32, 32) and found.x_test.shape == (3, 3, 32, 32)
    assert np.array_equal(found.x_train.reshape(15, -1), train[:, 1:])
    assert found.y_train.tolist() == train[:, 0].tolist()
    red, green = written[images.CIFAR10_TEST][1, 1:1025], written[images.CIFAR10_TEST][1, 1025:2049]
    assert np.array_equal(found.x_test[1, 0].ravel(), red)
    assert np.array_equal(found.x_test[1, 1].ravel(), green)


def test_cifar10_with_a_file_missing(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected CIFAR-10.*none of data_batch_4.bin"):
        data.load_cifar10(tmp_path)


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_cifar10_cut_short(tmp_path, size):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\1" * size)
    with pytest.raises(ValueError, match=rf"test_batch.bin: expected records .*received {size:,}"):
        data.load_cifar10(tmp_path)


def test_cifar10_with_labels_out_of_range(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x0a" + b"\0" * 3072)
    with pytest.raises(ValueError, match=r"data_batch_2.bin: expected labels from 0 to 9"):
        data.load_cifar10(tmp_path)


# -- synthetic stripes ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64])
def test_synthetic_patterns(size):
    made = data.synthetic_images(size, classes=4, train=12, test=8)
    assert made.x_train.shape == (12, 3, size, size) and made.x_train.dtype == np.uint8
    assert made.y_train.tolist() == [0, 1, 2, 3] * 3 and made.class_count == 4
    assert made.name == "synthetic stripes"
    again = data.synthetic_images(size, classes=4, train=12, test=8)
    other = data.synthetic_images(size, classes=4, train=12, test=8, seed=1)
    assert np.array_equal(made.x_test, again.x_test)
    assert not np.array_equal(made.x_test, other.x_test)
    assert len({image.tobytes() for image in made.x_train}) == 12


def test_synthetic_classes_are_angles_and_periods():
    """Spectra, which know nothing of phase or colour, tell the classes apart."""
    made = data.synthetic_images(train=100, test=50)

    def spectra(x):
        return np.abs(np.fft.rfft2(np.float64(x).mean(axis=1)))[:, :, 1:]

    known = spectra(made.x_train)
    means = np.stack([known[made.y_train == k].mean(axis=0) for k in range(10)])
    distances = ((spectra(made.x_test)[:, None] - means[None]) ** 2).sum(axis=(2, 3))
    assert (distances.argmin(axis=1) == made.y_test).mean() > 0.95


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"size": 40}, ValueError, "size as a multiple of 32, received 40"),
        ({"size": 0}, ValueError, "size of at least 32"),
        ({"classes": 1}, ValueError, "classes of at least 2"),
        ({"classes": 21}, ValueError, "at most 20 classes, received 21"),
        ({"train": 1.5}, TypeError, "train as an integer"),
        ({"seed": -1}, ValueError, "seed of at least 0"),
    ],
)
def test_synthetic_refusals(arguments, error, words):
    with pytest.raises(error, match=f"synthetic_images: expected {words}"):
        data.synthetic_images(**arguments)
