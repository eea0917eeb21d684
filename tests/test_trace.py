"""Tracing: what layers may do to the symbolic value, and what is refused by name."""

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from markets import same_bits
from refusals import refusal

X = np.random.default_rng(3).normal(size=(4, 3, 6, 6)).astype(np.float32)


class Block:
    """A residual block, as users write them: layers as attributes."""

    def __init__(self):
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.rest = [nn.InstanceNorm(3), {"out": nn.Conv2d(3, 3, 1, bias=False)}]

    def __call__(self, x):
        return (x + self.rest[1]["out"](self.rest[0](self.conv1(x)).relu())).relu()


def test_arithmetic_on_values():
    model = nn.Model(lambda x: 2 * x - (1 - x) * x + np.float32(0.5) - np.array(3.0))
    x = X[:, 0, 0].copy()
    np.testing.assert_allclose(model(x), 2 * x - (1 - x) * x - 2.5, rtol=1e-5, atol=1e-5)


def test_shape_gives_the_batch():
    x = X.copy()
    same_bits(nn.Model(lambda v: v.reshape(v.shape[0], -1))(x), x.reshape(4, -1))
    same_bits(nn.Model(lambda v: v.view((v.shape[0], 9, 12)))(x), x.reshape(4, 9, 12))
    same_bits(nn.Model(lambda v: v.reshape(-1, 108))(x), x.reshape(4, 108))


def test_a_block_computes_what_it_says():
    block = Block()
    weights = [block.conv1.weight, block.conv1.bias, block.rest[1]["out"].weight]
    inside = mp.functional.conv2d(X, weights[0], weights[1], padding=1)
    inside = np.maximum(mp.functional.instance_norm(inside), 0)
    expected = np.maximum(X + mp.functional.conv2d(inside, weights[2]), 0)
    np.testing.assert_allclose(nn.Model(block)(X), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer, received",
    [
        (lambda x: x.shape[1] + x, "x.shape[1]"),
        (lambda x: x.reshape(*x.shape), "the whole x.shape"),
        (lambda x: x if len(x.shape) else x, "len(x.shape)"),
        (lambda x: x.mean(), "axis=None"),
        (lambda x: x if x == 0 else x, "a comparison of x"),
        (lambda x: x.max_pool2d(0), "kernel_size of at least 1"),
        (lambda x: mp.functional.linear(x, np.ones((2, 2))), "NumPy array"),
    ],
)
def test_what_tracing_cannot_know(layer, received):
    with refusal(TypeError, "layers.1", "function <lambda>", received):
        nn.Model(nn.relu, layer)


def test_errors_name_the_layer_of_an_inner_model():
    inner = nn.Model(nn.relu, Block())
    inner.layers[1].rest = None
    with refusal(TypeError, "layers.2.layers.1 (Block)", "TypeError"):
        nn.Model(nn.relu, nn.relu, inner)


def test_a_bare_array_as_attribute_is_refused():
    class Scale:
        def __init__(self):
            self.number = mp.Tensor(3.0)

        def __call__(self, x):
            return x * self.number

    with refusal(TypeError, "layers.0 (Scale)", "trainable arrays inside layers"):
        nn.Model(Scale())


def test_a_value_of_another_model_is_refused():
    kept = []
    nn.Model(lambda x: kept.append(x) or x)
    with refusal(TypeError, "layers.0", "traced value"):
        nn.Model(lambda x: kept[0])


def test_a_layer_that_the_model_cannot_reach_is_refused():
    def hidden():
        box = iter([nn.Linear(2, 2)])
        return lambda x: next(box)(x)

    with refusal(TypeError, "layers.0", "a layer that the model can reach"):
        nn.Model(hidden())


def test_no_layers():
    for layers in ((), ([],)):
        with refusal(TypeError, "at least one layer"):
            nn.Model(*layers)
