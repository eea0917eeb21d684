"""Layers put together: branches, shared layers, layouts that change from one layer to the next.

Each composition is one Python function, run on a traced value by the product and on ``Array64`` by
the oracle.
"""

import marketplace as mp
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from marketplace import nn
from markets import close, same_bits

SHAPE = (3, 4, 7, 9)


class Array64:
    """A float64 array with the traced value's methods, each the oracle's."""

    def __init__(self, data):
        self.data = np.float64(data)

    @property
    def shape(self):
        return self.data.shape

    def __add__(self, other):
        return Array64(self.data + getattr(other, "data", other))

    def __mul__(self, other):
        return Array64(self.data * getattr(other, "data", other))

    def __sub__(self, other):
        return Array64(self.data - getattr(other, "data", other))

    def __rsub__(self, other):
        return Array64(other - self.data)

    def __neg__(self):
        return Array64(-self.data)

    __radd__, __rmul__ = __add__, __mul__

    def __getattr__(self, name):
        function = getattr(reference, name)
        return lambda *args, **options: Array64(function(self.data, *args, **options))

    def reshape(self, *shape):
        return Array64(self.data.reshape(*shape))

    def mean(self, axis, keepdim=False):
        return Array64(self.data.mean(axis=axis, keepdims=keepdim))


def on_arrays(layer):
    """The oracle's twin of a layer, reading the layer's own weights."""
    weight, bias = layer.weight, layer.bias
    if isinstance(layer, nn.Conv2d):
        window = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
        return lambda x: x.conv2d(weight, bias, **window)
    if isinstance(layer, nn.Linear):
        return lambda x: x.linear(weight, bias)
    if isinstance(layer, nn.LayerNorm):
        return lambda x: x.layer_norm(weight, bias, shape=layer.normalized_shape, eps=layer.eps)
    return lambda x: x.instance_norm(weight, bias, eps=layer.eps)


class Layers:
    """Layers by name; their eps keeps a norm of rows that are nearly constant well conditioned."""

    def __init__(self):
        self.same = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 1)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2)
        self.norm = nn.InstanceNorm(4, eps=0.5)
        self.whole = nn.LayerNorm((4, 7, 9), eps=0.5)
        self.rows = nn.LayerNorm(9, eps=0.5)
        self.columns = nn.Linear(9, 5)
        self.head = nn.Linear(252, 3)
        self.square = nn.Linear(252, 252)
        self.channels = nn.Linear(4, 3)
        negate_some_scales(self)


def negate_some_scales(layers):
    """A norm's scale may be negative: then the largest value in is the smallest out."""
    for layer in (layers.norm, layers.whole, layers.rows):
        signs = np.where(np.arange(layer.weight.size) % 2, -1.0, 1.25)
        layer.weight = signs.reshape(layer.weight.shape).astype(np.float32)


class Twins:
    """The same layers on arrays."""

    def __init__(self, layers):
        for name, layer in vars(layers).items():
            setattr(self, name, on_arrays(layer))


