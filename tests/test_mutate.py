"""V1: keep the best, mutate."""

import marketplace as mp
import numpy as np
import reference
from markets import (
    MLP,
    MLP_SHAPE,
    batch,
    build,
    close,
    close_parameters,
    same_bits,
)


def test_mutate_takes_over_the_best_vendor():
    built = build(MLP, (3, 3, 3))
    x, y = batch(MLP_SHAPE)
    mp.mutate(built.specs, np.array([0, 0, 0]), 0.2, seed=5)
    logits, paths = mp.forward(built.specs, x)
    best = int(mp.topk(reference.cross_entropy(logits, y), 1, largest=False)[1][0])
    assert paths[best].any()
    mp.mutate(built.specs, paths[best], 0.2, seed=6)
    close(mp.straight_forward(built.specs, x), logits[best], relative=1e-6)


def test_mutate_draws_new_vendors_around_the_leader():
    built, x = build(MLP, (3, 4, 2)), batch(MLP_SHAPE)[0]
    mp.mutate(built.specs, [0, 0, 0], 0.2, seed=5)
    logits, paths = mp.forward(built.specs, x)
    same_bits(logits[0], mp.forward(built.specs, x)[0][0])
    close(logits[0], mp.straight_forward(built.specs, x), relative=1e-6)
    assert len({row.tobytes() for row in np.asarray(logits)}) == len(paths)


def test_mutate_jitter_bounds_the_change():
    built = build(MLP, (3, 3, 3))
    before = built.weights
    mp.mutate(built.specs, [0, 0, 0], 0.2, seed=5)
    close_parameters(built, before)
    mp.mutate(built.specs, [2, 0, 1], 0.2, seed=6)
    change = [
        max(np.abs(new[key] - old[key]).max() for key in old)
        for old, new in zip(before, built.weights, strict=True)
    ]
    assert 0.15 < change[0] <= 0.2 and change[1] == 0 and 0.15 < change[2] <= 0.2


def test_mutate_is_a_function_of_its_seed():
    results = []
    for seed in (5, 5, 6):
        built = build(MLP, (2, 2, 2))
        mp.mutate(built.specs, [0, 0, 0], 0.2, seed=seed)
        results.append(np.asarray(mp.forward(built.specs, batch(MLP_SHAPE)[0])[0]))
    same_bits(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
