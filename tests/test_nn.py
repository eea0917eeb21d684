"""Layers and models: keys, the older spelling, first values, state dicts and who owns an array."""

import functools
from typing import NamedTuple

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from markets import same_bits
from refusals import refusal

X = np.random.default_rng(3).normal(size=(4, 3, 6, 6)).astype(np.float32)
global_skip = nn.Conv2d(3, 3, 1)


class Block:
    """A residual block, as users write them: layers as attributes."""

    def __init__(self):
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.rest = [nn.InstanceNorm(3), {"out": nn.Conv2d(3, 3, 1, bias=False)}]

    def __call__(self, x):
        return (x + self.rest[1]["out"](self.rest[0](self.conv1(x)).relu())).relu()

    def method(self, x):
        return self(x)


class Pair(NamedTuple):
    first: nn.Layer
    second: nn.Layer

    def __call__(self, x):
        return self.second(self.first(x))


def keys(*layers):
    return list(nn.Model(*layers).state_dict())


def named(prefix, *names):
    return [f"{prefix}.{name}" for name in names]


BOTH = ("weight", "bias")
BLOCK = ("conv1.weight", "conv1.bias", "rest.0.weight", "rest.0.bias", "rest.1.out.weight")

# -- keys ------------------------------------------------------------------------------------------


def test_keys_of_layers():
    assert keys(nn.Conv2d(3, 4, 3), nn.relu, nn.Conv2d(4, 2, 1, bias=False)) == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.2.weight",
    ]


def test_keys_of_every_layer():
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert keys(nn.Linear(2, 2)) == named("layers.0", *BOTH)
    assert keys(nn.InstanceNorm(3)) == named("layers.0", *BOTH)
    assert keys(nn.LayerNorm(3)) == named("layers.0", *BOTH)
    assert keys(nn.BatchNorm(3)) == named("layers.0", *BOTH, *statistics)
    assert keys(nn.BatchNorm(3, affine=False)) == named("layers.0", *statistics)
    assert keys(nn.InstanceNorm(3, affine=False)) == []
    assert keys(nn.LayerNorm(3, elementwise_affine=False)) == []


def test_keys_of_a_block():
    assert keys(nn.relu, Block()) == named("layers.1", *BLOCK)


def test_keys_of_a_method():
    assert keys(Block().method) == named("layers.0", *BLOCK)


def test_keys_of_a_named_tuple():
    pair = Pair(nn.Linear(2, 2), nn.Linear(2, 3, bias=False))
    assert keys(pair) == ["layers.0.first.weight", "layers.0.first.bias", "layers.0.second.weight"]


def test_keys_of_a_model_in_a_model():
    inner = nn.Model(nn.relu, nn.Linear(2, 2))
    assert keys(nn.Linear(2, 2), inner) == named("layers.0", *BOTH) + named(
        "layers.1.layers.1", *BOTH
    )


def test_keys_of_a_model_with_a_closure_in_a_model():
    skip = nn.Linear(2, 2)
    inner = nn.Model(lambda x: x + skip(x))
    assert keys(inner) == named("layers.0.layers.0.skip", *BOTH)


def test_keys_of_what_a_function_knows():
    skip = nn.Conv2d(3, 3, 1)
    by_closure = named("layers.0.skip", *BOTH)
    assert keys(lambda x: x + skip(x)) == by_closure
    assert keys(lambda x, skip=skip: x + skip(x)) == by_closure
    assert keys(lambda x: x + global_skip(x)) == named("layers.0.global_skip", *BOTH)
    assert keys(lambda x: (lambda y: y + global_skip(y))(x)) == named("layers.0.global_skip", *BOTH)


def module_level(x):
    return global_skip(x).relu()


def test_keys_of_a_function_of_the_same_module():
    assert keys(lambda x: module_level(x)) == named("layers.0.module_level.global_skip", *BOTH)


def test_keys_of_a_partial():
    def residual(layer, x, other):
        return layer(x) + other(x)

    partial = functools.partial(residual, nn.Linear(2, 2), other=nn.Linear(2, 2, bias=False))
    assert sorted(keys(partial)) == [
        "layers.0.0.bias",
        "layers.0.0.weight",
        "layers.0.other.weight",
    ]


def test_attributes_name_before_functions():
    shared = nn.Linear(2, 2)
    assert keys(lambda x: x + shared(x), shared) == named("layers.1", *BOTH)


def test_a_layer_used_twice_has_its_first_key():
    shared = nn.Linear(2, 2)
    assert keys(shared, nn.relu, shared) == named("layers.0", *BOTH)
    model = nn.Model(shared, nn.relu, shared)
    assert model.parameter_count == 6
    x = X[:, 0, 0, :2].copy()
    same_bits(model(x), shared(np.maximum(shared(x), 0)))


