"""Batch norm: batch statistics while probing, running statistics from the leader."""

import marketplace as mp
import numpy as np
import reference
import reference_market as oracle
from markets import (
    AMPLITUDE,
    FLATTEN,
    RELU,
    batch,
    build,
    close,
    conv,
    fresh_seeds,
    linear,
    norm,
    optimizer,
    same_states,
    states,
)

NORMED = [[conv(2, 3, 3), norm(3, "batch_norm"), RELU], [FLATTEN, linear(48, 3)]]
NORMED_SHAPE = (6, 2, 6, 6)


def hidden(built, x):
    """What the batch norm of ``NORMED`` receives from the leader."""
    weights = built.weights[0]
    return reference.conv2d(x, weights["layers.0.weight"], weights["layers.0.bias"])


def running(built):
    state = built.specs[0].model.state_dict()
    return state["layers.1.running_mean"], state["layers.1.running_var"]


def test_running_statistics_come_from_the_leader():
    built = build(NORMED, (3, 2))
    opt = optimizer(built, seed=4, learning_rate=0.01)
    expected = [np.zeros(3), np.ones(3)]
    for seed in (1, 2):
        x, y = batch(NORMED_SHAPE, seed=seed)
        expected = reference.running_statistics(hidden(built, x), *expected)
        opt.step(*opt.probe(x, y))
        for actual, value in zip(running(built), expected, strict=True):
            close(actual, value)
    assert built.specs[0].model.state_dict()["layers.1.num_batches_tracked"] == 2


def test_probing_alone_leaves_running_statistics():
    built = build(NORMED, (3, 2))
    opt, before = optimizer(built, seed=4), states(built)
    opt.probe(*batch(NORMED_SHAPE))
    mp.straight_forward(built.specs, batch(NORMED_SHAPE)[0])
    same_states(before, states(built))


def test_probing_uses_batch_statistics():
    built, seeds = build(NORMED, (3, 2)), fresh_seeds((3, 2))
    x, y = batch(NORMED_SHAPE)
    loss, paths = optimizer(built, seeds).probe(x, y)
    deltas = built.deltas(seeds, AMPLITUDE)
    close(loss, oracle.path_losses(built.models, built.weights, deltas, x, y, paths))


def test_straight_forward_uses_running_statistics():
    built = build(NORMED, (3, 2))
    opt = optimizer(built, seed=4)
    x, y = batch(NORMED_SHAPE)
    opt.step(*opt.probe(x, y))
    mean, var = running(built)
    weights = built.weights
    scale, shift = weights[0]["layers.1.weight"], weights[0]["layers.1.bias"]
    value = reference.batch_norm(hidden(built, x), scale, shift, mean=mean, var=var)
    close(mp.straight_forward(built.specs, x), built.models[1](reference.relu(value), weights[1]))


def test_running_statistics_are_never_perturbed():
    built = build(NORMED, (3, 2))
    keys = set(optimizer(built, seed=4).spec_context[0].delta)
    assert keys == {f"layers.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")}
