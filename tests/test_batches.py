"""Which images a step of an example meets, and which a periodic evaluation."""

import pathlib

import numpy as np
from marketplace import data
from marketplace.examples import _batches, _run


def test_each_epoch_holds_every_image_once():
    batches = [_batches.batch_indices(7, step, 8, 20) for step in range(10)]
    epochs = np.concatenate(batches).reshape(4, 20)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(20), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_batches_depend_on_seed_and_step_alone():
    late = _batches.batch_indices(7, 9, 8, 20)
    _batches._shuffled.cache_clear()
    np.testing.assert_array_equal(_batches.batch_indices(7, 9, 8, 20), late)
    assert not np.array_equal(_batches.batch_indices(8, 9, 8, 20), late)


def test_a_batch_may_exceed_the_training_set():
    indices = _batches.batch_indices(7, 1, 50, 20)
    assert indices.shape == (50,)
    np.testing.assert_array_equal(np.bincount(indices, minlength=20) >= 2, True)


def test_periodic_evaluation_spreads_over_the_test_set():
    images = np.zeros((2_500, 1, 28, 28), np.uint8)
    labels = np.arange(2_500, dtype=np.int32)
    dataset = data.Dataset("", pathlib.Path("."), images, labels, images, labels)
    x, y = _run._thinned(dataset)
    assert len(x) == len(y) == 834
    np.testing.assert_array_equal(y, np.arange(0, 2_500, 3))
