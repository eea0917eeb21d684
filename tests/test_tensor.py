"""``Tensor`` is a NumPy array, and understands the spellings that the reference's code uses."""

import math
from collections import Counter

import marketplace as mp
import numpy as np
import pytest
from marketplace import Tensor, TinyJit, nn
from markets import same_bits
from refusals import refusal

X = np.random.default_rng(3).normal(size=(2, 3, 6, 6)).astype(np.float32)


def is_tensor(value, shape=(), dtype=np.float32):
    return type(value) is Tensor and value.shape == shape and value.dtype == dtype


# -- an array --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, dtype",
    [
        (0.1, np.float32),
        ([1.0, 2.5], np.float32),
        (3, np.int32),
        ([[1, 2]], np.int32),
        (2**40, np.int64),
        (True, np.bool_),
        (np.float64(0.1), np.float64),
        (np.zeros(2, np.uint8), np.uint8),
    ],
)
def test_dtype_of_what_it_is_made_of(data, dtype):
    tensor = Tensor(data)
    assert isinstance(tensor, np.ndarray) and tensor.dtype == dtype
    assert np.array_equal(tensor, np.asarray(data, dtype=dtype))


def test_dtype_can_be_named():
    same_bits(Tensor([1, 2], dtype=np.float16), np.array([1, 2], np.float16))


def test_it_copies_its_data():
    source = np.zeros(3, np.float32)
    Tensor(source)[1] = 5
    assert not source.any()


def test_numpy_gives_a_plain_copy():
    tensor = Tensor([1.0, 2.0])
    plain = tensor.numpy()
    plain[0] = 9
    assert type(plain) is np.ndarray and tensor[0] == 1


@pytest.mark.parametrize(
    "compute",
    [
        lambda t: t.sum(),
        lambda t: t.mean(),
        lambda t: t.max(),
        lambda t: (t == t).sum() / 7 * 100,
        lambda t: t[0, 0, 0, 0],
        lambda t: t.flatten()[3],
        lambda t: t.argmax(),
        lambda t: -t[0, 1, 2, 3],
        lambda t: t.flatten()[:1].squeeze(0),
    ],
)
def test_scalars_stay_tensors(compute):
    scalar = compute(Tensor(X))
    assert type(scalar) is Tensor and scalar.shape == ()
    assert scalar.realize() is scalar
    assert scalar.item() == compute(X.copy().view(np.ndarray)).item()


def test_iteration_gives_tensors():
    assert all(is_tensor(row, (3, 6, 6)) for row in Tensor(X))
    assert all(is_tensor(number) for number in Tensor([1.0, 2.0]))


def test_indexing_with_a_scalar_tensor():
    tensor = Tensor(X)
    same_bits(tensor[Tensor(1)], X[1])
    same_bits(tensor[Tensor([1, 0, 1])], X[[1, 0, 1]])


# -- numbers ---------------------------------------------------------------------------------------

MEAN = Tensor([92.5, 93.125]).mean()  # 92.8125
LABELS = Tensor([3, 1, 3, 0])


def test_a_scalar_rounds():
    assert round(MEAN, 1) == np.float32(92.8) and type(round(MEAN, 1)) is np.float32
    assert round(MEAN) == 93 and type(round(MEAN)) is int
    assert round(LABELS[0], -1) == 0
    assert (math.floor(MEAN), math.ceil(MEAN), int(MEAN), float(MEAN)) == (92, 93, 92, 92.8125)


def test_a_scalar_is_formatted():
    assert f"{MEAN:.2f} {MEAN:>7.1f} {LABELS[0]:03d} {MEAN}" == "92.81    92.8 003 92.8125"
    assert "%d of %.1f" % (LABELS[0], MEAN) == "3 of 92.8"  # noqa: UP031


def test_a_scalar_is_a_key():
    assert set(LABELS) == {0, 1, 3} and len(set(LABELS)) == 3
    assert Counter(LABELS) == {3: 2, 1: 1, 0: 1}
    names = {0: "zero", 1: "one", 3: "three"}
    assert [names[label] for label in LABELS] == ["three", "one", "three", "zero"]
    assert {LABELS[0]: "x"}[3] == "x" and hash(MEAN) == hash(92.8125)
    assert hash(Tensor(True)) == hash(True) and Tensor(0.1) in {np.float32(0.1)}


def test_a_scalar_is_an_index():
    assert ["a", "b", "c", "d"][LABELS[0]] == "d" and list(range(LABELS[0])) == [0, 1, 2]
    with pytest.raises(TypeError):
        ["a", "b"][MEAN]


