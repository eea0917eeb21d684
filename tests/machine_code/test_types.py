"""Kernels that few tests come to: candidates and images of every type."""

import marketplace as mp
import numpy as np
import pytest
from emulated import EMULATED, InterfaceArray, make
from markets import CONV, CONV_SHAPE, batch

pytestmark = pytest.mark.skipif(not EMULATED, reason="needs an emulated GPU")
TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


def candidates(dtype, count):
    rng = np.random.default_rng(count)
    if dtype[0] != "f":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, (2, count), dtype=dtype, endpoint=True)
    x = rng.normal(size=(2, count)).astype(dtype)
    x[0, :2], x[1, :2] = (np.nan, np.inf), (-0.0, 0.0)
    return x


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count, k", [(300, 300), (9000, 4100)])
@pytest.mark.parametrize("largest", [True, False])
def test_topk(dtype, count, k, largest):
    x = candidates(dtype, count)
    there = mp.topk(InterfaceArray(x), k, largest)
    for mine, expected in zip(there, mp.topk(x, k, largest), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_images_of_bytes(dtype):
    x, y = np.random.default_rng(0).integers(0, 255, CONV_SHAPE, np.uint8), batch(CONV_SHAPE)[1]
    _, opt = make(CONV, dtype=dtype)
    expected = np.asarray(opt.probe(np.float32(x), y)[0])
    np.testing.assert_array_equal(np.asarray(opt.probe(x, y)[0]), expected)
