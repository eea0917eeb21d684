"""Where node perturbation is exact, smooth ops given, against gradients of the loss.

With one pixel a channel, and with a column of signs for every pixel and every norm's parameter.
"""

import numpy as np
import pytest
import reference
from markets import FLATTEN, TANH, batch, build, conv, fresh_seeds, linear, norm, parameters
from nodes import (
    CONTRACTIONS,
    add,
    estimate,
    first_trained,
    gradients_of,
    layers_of,
    logit_errors,
    losses_of,
    node,
    noise_of,
    stages_of,
)
from ops.registry import U32

GELU, SIGMOID = ("gelu", {}), ("sigmoid", {})
MLPS = {
    "one-hidden": ([[linear(6, 5), TANH], [linear(5, 3)]], [(2, 1), (6, 3)]),
    "deep": (
        [[linear(6, 5), TANH], [linear(5, 7), GELU], [linear(7, 4), SIGMOID], [linear(4, 3)]],
        [(2, 2, 2, 1), (4, 3, 2, 5), (1, 2, 3, 1), (3, 1, 2, 1)],
    ),
    "split-anywhere": (
        [[linear(6, 5)], [TANH, linear(5, 7)], [GELU], [linear(7, 33), SIGMOID, linear(33, 3)]],
        [(2, 3, 1, 2), (1, 3, 2, 1), (5, 1, 1, 2)],
    ),
    "linear-on-linear": ([[linear(6, 5), linear(5, 4)], [TANH, linear(4, 3)]], [(3, 1)]),
    "one-spec": ([[linear(6, 5), TANH, linear(5, 4), TANH, linear(4, 3)]], [(2,), (4,)]),
}
CASES = [(name, counts) for name, (_, choices) in MLPS.items() for counts in choices]


def derivative(name, x):
    """What a smooth op multiplies errors by."""
    if name == "tanh":
        return 1 - np.tanh(x) ** 2
    if name == "sigmoid":
        value = reference.sigmoid(x)
        return value * (1 - value)
    return (reference.gelu(x + 1e-6) - reference.gelu(x - 1e-6)) / 2e-6


def backpropagate(layers, x, y):
    """Errors ``(B, C)`` of every contraction's sums."""
    inputs = []
    for layer in layers:
        inputs.append(x)
        x = layer(x)
    errors, found = logit_errors(x, y)[:, :, 0], {}
    for layer, before in zip(reversed(layers), reversed(inputs), strict=True):
        if layer.name in CONTRACTIONS:
            found[id(layer)] = errors
            errors = errors @ layer.weights["weight"]
        else:
            errors = errors * derivative(layer.name, before)
    return found


def curvature(stage, noise, y):
    """``|f(z + h) + f(z - h) - 2 f(z)| / 2h``: what a one-sided difference errs by, doubled."""
    sums = stage.contraction(stage.x)
    behind = [*stage.channelwise, *stage.rest]
    result = np.zeros_like(sums)
    for c in range(sums.shape[1]):
        losses = []
        for sign in (1, -1, 0):
            moved = sums.copy()
            moved[:, c] += sign * noise[:, 0]
            losses.append(losses_of(behind, moved, y))
        result[:, c] = np.abs(losses[0] + losses[1] - 2 * losses[2]) / noise[:, 0]
    return result


def analytic(description, weights, counts, x, y, scale):
    """The gradient, and how far a difference at this scale may be from it."""
    layers = layers_of(description, weights)
    errors = backpropagate(layers, np.float64(x), y)
    stages, logits = stages_of(layers, counts, np.float64(x))
    gradients = [{k: np.zeros(np.shape(v)) for k, v in spec.items()} for spec in weights]
    bounds = [{k: np.zeros(np.shape(v)) for k, v in spec.items()} for spec in weights]
    units = 32 * U32 * max(1.0, np.abs(logits).max())
    for stage in stages:
        layer = stage.contraction
        last = stage is stages[-1]
        if not last and counts[layer.spec] == 1:
            continue
        noise = noise_of(layer(stage.x), scale)
        off = units if last else curvature(stage, noise, y)[:, :, None] + units / noise[:, :, None]
        add(gradients, bounds, stage, errors[id(layer)][:, :, None], off)
    return [
        [{k: v / len(y) for k, v in spec.items()} for spec in part] for part in (gradients, bounds)
    ]


