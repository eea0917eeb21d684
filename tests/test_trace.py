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


@pytest.mark.parametrize("divisor", [255, 3.0, -7e-3, np.float32(1e20), np.array(0.3)])
def test_a_value_divided_by_a_number(divisor):
    model = nn.Model(lambda x: x / divisor)
    for x in (X.reshape(4, -1), np.arange(256, dtype=np.uint8).reshape(4, -1)):
        exact = np.float64(x) / np.float64(divisor)
        error = np.abs(np.float64(model(x)) - exact)
        assert (error <= 2.0**-23 * np.abs(exact)).all()


@pytest.mark.parametrize("divisor", [1, -4, 2**-10, np.uint8(128), True])
def test_a_value_divided_by_a_power_of_two_is_exact(divisor):
    same_bits(nn.Model(lambda x: x / divisor)(X), X / np.float32(divisor))


@pytest.mark.parametrize(
    "divisor, error, words",
    [
        (0, ValueError, ("a divisor other than 0", "received 0.0")),
        (-0.0, ValueError, ("a divisor other than 0",)),
        (1e39, ValueError, ("a normal float32 number", "1e+39")),
        (1e-39, ValueError, ("a normal float32 number", "1e-39")),
        (np.nan, TypeError, ("a finite number", "nan")),
        ("3", TypeError, ("a number as operand", "str")),
        (np.ones(3), TypeError, ("a number as operand", "ndarray")),
    ],
)
def test_divisors_that_are_refused(divisor, error, words):
    with refusal(error, "layers.0 (function <lambda>)", *words):
        nn.Model(lambda x: x / divisor)


@pytest.mark.parametrize("divide", [lambda x: 1 / x, lambda x: x / x, lambda x: np.ones(3) / x])
def test_a_value_is_no_divisor(divide):
    with refusal(TypeError, "layers.0", "a number as divisor", "a traced value"):
        nn.Model(divide)


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


def test_a_layer_made_inside_a_function_is_refused():
    with refusal(TypeError, "layers.0 (function <lambda>)", "made outside the function"):
        nn.Model(lambda x: nn.Linear(3, 4)(x))


def test_no_layers():
    for layers in ((), ([],)):
        with refusal(TypeError, "at least one layer"):
            nn.Model(*layers)
