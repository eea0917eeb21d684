"""Seeds as a pure function of (seed, step, spec, vendor), and the deltas that follow from them."""

import numpy as np
import pytest
import reference_market as oracle
from markets import (
    CONV,
    MLP,
    MLP_SHAPE,
    VENDORS,
    batch,
    build,
    close,
    fresh_seeds,
    optimizer,
    same_bits,
    seeds_of,
)


def all_deltas(opt):
    return [value for context in opt.spec_context for value in context.delta.values()]


def test_seeds_are_a_function_of_seed_step_spec_and_vendor():
    """The same master seed gives the same seeds, whatever was probed in between, on any market."""
    one, other = optimizer(build(MLP, VENDORS), seed=6), optimizer(build(MLP, (3, 9, 5)), seed=6)
    x, y = batch(MLP_SHAPE)
    for _ in range(3):
        for mine, theirs in zip(seeds_of(one), seeds_of(other), strict=True):
            shared = min(len(mine), len(theirs))
            same_bits(mine[:shared], theirs[:shared])
        one.probe(x, y)
        one.update_seeds()
        other.step(*other.probe(x, y))


def test_seeds_follow_their_documented_formula():
    opt = optimizer(build(MLP, VENDORS), seed=2**63 + 5)
    for generation in range(3):
        for spec, seeds in enumerate(seeds_of(opt)):
            expected = oracle.derive_seeds(2**63 + 5, generation, spec, len(seeds))
            assert seeds.dtype == np.uint64 and seeds.tolist() == expected
        opt.update_seeds()


def test_seeds_are_all_different():
    opt = optimizer(build(MLP, (40, 40, 40)), seed=0)
    seen = []
    for _ in range(4):
        seen += [int(seed) for seeds in seeds_of(opt) for seed in seeds[1:]]
        opt.update_seeds()
    assert len(set(seen)) == len(seen) == 4 * 3 * 39 and 0 not in seen


def test_keep_leader():
    opt = optimizer(build(MLP, VENDORS), seed=6)
    opt.update_seeds(keep_leader=True)
    assert all(seeds[0] == 0 for seeds in seeds_of(opt))
    assert not any(
        value[0].any() for context in opt.spec_context for value in context.delta.values()
    )
    opt.update_seeds(keep_leader=False)
    assert all((seeds != 0).all() for seeds in seeds_of(opt))
    assert all(value[0].any() for value in all_deltas(opt))


def test_given_seeds_are_used_and_read_back():
    seeds = fresh_seeds(VENDORS)
    built = build(MLP, VENDORS)
    opt = optimizer(built, seeds)
    for actual, expected in zip(seeds_of(opt), seeds, strict=True):
        same_bits(actual, expected)
    assert opt.get_seeds([1, 0, 4]).tolist() == [seeds[0][1], 0, seeds[2][4]]


@pytest.mark.parametrize("spec", range(3))
def test_deltas_have_the_bits_of_the_formula(spec):
    """Two roundings and never a fused one, so that every device gives the same bits."""
    built, seeds = build(CONV, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds)
    amplitude = np.float32(0.3) * np.float32(0.4)
    for vendor, seed in enumerate(seeds[spec]):
        counter = 0
        for key, shape in sorted(built.shapes(spec).items()):
            numbers = oracle.rand(shape, int(seed), counter)
            expected = np.float32(2) * amplitude * numbers - amplitude
            expected = expected if seed else np.zeros(shape, np.float32)
            same_bits(opt.spec_context[spec].delta[key][vendor], expected)
            counter += oracle.counter_advance(shape)


def test_without_a_probe_scale_the_learning_rate_is_the_amplitude():
    built, seeds = build(MLP, VENDORS), fresh_seeds(VENDORS)
    opt = optimizer(built, seeds, learning_rate=0.25, probe_scale=None)
    for key, value in built.deltas(seeds, 0.25)[1][2].items():
        close(opt.spec_context[1].delta[key][2], value, relative=1e-7)


def test_without_a_seed_runs_differ():
    one, other = (seeds_of(optimizer(build(MLP, VENDORS))) for _ in range(2))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