def within(actual, expected, bounds, share):
    for mine, theirs, limits in zip(actual, expected, bounds, strict=True):
        for key, value in theirs.items():
            error = np.abs(np.float64(mine[key]) - value)
            assert (error <= limits[key] + 1e-30).all(), (key, (error / limits[key]).max())
            assert limits[key].max() <= share * np.abs(value).max(), key


@pytest.mark.parametrize("name, counts", CASES)
def test_the_gradient_is_backpropagations(name, counts):
    description = MLPS[name][0]
    built, seeds = build(description, counts), fresh_seeds(counts)
    x, y = batch((40, 6))
    weights = [parameters(spec.model) for spec in built.specs]
    expected, bounds = analytic(description, weights, counts, x, y, 0.01)
    actual = gradients_of(node(built, seeds, probe_scale=0.01), x, y)[1]
    within(actual, expected, bounds, share=0.2)
    frozen = [s for s, count in enumerate(counts[:-1]) if count == 1]
    for spec in frozen:
        assert not any(value.any() for value in actual[spec].values())


@pytest.mark.parametrize("name, counts", CASES)
def test_the_oracles_limit_is_backpropagation(name, counts):
    """The oracle itself, without float32: six digits at a millionth of the sums' size."""
    description = MLPS[name][0]
    weights = [parameters(spec.model) for spec in build(description, counts).specs]
    x, y = batch((12, 6))
    expected = analytic(description, weights, counts, x, y, 1e-5)[0]
    found = estimate(description, weights, counts, fresh_seeds(counts), 1e-6, x, y)[0]
    for mine, theirs in zip(found, expected, strict=True):
        for key, value in theirs.items():
            assert np.abs(mine[key] - value).max() <= 1e-5 * np.abs(value).max() + 1e-30, key


def test_where_training_starts():
    assert [first_trained(c) for c in [(1,), (3, 1), (1, 3, 1), (1, 1, 5), (1, 1)]] == [
        0,
        0,
        1,
        2,
        1,
    ]


# -- pixels on columns of their own ----------------------------------------------------------------

PIXELS = [[conv(1, 3, 3), TANH, norm(3), FLATTEN], [linear(48, 3)]]  # 4 x 4 pixels, 2 parameters


def differentiate(description, weights, x, y):
    """The mean loss's gradient by the first spec's parameters: central differences in float64."""

    def loss():
        return losses_of(layers_of(description, weights), np.float64(x), y).mean()

    gradient = {}
    for key, value in weights[0].items():
        gradient[key] = np.zeros(value.shape)
        for at in np.ndindex(value.shape):
            base, ends = value[at], []
            for step in (1e-5, -1e-5):
                value[at] = base + step
                ends.append(loss())
            value[at] = base
            gradient[key][at] = (ends[0] - ends[1]) / 2e-5
    return gradient


def errors_of_gradients(counts):
    """By parameter, the distance of the engine's gradient from the true one, over its length."""
    x, y = batch((9, 1, 6, 6))
    built = build(PIXELS, counts)
    weights = [
        {key: np.float64(value) for key, value in parameters(spec.model).items()}
        for spec in built.specs
    ]
    exact = differentiate(PIXELS, weights, x, y)
    _, found = gradients_of(node(built, fresh_seeds(counts), probe_scale=1e-3), x, y)
    return {
        key: np.linalg.norm(found[0][key] - value) / np.linalg.norm(value)
        for key, value in exact.items()
    }


def test_a_column_for_every_pixel_gives_the_gradient():
    assert max(errors_of_gradients((33, 1)).values()) < 0.01


def test_with_fewer_columns_pixels_are_in_each_others_way():
    """But not in that of the norm's parameters."""
    errors = errors_of_gradients((17, 1))
    assert errors["layers.0.weight"] > 0.1
    assert max(errors["layers.2.weight"], errors["layers.2.bias"]) < 0.01