COMPOSITIONS = {
    "identity": lambda n: lambda x: x,
    "residual": lambda n: lambda x: x + n.same(x),
    "residual-relu": lambda n: lambda x: (n.same(x).relu() + x).relu(),
    "relu-of-one-use": lambda n: lambda x: n.same(x).relu(),
    "relu-and-plain": lambda n: lambda x: (lambda h: h.relu() + h)(n.same(x)),
    "two-relus": lambda n: lambda x: (lambda h: h.relu() * h.relu())(n.same(x)),
    "relu-of-the-input": lambda n: lambda x: x.relu() + n.same(x.relu()),
    "relu-of-a-sum": lambda n: lambda x: (n.same(x) + n.other(x)).relu(),
    "sum-with-itself": lambda n: lambda x: (lambda h: h + h)(n.same(x)),
    "square": lambda n: lambda x: (lambda h: h * h)(n.same(x)),
    "square-of-the-input": lambda n: lambda x: x * x,
    "shared-layer": lambda n: lambda x: n.same(n.same(x).relu()),
    "diamond": lambda n: lambda x: (lambda h: n.same(h) * n.other(h).sigmoid())(n.norm(x)),
    "unused-branch": lambda n: lambda x: (n.other(x), n.same(x))[1],
    "late-use-of-the-input": lambda n: lambda x: n.other(n.norm(n.same(x)).gelu()) - x,
    "arithmetic": lambda n: lambda x: 1.5 - n.same(2 * x + 0.25) * -0.5,
    "negation": lambda n: lambda x: -n.same(x),
    "norm-and-pool": lambda n: lambda x: n.norm(x).max_pool2d(),
    "norm-and-large-pool": lambda n: lambda x: n.norm(n.same(x)).max_pool2d((3, 2)),
    "norm-and-overlapping-pool": lambda n: lambda x: n.norm(x).max_pool2d(3, 2),
    "norm-and-average": lambda n: lambda x: n.norm(x).avg_pool2d(),
    "norm-for-two": lambda n: lambda x: (lambda h: h.max_pool2d(1) + h)(n.norm(n.same(x))),
    "pool-at-the-end": lambda n: lambda x: n.norm(n.other(x)).max_pool2d(2).relu(),
    "flatten-after-convolution": lambda n: lambda x: n.head(n.same(x).flatten(1)),
    "flatten-of-the-input": lambda n: lambda x: n.head(x.flatten(1)),
    "flatten-the-image": lambda n: lambda x: n.same(x).flatten(2),
    "mean-over-positions": lambda n: lambda x: n.channels(n.same(x).mean((2, 3))),
    "mean-over-channels": lambda n: lambda x: n.same(x).mean(1),
    "mean-over-one-side": lambda n: lambda x: n.same(x).mean(3, keepdim=True),
    "mean-of-the-input": lambda n: lambda x: x.mean((1, 2)),
    "reshape-after-convolution": lambda n: lambda x: n.same(x).reshape(x.shape[0], 12, 21),
    "reshape-and-back": lambda n: lambda x: n.other(
        n.same(x).reshape(x.shape[0], 28, 9).relu().reshape(x.shape[0], 4, 7, 9)
    ),
    "layer-norm-of-images": lambda n: lambda x: n.whole(n.same(x)),
    "layer-norm-of-rows": lambda n: lambda x: n.rows(n.same(x)),
    "linear-on-images": lambda n: lambda x: n.columns(n.same(x)),
    "convolution-after-linear": lambda n: lambda x: n.other(n.columns(x)),
    "pool-of-the-input": lambda n: lambda x: x.max_pool2d(3, 2) + x.avg_pool2d(3, 2),
    "pool-after-convolution": lambda n: lambda x: n.grouped(x).max_pool2d().flatten(1),
    "branches-of-both-layouts": lambda n: lambda x: n.same(x) + x.flatten(1).reshape(
        x.shape[0], 4, 7, 9
    ),
}  # fmt: skip