@pytest.mark.parametrize("name, call", [("hash", hash), ("round", round), ("hash", set)])
def test_an_array_is_no_number(name, call):
    with refusal(TypeError, name, "a tensor of shape ()", "(2, 2)"):
        call(Tensor([[[1, 2], [3, 4]]] if call is set else [[1, 2], [3, 4]]))


# -- NumPy's spellings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compute",
    [
        lambda a: a.argmax(axis=1, keepdims=True),
        lambda a: a.argmax(keepdims=True),
        lambda a: a.argmax(1, out=np.empty((2, 6, 6), np.intp)),
        lambda a: np.argmax(a, axis=2, keepdims=True),
        lambda a: a.flatten(order="C"),
        lambda a: a.flatten(order="F"),
        lambda a: a.flatten("A"),
        lambda a: a.sum(axis=(1, 2), keepdims=True, dtype=np.float64),
        lambda a: a.mean(axis=0, keepdims=True, where=a == a),
        lambda a: a.max(axis=1, initial=0, keepdims=True),
        lambda a: a.argmin(axis=1, keepdims=True),
        lambda a: a.squeeze(axis=()),
        lambda a: a[:1].squeeze(axis=0),
        lambda a: a.astype(np.float16, copy=False),
        lambda a: a.reshape(2, -1, order="F"),
    ],
)
def test_methods_take_numpys_keywords(compute):
    same_bits(compute(Tensor(X)), compute(X))


def test_overridden_methods_are_the_ones_that_are_tested():
    shared = {name for name in vars(Tensor) if hasattr(np.ndarray, name) and name[0] != "_"}
    assert shared == {"argmax", "flatten"}


def test_out_is_what_is_given_back():
    out = np.empty((2, 6, 6), np.intp)
    assert Tensor(X).argmax(axis=1, out=out) is out


@pytest.mark.parametrize("dims", [(), (1,), (3,)])
def test_flatten_copies(dims):
    tensor = Tensor(X)
    tensor.flatten(*dims)[...] = 0
    same_bits(tensor, X)


def test_flatten_of_some_axes_has_one_order():
    with refusal(ValueError, "flatten", "order 'C'", "'F' for axes 1 to -1"):
        Tensor(X).flatten(1, order="F")


def test_results_of_a_market_serve_as_numbers():
    market = [mp.Spec(nn.Model(nn.Linear(4, 3)), 3)]
    logits = mp.straight_forward(market, X[:, 0, 0, :4])
    labels = logits.argmax(axis=1)
    assert Counter(labels).total() == 2 and set(labels) <= {0, 1, 2}
    assert round((labels == labels).mean() * 100, 1) == 100
    assert logits.argmax(axis=1, keepdims=True).shape == (2, 1)


# -- assignment ------------------------------------------------------------------------------------


def test_assign_is_in_place():
    rate = Tensor(1e-1).contiguous().realize()
    alias = rate
    assert rate.assign(rate * (1 - 0.5)) is rate
    assert alias.item() == np.float32(0.1) * np.float32(0.5) and alias.dtype == np.float32


def test_assign_refuses_another_shape():
    tensor = Tensor([1.0, 2.0])
    with refusal(ValueError, "assign", "(2,)", "(3,)"):
        tensor.assign([1.0, 2.0, 3.0])
    same_bits(tensor, np.float32([1, 2]))


def test_assign_refuses_another_kind():
    tensor = Tensor([1, 2])
    with pytest.raises(TypeError):
        tensor.assign([1.5, 2.5])
    same_bits(tensor, np.int32([1, 2]))


def test_learning_rate_is_a_live_link():
    market = [mp.Spec(nn.Model(nn.Linear(4, 3)), 3)]
    rate = Tensor(0.5)
    opt = mp.Optimizer(market, rate, seed=1)
    x, y = X[:, 0, 0, :4].copy(), np.array([0, 2])
    before = market[0].model.state_dict()
    rate.assign(0.0 * rate)
    opt.step(*opt.probe(x, y))
    for key, value in market[0].model.state_dict().items():
        same_bits(value, before[key])


# -- making ----------------------------------------------------------------------------------------


def test_randint_is_within_and_repeatable():
    Tensor.manual_seed(5)
    first = Tensor.randint(1000, high=7)
    assert is_tensor(first, (1000,), np.int32) and set(first.tolist()) == set(range(7))
    second = Tensor.randint(2, 3, low=-4, high=-2, dtype=np.int64)
    assert is_tensor(second, (2, 3), np.int64) and set(second.flatten().tolist()) <= {-4, -3}
    Tensor.manual_seed(5)
    same_bits(Tensor.randint(1000, high=7), first)