def test_layers_that_are_not_called_count():
    block = Block()
    block.spare = nn.Linear(5, 7)
    model = nn.Model(block)
    assert model.state_dict()["layers.0.spare.weight"].shape == (7, 5)
    assert model.parameter_count == sum(v.size for v in model.state_dict().values())


def test_random_counters_follow_the_sorted_keys():
    model = nn.Model(nn.Conv2d(3, 4, 3), nn.relu, nn.BatchNorm(4))
    opt = mp.Optimizer([mp.Spec(model, 2)], 0.5, seeds=[np.array([0, 77], np.uint64)])
    generator = mp.random.RandomNumberGenerator(77)
    delta = opt.spec_context[0].delta
    assert list(delta) == sorted(key for key in model.state_dict() if key.endswith(BOTH))
    for key in delta:
        shape = model.state_dict()[key].shape
        drawn = generator.uniform(*shape, low=-0.5, high=0.5)
        np.testing.assert_allclose(delta[key][1], drawn, rtol=0, atol=2**-24)
        assert not delta[key][0].any()


def test_a_list_is_accepted():
    assert keys([nn.Linear(2, 2), nn.relu]) == named("layers.0", *BOTH)


# -- spellings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "older, newer",
    [
        (lambda: nn.Conv2d(8, 1, 32, 5), lambda: nn.Conv2d(1, 32, 5)),
        (lambda: nn.Conv2d(8, 1, 32, (5, 3), stride=2), lambda: nn.Conv2d(1, 32, (5, 3), stride=2)),
        (lambda: nn.Linear(8, 5, 4), lambda: nn.Linear(5, 4)),
        (lambda: nn.InstanceNorm(8, 4), lambda: nn.InstanceNorm(4)),
        (lambda: nn.BatchNorm(8, 4), lambda: nn.BatchNorm(4)),
        (lambda: nn.LayerNorm(8, (4, 3)), lambda: nn.LayerNorm((4, 3))),
        (
            lambda: nn.Linear(vendor_count=8, in_features=5, out_features=4),
            lambda: nn.Linear(in_features=5, out_features=4),
        ),
    ],
)
def test_leading_vendor_count(older, newer):
    mp.random.manual_seed(1)
    first = older()
    mp.random.manual_seed(1)
    second = newer()
    assert first.vendor_count == 8 and second.vendor_count is None
    for a, b in zip(*(nn.Model(m).state_dict().values() for m in (first, second)), strict=True):
        same_bits(a, b)
    assert mp.Spec(nn.Model(first)).vendor_count == 8
    assert mp.Spec(nn.Model(first), vendor_count=8).vendor_count == 8


def test_vendor_count_of_nested_layers():
    class Holder:
        def __init__(self):
            self.inner = nn.Linear(6, 2, 2)

        def __call__(self, x):
            return self.inner(x)

    assert mp.Spec(nn.Model(nn.relu, nn.Model(Holder()))).vendor_count == 6


def test_vendor_count_in_conflict():
    with refusal(ValueError, "8", "4"):
        mp.Spec(nn.Model(nn.Linear(8, 2, 2)), vendor_count=4)


def test_a_bare_layer_as_model_is_wrapped():
    spec = mp.Spec(nn.Linear(5, 2, 2))
    assert spec.vendor_count == 5 and isinstance(spec.model, nn.Model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 4),
        lambda: nn.Conv2d(1, 2, 3, 4, 5),
        lambda: nn.Conv2d(3, 4, 3, strides=2),
        lambda: nn.Conv2d(3, 4, 3, in_channels=3, vendor_count=2),
        lambda: nn.Conv2d(3, 4, "3"),
        lambda: nn.Conv2d(3, 4.0, 3),
        lambda: nn.Linear(3),
        lambda: nn.InstanceNorm(3, 1e-5),
        lambda: nn.BatchNorm(),
    ],
)
def test_sizes_that_make_no_layer(make):
    with refusal(TypeError):
        make()


# -- first values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, fan_in",
    [(lambda: nn.Conv2d(4, 64, (5, 3), groups=2), 30), (lambda: nn.Linear(30, 200), 30)],
)
def test_first_values_are_uniform(layer, fan_in):
    mp.random.manual_seed(7)
    made = layer()
    bound = 1 / np.sqrt(fan_in)
    for values in (made.weight, made.bias):
        assert values.dtype == np.float32 and np.abs(values).max() <= bound
    flat = made.weight.ravel()
    # five standard errors of the mean, and of the variance, of a uniform sample
    assert abs(flat.mean()) < 5 * bound / np.sqrt(3 * flat.size)
    assert abs(flat.var() / (bound**2 / 3) - 1) < 5 * np.sqrt(0.8 / flat.size)
    mp.random.manual_seed(7)
    same_bits(layer().weight, made.weight)


