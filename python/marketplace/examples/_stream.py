"""A stream of batches in which a new class appears among what is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset
from ._augment import augment
from ._batches import batch_indices

AUGMENTATIONS = ("none", "old", "new", "both")
# Tells the orders of the two halves of a stream, and their augmentations, apart.
_NEW_KEY = 0x9E3779B97F4A7C15
_AUGMENT_KEY = 0xD1B54A32D192ED03


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images (N, 1, 28, 28), uint8, and labels (N,), int32."""

    x: NDArray[np.uint8]
    y: NDArray[np.int32]

    def chosen(self, which: NDArray[Any]) -> Samples:
        """Give some of them, by mask or index."""
        return Samples(self.x[which], self.y[which])

    def __len__(self) -> int:
        return len(self.y)


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model knows, and what it is to learn besides.

    Attributes
    ----------
    name : str
        For people.
    new_class : int
        The label of what is new.
    old_train, old_test, new_train, new_test : Samples
        Known and new images; none of the four is empty.

    Raises
    ------
    ValueError
        One of the four is empty.
    """

    name: str
    new_class: int
    old_train: Samples
    old_test: Samples
    new_train: Samples
    new_test: Samples

    def __post_init__(self) -> None:
        """Refuse an empty part."""
        for part in ("old_train", "old_test", "new_train", "new_test"):
            if len(getattr(self, part)) == 0:
                age, split = part.split("_")
                what = f"labelled {self.new_class}" if age == "new" else "of the classes known"
                raise ValueError(f"stream: expected {split} images {what}, received none")


def held_back(digits: Dataset, new_class: int) -> Task:
    """Make the task in which one of a data set's classes is new.

    Raises
    ------
    ValueError
        The set has nothing of that class, or nothing else.
    """
    train = Samples(np.asarray(digits.x_train), digits.y_train)
    test = Samples(np.asarray(digits.x_test), digits.y_test)
    is_new, is_new_test = train.y == new_class, test.y == new_class
    return Task(
        f"{digits.name} without {new_class}, then {new_class}",
        new_class,
        train.chosen(~is_new),
        test.chosen(~is_new_test),
        train.chosen(is_new),
        test.chosen(is_new_test),
    )


def mixed_in(known: Dataset, other: Dataset, new_class: int) -> Task:
    """Make the task in which one class of another data set joins the same label.

    Raises
    ------
    ValueError
        The other set has nothing of that class.
    """
    train = Samples(np.asarray(other.x_train), other.y_train)
    test = Samples(np.asarray(other.x_test), other.y_test)
    return Task(
        f"{known.name}, then class {new_class} of {other.name}",
        new_class,
        Samples(np.asarray(known.x_train), known.y_train),
        Samples(np.asarray(known.x_test), known.y_test),
        train.chosen(train.y == new_class),
        test.chosen(test.y == new_class),
    )


@dataclasses.dataclass(frozen=True)
class MixedBatch:
    """One batch: old images first, then new ones, and where in their sets they came from."""

    x: NDArray[np.uint8]
    y: NDArray[np.int32]
    old_indices: NDArray[np.int64]
    new_indices: NDArray[np.int64]


class Stream:
    """Endless batches of old and new images; batch t is a function of (seed, t).

    Parameters
    ----------
    task : Task
        Where the images come from; each set is shuffled, epoch after epoch.
    batch_size, new_per_batch : int
        Images of a batch, and how many of them are new.
    seed : int
        Seed of the order, and of the augmentation.
    augmented : str
        Which images are changed a little at random: "none", "old", "new" or "both".

    Raises
    ------
    ValueError
        A batch would have no old or no new images.
    """

    def __init__(
        self, task: Task, batch_size: int, new_per_batch: int, seed: int, augmented: str = "none"
    ) -> None:
        if not 1 <= new_per_batch < batch_size:
            raise ValueError(
                f"stream: expected from 1 to {batch_size - 1} new images in a batch of "
                f"{batch_size}, received {new_per_batch}"
            )
        self._task = task
        self._old_count = batch_size - new_per_batch
        self._new_count = new_per_batch
        self._seed = seed
        self._augmented = augmented

    def batch(self, step: int) -> MixedBatch:
        """Give the batch of one step, from 0."""
        task, seed = self._task, self._seed
        old = batch_indices(seed, step, self._old_count, len(task.old_train))
        new = batch_indices(seed ^ _NEW_KEY, step, self._new_count, len(task.new_train))
        old_x, new_x = task.old_train.x[old], task.new_train.x[new]
        if self._augmented in ("old", "both"):
            old_x = augment(old_x, seed ^ _AUGMENT_KEY, step)
        if self._augmented in ("new", "both"):
            new_x = augment(new_x, seed ^ _AUGMENT_KEY ^ _NEW_KEY, step)
        labels = np.concatenate([task.old_train.y[old], task.new_train.y[new]])
        return MixedBatch(np.concatenate([old_x, new_x]), labels, old, new)
