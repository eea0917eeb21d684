"""Minibatches as a pure function of (seed, step), so that a resumed run sees the same ones."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from .. import random


def batch_indices(seed: int, step: int, batch_size: int, image_count: int) -> NDArray[np.int64]:
    """Return the images of one step: a window of an endless row of shuffled epochs.

    Parameters
    ----------
    seed : int
        Seed of the run.
    step : int
        The step, from 0.
    batch_size : int
        Images per step; may exceed ``image_count``.
    image_count : int
        Images in the training set.

    Returns
    -------
    ndarray
        Indices from 0 to ``image_count`` − 1, (batch_size,). Each epoch holds every image once.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(positions, image_count)
    pieces = [
        _shuffled(seed, int(epoch), image_count)[offsets[epochs == epoch]]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(pieces)


@functools.lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, image_count: int) -> NDArray[np.int64]:
    """Sort by random keys; the sort is stable, so equal keys do no harm to repeatability."""
    counter = epoch * image_count % 2**32
    keys = np.asarray(random.rand(image_count, seed=seed, counter=counter))
    return np.argsort(keys, kind="stable")