def test_first_values_of_norms():
    norm = nn.BatchNorm(3)
    for name, value in [("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)]:
        same_bits(getattr(norm, name), np.full(3, value, np.float32))
    same_bits(norm.num_batches_tracked, np.array(0, np.int64))


# -- state and ownership ---------------------------------------------------------------------------


def test_state_dict_gives_copies():
    model = nn.Model(nn.Linear(2, 2))
    model.state_dict()["layers.0.weight"][:] = 9
    assert (model.state_dict()["layers.0.weight"] != 9).all()


def test_state_dict_there_and_back():
    one, two = (nn.Model(nn.Conv2d(3, 2, 3), nn.BatchNorm(2)) for _ in range(2))
    state = one.state_dict()
    state["layers.1.num_batches_tracked"] = np.array(41)
    two.load_state_dict(state)
    assert two.layers[1].num_batches_tracked == 41
    for key, value in two.state_dict().items():
        same_bits(value, np.asarray(state[key], dtype=value.dtype))
    same_bits(two(X), one(X))


def test_attributes_are_live():
    layer = nn.Linear(2, 3)
    spec = mp.Spec(nn.Model(layer), 3)
    opt = mp.Optimizer([spec], 0.5, seed=3)
    before = layer.weight
    opt.train_step(X[:, 0, 0, :2].copy(), np.array([0, 1, 2, 0]))
    same_bits(layer.weight, spec.model.state_dict()["layers.0.weight"])
    assert not np.array_equal(layer.weight, before)


def test_attributes_can_be_set():
    layer = nn.Linear(2, 2)
    layer.bias = [1, 2]
    model = nn.Model(layer)
    layer.weight = np.zeros((2, 2))
    same_bits(model(X[:1, 0, 0, :2].copy()), np.float32([[1, 2]]))
    with refusal(ValueError, "Linear", "weight of shape (2, 2)", "(3,)"):
        layer.weight = np.zeros(3)
    with refusal(ValueError, "Linear", "bias"):
        nn.Linear(2, 2, bias=False).bias = np.zeros(2)


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "num_batches_tracked"])
def test_writing_into_an_attribute_is_refused(owned, name):
    layer = nn.BatchNorm(3)
    model = nn.Model(layer) if owned else None
    with pytest.raises(ValueError, match="read-only"):
        getattr(layer, name)[...] = 9
    with pytest.raises(ValueError, match="read-only"):
        getattr(layer, name).reshape(-1)[0] = 9
    if model is not None:
        assert all(array.flags.writeable for array in model.state_dict().values())


def test_a_model_inside_another_follows_it():
    inner = nn.Model(nn.Linear(2, 2))
    outer = nn.Model(inner, nn.relu)
    outer.load_state_dict({key: v * 0 + 2 for key, v in outer.state_dict().items()})
    same_bits(inner(np.ones((1, 2), np.float32)), np.float32([[6, 6]]))
    inner.load_state_dict({key: v * 0 + 1 for key, v in inner.state_dict().items()})
    same_bits(outer(np.ones((1, 2), np.float32)), np.float32([[3, 3]]))


def test_specs_must_not_share_weights():
    layer = nn.Linear(2, 2)
    with refusal(ValueError, "weights of their own"):
        mp.Optimizer([mp.Spec(nn.Model(layer), 2), mp.Spec(nn.Model(layer), 2)], 0.1)
    model = nn.Model(nn.Linear(2, 2))
    with refusal(ValueError, "weights of their own"):
        mp.straight_forward([mp.Spec(model, 2), mp.Spec(model, 2)], np.ones((1, 2), np.float32))


def test_layers_run_on_arrays():
    for layer in (
        nn.Conv2d(3, 4, 3, padding=1),
        nn.InstanceNorm(3),
        nn.BatchNorm(3),
        nn.LayerNorm(6),
    ):
        same_bits(layer(X), np.asarray(nn.Model(layer)(X)))


def test_model_facts():
    model = nn.Model(nn.Conv2d(1, 4, 3), nn.relu, nn.BatchNorm(4), nn.flatten)
    assert model.parameter_count == 4 * 9 + 4 + 8
    assert model.output_shape((1, 5, 6)) == (48,)
    assert repr(model) == "Model(Conv2d(1, 4, kernel_size=3), relu, BatchNorm(4), flatten)"
