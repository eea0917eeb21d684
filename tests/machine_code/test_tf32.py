"""Products in tf32, for every shape of tile: as if the factors had been rounded before."""

import os

import marketplace as mp
import numpy as np
import pytest
from ops import U32
from test_layers import ALL, draw_input, draw_params, over, run_market

GPUS = [device["name"] for device in mp.devices() if device["kind"] == "cuda"]
# a chip's own sums are less exact
pytestmark = pytest.mark.skipif(
    "MARKETPLACE_PTX_MACHINE" not in os.environ or not GPUS, reason="needs the machine"
)
PRODUCTS = [(op, case) for op, case in ALL if op.product]


def tf32(x):
    """Round to 10 bits of mantissa, ties away from zero."""
    bits = np.float32(x).view(np.uint32) + np.uint32(0x1000)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("vendors", [1, 9, 40])
@over(PRODUCTS)
def test_factors_are_rounded(op, case, vendors):
    x, params = draw_input(case.shape, 1), draw_params(op, case, 2)
    result, weights = run_market(op, case, x, params, vendors, "tf32", 1, GPUS[0])
    for actual, own in zip(result, weights, strict=True):
        factors = own | {"weight": tf32(own["weight"])}
        given = np.float64(tf32(x))
        expected = op.oracle(given, factors, case.options)
        exact = {name: np.float64(value) for name, value in factors.items()}
        bound = op.error(given, exact, case.options, expected, U32) + U32 * np.abs(expected)
        assert np.all(np.abs(actual - expected) <= bound)