def draw_input(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def build(name):
    mp.random.manual_seed(3)
    layers = Layers()
    return layers, nn.Model(COMPOSITIONS[name](layers))


def expected(name, layers, x):
    return COMPOSITIONS[name](Twins(layers))(Array64(x)).data


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composition(name):
    layers, model = build(name)
    x = draw_input()
    market = [mp.Spec(model, vendor_count=2)]
    wanted = expected(name, layers, x)
    close(mp.straight_forward(market, x), wanted)
    close(mp.forward(market, x)[0], np.stack([wanted, wanted]))


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composition_between_other_specs(name):
    """What leaves one spec enters the next as it is, whatever the order of axes in memory."""
    layers, model = build(name)
    first, after = nn.Conv2d(2, 4, 3, padding=1), nn.Model(lambda x: x * 2.0)
    market = [mp.Spec(nn.Model(first), 2), mp.Spec(model, 1), mp.Spec(after, 2)]
    x = draw_input((3, 2, 7, 9))
    wanted = 2 * expected(name, layers, on_arrays(first)(Array64(x)).data)
    logits, paths = mp.forward(market, x)
    assert len(paths) == 4
    close(logits, np.stack([wanted] * 4))
    close(mp.straight_forward(market, x), wanted)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composition_in_bfloat16(name):
    """No more than five roundings of 2⁻⁸ each follow one another in any of them."""
    layers, model = build(name)
    x = draw_input()
    opt = mp.Optimizer([mp.Spec(model, 1)], 0.1, dtype="bfloat16", seed=0, threads=2)
    logits, _ = mp.forward(opt.marketplace, x, vendors=opt.vendors)
    close(logits[0], expected(name, layers, x), relative=5 * 2.0**-8)


def back(x):
    return x.reshape(x.shape[0], 4, 7, 9)


# One instruction of a random graph: what to do with two earlier values, chosen by index.
STEPS = {
    "conv": lambda n, a, b: n.same(a),
    "point": lambda n, a, b: n.other(a),
    "norm": lambda n, a, b: n.norm(a),
    "whole": lambda n, a, b: n.whole(a),
    "rows": lambda n, a, b: n.rows(a),
    "relu": lambda n, a, b: a.relu(),
    "tanh": lambda n, a, b: a.tanh(),
    "pool": lambda n, a, b: a.max_pool2d(3, 1, padding=1),
    "reshape": lambda n, a, b: a.flatten(1).reshape(a.shape[0], 4, 7, 9),
    "affine": lambda n, a, b: a * 0.5 + 0.25,
    "average": lambda n, a, b: a.avg_pool2d(3, 1, padding=1),
    "norm-pool": lambda n, a, b: n.norm(a).max_pool2d(1, 1),
    "turn": lambda n, a, b: back(a.reshape(a.shape[0], 4, 9, 7).max_pool2d(3, 1, padding=1)),
    "split": lambda n, a, b: back(a.reshape(a.shape[0], 9, 4, 7).max_pool2d(3, 1, padding=1)),
    "fold": lambda n, a, b: back(n.rows(a.reshape(a.shape[0], 28, 9))),
    "product": lambda n, a, b: back(n.square(a.flatten(1)).tanh()),
    "add": lambda n, a, b: a + b,
    "multiply": lambda n, a, b: a.sigmoid() * b.tanh(),
}
INSTRUCTIONS = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9))


def random_graph(n, instructions):
    def run(x):
        values = [x]
        for step, a, b in instructions:
            values.append(STEPS[step](n, values[a % len(values)], values[b % len(values)]))
        return values[-1] + values[len(values) // 2].tanh()

    return run


@given(st.lists(INSTRUCTIONS, min_size=1, max_size=9))
def test_any_graph(instructions):
    """Values live as long as anything needs them, and no longer than their place is theirs."""
    mp.random.manual_seed(3)
    layers, x = Layers(), draw_input()
    market = [mp.Spec(nn.Model(random_graph(layers, instructions)), 1)]
    wanted = random_graph(Twins(layers), instructions)(Array64(x)).data
    close(mp.straight_forward(market, x), wanted)


def test_a_shared_layer_has_its_parameters_once():
    layers, model = build("shared-layer")
    shapes = {value.shape for value in model.state_dict().values()}
    assert len(model.state_dict()) == 2 and shapes == {(4, 4, 3, 3), (4,)}
    assert model.parameter_count == 4 * 4 * 9 + 4


def test_a_layer_reads_the_models_live_values():
    layers, model = build("residual")
    market = [mp.Spec(model, 3)]
    opt = mp.Optimizer(market, 0.3, probe_scale=0.4, seed=1, threads=1)
    before = layers.same.weight
    x = draw_input()
    loss = np.array([1.0, 2.0, 3.0], np.float32)
    opt.step(loss, np.array([[0], [1], [2]], np.int32))
    assert not np.array_equal(before, layers.same.weight)
    close(mp.straight_forward(market, x), expected("residual", layers, x))


def test_nested_models_run_as_one():
    mp.random.manual_seed(3)
    one, two = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3)
    nested, x = nn.Model(nn.Model(one, nn.relu), two), draw_input()
    result = mp.straight_forward([mp.Spec(nested, 1)], x)
    flat = nn.Model(nn.Conv2d(4, 4, 3), nn.relu, nn.Conv2d(4, 2, 3))
    values = [one.weight, one.bias, two.weight, two.bias]
    keys = [f"layers.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")]
    flat.load_state_dict(dict(zip(keys, values, strict=True)))
    same_bits(np.asarray(mp.straight_forward([mp.Spec(flat, 1)], x)), np.asarray(result))