def test_randint_reaches_every_index_of_a_large_range():
    Tensor.manual_seed(1)
    wide = Tensor.randint(4000, high=2**40, dtype=np.int64)
    assert (wide % 2 == 1).any() and wide.max() > 2**39 and wide.min() >= 0


@pytest.mark.parametrize(
    "low, high, dtype", [(3, 3, np.int32), (0, 2**40, np.int32), (0, 300, np.uint8)]
)
def test_randint_refuses_what_does_not_fit(low, high, dtype):
    with refusal(ValueError, "randint"):
        Tensor.randint(3, low=low, high=high, dtype=dtype)


def test_zeros_ones_arange():
    same_bits(Tensor.zeros(2, 3), np.zeros((2, 3), np.float32))
    same_bits(Tensor.ones((2,), dtype=np.int32), np.ones(2, np.int32))
    same_bits(Tensor.arange(3), np.arange(3, dtype=np.int32))
    same_bits(Tensor.arange(1, 2, 0.5), np.float32([1, 1.5]))


def test_stack_and_cat():
    a, b = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    same_bits(Tensor.stack(a, b, dim=0), np.float32([[1, 2], [3, 4]]))
    same_bits(Tensor.stack(*(row.sum() for row in (a, b))), np.float32([3, 7]))
    same_bits(Tensor.cat(a, b), np.float32([1, 2, 3, 4]))
    same_bits(a.unsqueeze(0).cat(b.unsqueeze(0), dim=1), np.float32([[1, 2, 3, 4]]))


# -- functions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "gelu", "sigmoid", "tanh", "max_pool2d", "avg_pool2d"])
def test_functions_are_those_of_the_package(name):
    result = getattr(Tensor(X), name)()
    assert type(result) is Tensor
    same_bits(result, getattr(mp.functional, name)(X))


@pytest.mark.parametrize("dims, shape", [((), (216,)), ((1,), (2, 108)), ((1, 2), (2, 18, 6))])
def test_flatten(dims, shape):
    same_bits(Tensor(X).flatten(*dims), X.reshape(shape))


def test_argmax_and_topk():
    tensor = Tensor([[1.0, 5.0, 5.0], [7.0, 2.0, 3.0]])
    assert tensor.argmax(axis=1).tolist() == [1, 0]
    assert tensor.argmax(axis=0, keepdim=True).tolist() == [[1, 0, 0]]
    values, indices = Tensor([3.0, 1.0, 2.0]).topk(2, largest=False)
    assert is_tensor(values, (2,)) and values.tolist() == [1, 2] and indices.tolist() == [1, 2]


def test_crossentropy():
    logits, y = Tensor(X[:, :, 0, 0]), np.array([2, 0])
    loss = logits.sparse_categorical_crossentropy(y)
    assert is_tensor(loss)
    same_bits(loss, mp.functional.cross_entropy(logits, y))
    each = logits.sparse_categorical_crossentropy(y, reduction="none")
    same_bits(each, mp.functional.cross_entropy(logits, y, reduction="none"))
    only = logits.sparse_categorical_crossentropy(y, ignore_index=0)
    same_bits(only, each[0])


def test_crossentropy_does_not_ignore_minus_one_by_default():
    with refusal(ValueError, "labels from 0 to 2", "-1"):
        Tensor(X[:, :, 0, 0]).sparse_categorical_crossentropy([-1, 0])


def test_methods_trace_as_layers():
    spelled = nn.Model(Tensor.relu, Tensor.max_pool2d, Tensor.tanh, lambda x: x.flatten(1))
    plain = nn.Model(nn.relu, nn.max_pool2d, nn.tanh, nn.flatten)
    same_bits(spelled(X), plain(X))


def test_tinyjit_gives_the_function_back():
    def function():
        return 3

    assert TinyJit(function) is function


# -- arrays of other libraries ---------------------------------------------------------------------


class Lent:
    """An array that shows itself by DLPack alone."""

    def __init__(self, array, device=None):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


class OnGpu:
    __cuda_array_interface__ = {"shape": (2,), "typestr": "<f4", "data": (0, True), "version": 3}


def test_dlpack_arrays_of_the_host_are_taken():
    same_bits(mp.functional.relu(Lent(X)), np.maximum(X, 0))
    market = [mp.Spec(nn.Conv2d(3, 2, 3), 2)]
    same_bits(mp.straight_forward(market, Lent(X)), mp.straight_forward(market, X))


@pytest.mark.parametrize("array", [Lent(X, (2, 0)), OnGpu()])
def test_arrays_of_a_device_are_refused(array):
    with refusal(TypeError, "relu", "x in host memory"):
        mp.functional.relu(array)
