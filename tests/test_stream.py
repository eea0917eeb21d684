"""The stream in which a new class appears, and the augmentation of its images."""

import numpy as np
import pytest
from marketplace import data
from marketplace.examples import _augment, _stream
from marketplace.examples._augment import augment
from marketplace.examples._stream import Stream, held_back, mixed_in

pytestmark = pytest.mark.usefixtures("small_data")

# -- the stream ------------------------------------------------------------------------------------


def test_every_image_once_an_epoch():
    task = held_back(data.load("mnist"), 1)
    new, old = len(task.new_train), len(task.old_train)
    stream = Stream(task, 3, 1, 7)
    seen_new = [int(stream.batch(step).new_indices[0]) for step in range(2 * new)]
    assert sorted(seen_new[:new]) == sorted(seen_new[new:]) == list(range(new))
    assert seen_new[:new] != seen_new[new:]
    seen_old = np.concatenate([stream.batch(step).old_indices for step in range(old)])
    assert np.bincount(seen_old).tolist() == [2] * old


def test_a_batch_holds_what_its_indices_say():
    digits, clothes = data.load("mnist"), data.load("fashion")
    task = mixed_in(digits, clothes, 1)
    batch = Stream(task, 10, 4, 3).batch(2)
    assert np.array_equal(batch.x[:6], digits.x_train[batch.old_indices])
    assert np.array_equal(batch.y[:6], digits.y_train[batch.old_indices])
    assert np.array_equal(batch.x[6:], task.new_train.x[batch.new_indices])
    assert batch.y[6:].tolist() == [1] * 4


@pytest.mark.parametrize("augmented", _stream.AUGMENTATIONS)
def test_what_is_augmented(augmented):
    task = held_back(data.load("mnist"), 1)
    plain = Stream(task, 10, 4, 3).batch(0)
    batch = Stream(task, 10, 4, 3, augmented).batch(0)
    assert np.array_equal(batch.y, plain.y)
    changed = (batch.x != plain.x).any(axis=(1, 2, 3))
    assert (
        changed.tolist() == [augmented in ("old", "both")] * 6 + [augmented in ("new", "both")] * 4
    )


# -- augmentation ----------------------------------------------------------------------------------


def test_augmentation_is_a_function_of_seed_and_step():
    images = data.load("mnist").x_train[:8]
    first = augment(images, 1, 2)
    assert first.shape == images.shape and first.dtype == np.uint8
    assert np.array_equal(first, augment(images, 1, 2))
    assert not np.array_equal(first, augment(images, 1, 3))
    assert not np.array_equal(first, augment(images, 2, 2))


def test_augmentation_moves_ink_a_little():
    images = data.load("mnist").x_train[:40].astype(np.float64)
    moved = augment(images.astype(np.uint8), 1, 0).astype(np.float64)
    ink = moved.sum(axis=(1, 2, 3)) / images.sum(axis=(1, 2, 3))
    assert 0.7 < ink.min() < 1 < ink.max() < 1.4
    rows = np.arange(28)

    def centre(x):
        return (x.sum(axis=(1, 3)) * rows).sum(axis=1) / x.sum(axis=(1, 2, 3))

    shift = centre(moved) - centre(images)
    assert 0.3 < np.abs(shift).max() < 4
    assert abs(shift.mean()) < 1


def test_augmentation_without_movement_changes_nothing(monkeypatch):
    monkeypatch.setattr(_augment, "DEGREES", 0.0)
    monkeypatch.setattr(_augment, "CORNER_PIXELS", 0.0)
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 9, 14), dtype=np.uint8)
    assert np.array_equal(augment(images, 1, 2), images)


def test_a_quarter_turn(monkeypatch):
    monkeypatch.setattr(_augment, "DEGREES", 90.0)
    monkeypatch.setattr(_augment, "CORNER_PIXELS", 0.0)
    monkeypatch.setattr(_augment.random, "rand", lambda *shape, **_: np.ones(shape, np.float32))
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    turned = augment(images, 0, 0)
    assert np.array_equal(turned, np.rot90(images, -1, axes=(2, 3)))


@pytest.mark.parametrize("new_per_batch", [0, 8])
def test_a_stream_whose_batches_lack_one_kind(new_per_batch):
    with pytest.raises(ValueError, match="expected from 1 to 7 new images in a batch of 8"):
        Stream(held_back(data.load("mnist"), 9), 8, new_per_batch, 1)
