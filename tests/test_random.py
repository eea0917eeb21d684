"""Counter-based random numbers: bit for bit the reference's, on any counter."""

import marketplace as mp
import numpy as np
import pytest
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from markets import same_bits

SEEDS = st.integers(0, 2**64 - 1)
COUNTERS = st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 40, 2**32 - 1))
DTYPES = (np.float32, np.float16)


@pytest.mark.parametrize("index", range(10))
def test_rand_is_the_references(golden_random, index):
    seed, counter, shape, expected = (
        golden_random[f"rand{index}_{name}"] for name in ("seed", "counter", "shape", "out")
    )
    actual = mp.random.rand(*shape.tolist(), seed=int(seed), counter=int(counter))
    same_bits(actual, expected)


def test_rand_float16_is_the_references(golden_random):
    g = golden_random
    seed, counter = int(g["rand_f16_seed"]), int(g["rand_f16_counter"])
    actual = mp.random.rand(9, seed=seed, counter=counter, dtype=np.float16)
    same_bits(actual, g["rand_f16_out"])


def test_oracle_is_the_references(golden_random):
    g = golden_random
    for index in range(10):
        seed, counter = g[f"rand{index}_seed"], g[f"rand{index}_counter"]
        expected = g[f"rand{index}_out"]
        same_bits(oracle.rand(expected.shape, seed, counter), expected)


@given(SEEDS, COUNTERS, st.lists(st.integers(1, 9), max_size=3), st.sampled_from(DTYPES))
def test_rand_against_the_oracle(seed, counter, shape, dtype):
    actual = mp.random.rand(*shape, seed=seed, counter=counter, dtype=dtype)
    same_bits(actual, oracle.rand(tuple(shape), seed, counter, dtype))


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 31, 32, 33, 1000, 4097])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rand_lengths(count, dtype):
    actual = mp.random.rand(count, seed=2**63 + 11, counter=3, dtype=dtype)
    same_bits(actual, oracle.rand((count,), 2**63 + 11, 3, dtype))


@pytest.mark.parametrize("counter", [2**32 - 1, 2**32 - 5, 2**32 - 16, 2**31])
def test_counter_wraps_around(counter):
    actual = mp.random.rand(33, seed=9, counter=counter)
    same_bits(actual, oracle.rand((33,), 9, counter))


@given(SEEDS)
def test_rand_lies_in_the_unit_interval(seed):
    for dtype in DTYPES:
        numbers = mp.random.rand(200, seed=seed, dtype=dtype)
        assert numbers.dtype == dtype
        assert (numbers >= 0).all() and (numbers < 1).all()


def test_rand_is_uniform():
    numbers = np.float64(mp.random.rand(200_000, seed=4))
    # five standard errors of the mean and of the variance of 200,000 uniform numbers
    assert abs(numbers.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 200_000)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / 200_000)


def test_empty_shape_is_a_scalar_and_zero_extent_is_empty():
    scalar = mp.random.rand(seed=123456)
    assert scalar.shape == () and scalar == np.float32(0.7353424)
    assert mp.random.rand(0, 3, seed=1).shape == (0, 3)
    assert mp.random.counter_advance(0, 3, dtype=np.float32) == 0


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (5, 7), (32, 1, 5, 5)])
def test_counter_advance(shape):
    count = int(np.prod(shape))
    assert mp.random.counter_advance(*shape, dtype=np.float32) == count
    assert mp.random.counter_advance(*shape, dtype=np.float16) == (count + 1) // 2


def test_generator_continues_where_it_stopped():
    generator = mp.random.RandomNumberGenerator(seed=77, counter=5)
    first = generator.rand(3, 5)
    assert generator.counter == 20
    second = generator.rand(7)
    assert generator.counter == 27
    same_bits(first, oracle.rand((3, 5), 77, 5))
    same_bits(second, oracle.rand((7,), 77, 20))


def test_generator_counter_wraps_around():
    generator = mp.random.RandomNumberGenerator(seed=77, counter=2**32 - 3)
    generator.rand(5)
    assert generator.counter == 2
    same_bits(generator.rand(4), oracle.rand((4,), 77, 2))


@pytest.mark.parametrize("low, high", [(-0.25, 0.25), (0.0, 1.0), (-3.0, 5.0)])
def test_uniform_scales_the_same_numbers(low, high):
    numbers = mp.random.RandomNumberGenerator(seed=3).uniform(101, low=low, high=high)
    plain = oracle.rand((101,), 3)
    same_bits(numbers, np.float32(high - low) * plain + np.float32(low))


def test_uniform_like_takes_the_shape():
    target = np.zeros((2, 3, 4), np.float32)
    numbers = mp.random.RandomNumberGenerator(seed=3).uniform_like(target, low=-1.0, high=1.0)
    same_bits(numbers, np.float32(2) * oracle.rand((2, 3, 4), 3) - np.float32(1))


def test_seeds_are_not_confused():
    one, two = (mp.random.rand(64, seed=seed) for seed in (1, 1 + 2**32))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    "seed, counter, error",
    [(-1, 0, ValueError), (2**64, 0, ValueError), (1, -1, ValueError), ("1", 0, TypeError)],
)
def test_refuses_what_is_no_seed_or_counter(seed, counter, error):
    with pytest.raises(error, match=r"expected .+ received"):
        mp.random.rand(4, seed=seed, counter=counter)


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.uint8])
def test_refuses_other_dtypes(dtype):
    with pytest.raises((TypeError, ValueError), match=r"expected .*float32.* received"):
        mp.random.rand(4, seed=1, dtype=dtype)
