"""Images changed a little at random, as a pure function of (seed, step)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random

DEGREES = 10.0
CORNER_PIXELS = 3.0
_DRAWS = 9  # an angle, and four corners of two coordinates


def augment(images: NDArray[np.uint8], seed: int, step: int) -> NDArray[np.uint8]:
    """Rotate every image by up to 10 degrees and move its corners by up to 3 pixels.

    Output pixels look up where they come from: through the quadrilateral of the moved corners
    (bilinear between them), then the rotation about the centre; values between pixels are bilinear,
    outside the image they are 0. After tinygrad's ``augment_img``, which the original trained with.

    Parameters
    ----------
    images : ndarray
        Images (N, 1, H, W), uint8.
    seed, step : int
        What the changes are a function of.

    Returns
    -------
    ndarray
        Images of the same shape and dtype.
    """
    count, _, height, width = images.shape
    counter = step * count * _DRAWS % 2**32
    draws = 2.0 * np.asarray(random.rand(count, _DRAWS, seed=seed, counter=counter)) - 1.0
    corners = CORNER_PIXELS * draws[:, 1:].reshape(count, 4, 2)
    rows, columns = _quadrilateral(corners, height, width)
    angles = np.float64(math.radians(DEGREES)) * draws[:, :1, None]
    rows, columns = _rotated(rows, columns, angles, (height - 1) / 2, (width - 1) / 2)
    return np.expand_dims(_sampled(images[:, 0], rows, columns), 1)


def _quadrilateral(
    corners: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the row and column (N, H, W) that each output pixel shows, corners being moved."""
    down = np.linspace(0.0, 1.0, height)[:, None]
    right = np.linspace(0.0, 1.0, width)[None, :]
    shares = ((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right)
    moves = sum(corners[:, i, :, None, None] * share[None, None] for i, share in enumerate(shares))
    assert isinstance(moves, np.ndarray)
    return moves[:, 0] + down * (height - 1), moves[:, 1] + right * (width - 1)


def _rotated(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    angles: NDArray[np.float64],
    row: float,
    column: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn points about (row, column)."""
    cosine, sine = np.cos(angles), np.sin(angles)
    down, right = rows - row, columns - column
    return row + cosine * down - sine * right, column + sine * down + cosine * right


def _sampled(
    images: NDArray[np.uint8], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Look images (N, H, W) up at points between pixels."""
    height, width = images.shape[1:]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    total: NDArray[Any] = np.zeros(rows.shape)
    which = np.arange(len(images))[:, None, None]
    for down in (0, 1):
        for right in (0, 1):
            r, c = top + down, left + right
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            share = (1 - np.abs(rows - r)) * (1 - np.abs(columns - c))
            values = images[which, r.clip(0, height - 1), c.clip(0, width - 1)]
            total += np.where(inside, share * values, 0.0)
    rounded: NDArray[np.uint8] = np.rint(total).astype(np.uint8)
    return rounded
