"""Everything wrong is a status with a text that names op, expected and received."""

import ctypes as c
from typing import Any

import marketplace
import numpy as np
import pairs
import pytest
from clibrary import (
    RUNTIME,
    TYPE,
    VALUE,
    CMarket,
    Conv2d,
    COptimizer,
    Device,
    DeviceOptions,
    Linear,
    Norm,
    OptimizerOptions,
    Pair,
    Pool2d,
    call,
    int64s,
    lib,
    refused,
    tensor,
)


@pytest.fixture
def building() -> CMarket:
    market = CMarket()
    market.spec(2)
    return market


def test_version_and_devices() -> None:
    assert lib.mp_version().decode() == marketplace.__version__
    assert lib.mp_abi_version() == 1
    count = c.c_int32()
    call("device_count", c.byref(count))
    expected = marketplace.devices()
    assert count.value == len(expected)
    device = Device()
    call("get_device", 0, c.byref(device))
    assert device.name.decode() == expected[0]["name"] == "cpu"
    assert device.description.decode() == expected[0]["description"]
    assert device.threads == expected[0]["threads"]
    with refused(VALUE, "get_device: expected a device index"):
        call("get_device", -1, c.byref(device))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Conv2d(in_channels=0, out_channels=1, kernel=Pair(1, 1)), "in_channels from 1"),
        (Conv2d(in_channels=1, out_channels=2**40, kernel=Pair(1, 1)), "out_channels from 1"),
        (Conv2d(in_channels=1, out_channels=1), "kernel from 1"),
        (Conv2d(in_channels=1, out_channels=1, kernel=Pair(2**31 - 1, 2**31 - 1)), "2\\^36"),
        (Conv2d(in_channels=3, out_channels=4, kernel=Pair(1, 1), groups=2), "groups that divide"),
        (Conv2d(in_channels=4, out_channels=3, kernel=Pair(1, 1), groups=2), "groups that divide"),
        (Conv2d(in_channels=1, out_channels=1, kernel=Pair(1, 1), stride=Pair(-1, 1)), "stride"),
        (Conv2d(in_channels=1, out_channels=1, kernel=Pair(1, 1), key=b"a b"), "a key of 1 to"),
        (Conv2d(in_channels=1, out_channels=1, kernel=Pair(1, 1), reserved=1), "zero in reserved"),
        (None, "conv2d: expected options, received NULL"),
    ],
)
def test_bad_convolutions(building: CMarket, options: Any, text: str) -> None:
    with refused(VALUE, text):
        building.add("conv2d", None if options is None else c.byref(options))
    assert pairs.linear(building, 2, 3) == 1  # nothing was added


@pytest.mark.parametrize(
    ("layer", "arguments", "text"),
    [
        ("linear", [c.byref(Linear(in_features=-1, out_features=1))], "in_features"),
        ("activation", [c.c_int32(5)], "a kind from"),
        ("instance_norm", [c.c_int64(0), None], "channels from 1"),
        ("batch_norm", [c.c_int64(1), c.byref(Norm(momentum=1.5))], "momentum above 0"),
        ("layer_norm", [int64s(3), c.c_int32(0), None], "dimensions from 1"),
        ("layer_norm", [None, c.c_int32(1), None], "a shape, received NULL"),
        ("layer_norm", [int64s(3), c.c_int32(1), c.byref(Norm(eps=float("nan")))], "finite eps"),
        ("max_pool2d", [c.byref(Pool2d(padding=Pair(2, 2)))], "padding of at most half"),
        ("reshape", [int64s(-2, -3), c.c_int32(2)], "an extent from 1"),
        ("mean", [int64s(99), c.c_int32(1), c.c_int32(0)], "an axis from"),
        ("add", [c.c_int32(7)], "a value from 0 to 0, received 7"),
        ("multiply", [c.c_int32(-1)], "a value from 0 to 0, received -1"),
        ("affine", [c.c_double(float("inf")), c.c_double(0)], "finite scale"),
    ],
)
def test_bad_layers(building: CMarket, layer: str, arguments: list[Any], text: str) -> None:
    with refused(VALUE, f"{layer}: .*{text}"):
        building.add(layer, *arguments)


def test_structs_may_grow(building: CMarket) -> None:
    class Newer(Linear):
        _fields_ = [("more", c.c_int64)]

    newer = Newer(in_features=2, out_features=3)
    assert building.add("linear", c.byref(newer)) == 1
    newer.more = 1
    with refused(VALUE, "options that this version of the library knows"):
        building.add("linear", c.byref(newer))
    older = Linear(in_features=3, out_features=3, no_bias=1)
    older.size = Linear.no_bias.offset  # no_bias is not known yet
    building.add("linear", c.byref(older))
    older.size = 0
    with refused(VALUE, "a struct whose size is set, received 0"):
        building.add("linear", c.byref(older))
    building.finish()
    assert "layers.1.bias" in building.keys(0)


def test_the_order_of_calls(building: CMarket, digits: CMarket) -> None:
    with refused(RUNTIME, "linear: expected mp_add_spec before it"):
        pairs.linear(CMarketWithoutSpec(), 1, 1)
    with refused(VALUE, "at least one layer in spec 0"):
        building.finish()
    with refused(VALUE, "market: expected at least one spec"):
        CMarket().finish()
    with refused(RUNTIME, "after mp_market_finish, received one being built"):
        building.initialize(1)
    with refused(RUNTIME, "before mp_market_finish, received a finished one"):
        pairs.linear(digits, 1, 1)
    with refused(RUNTIME, "a market being built, received a finished one"):
        digits.finish()


class CMarketWithoutSpec(CMarket):
    last = 0


def test_same_key_twice(building: CMarket) -> None:
    pairs.linear(building, 2, 3, key=b"a")
    with refused(VALUE, "a key of its own"):
        pairs.linear(building, 3, 3, key=b"a")


@pytest.mark.parametrize("count", [0, -5, 2**20 + 1, 2**62])
def test_bad_vendor_counts(count: int) -> None:
    with refused(VALUE, "vendor_count from 1 to 1048576"):
        CMarket().spec(count)


def test_bad_devices(building: CMarket) -> None:
    pairs.linear(building, 2, 3)
    with refused(VALUE, "device: expected one of .*'cpu'"):
        building.finish(device=b"toaster")
    with refused(VALUE, "dtype: expected 'float32'"):
        building.finish(dtype=b"float8")
    with refused(VALUE, "threads: expected 0"):
        building.finish(threads=-1)
    call("market_finish", building.handle, c.byref(DeviceOptions(threads=1)))


def test_results_that_are_too_large(building: CMarket) -> None:
    sizes = {"in_channels": 1, "out_channels": 1, "kernel": Pair(1, 1)}
    building.add("conv2d", c.byref(Conv2d(padding=Pair(2**30, 2**30), **sizes)))
    building.finish()
    with refused(VALUE, "a result of at most 2\\^31 elements"):
        building.infer(np.zeros((1, 1, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("status", "changes", "text"),
    [
        (TYPE, {"device_type": 2}, "host memory, received one on DLPack device type 2"),
        (TYPE, {"lanes": 2}, "one lane"),
        (TYPE, {"code": 4}, "float32, received DLPack type code 4"),
        (TYPE, {"bits": 64}, "received float64"),
        (VALUE, {"data": None}, "a tensor with data"),
        (VALUE, {"ndim": 0}, "0 dimensions"),
        (VALUE, {"ndim": 17}, "dimensions from 0 to 16"),
        (VALUE, {"shape": None}, "a shape, received NULL"),
        (VALUE, {"shape": int64s(0, 1, 12, 12)}, "an extent from 1"),
        (VALUE, {"shape": int64s(2**30, 2**30, 2**30, 2**30)}, "2\\^36"),
        (VALUE, {"shape": int64s(2, 1, 12, 11)}, "100"),
        (VALUE, {"strides": int64s(144, 144, 1, 12)}, "C-contiguous tensor, received stride 1"),
        (VALUE, {"byte_offset": 2}, "aligned to 4 bytes"),
    ],
)
def test_bad_tensors(digits: CMarket, status: int, changes: dict[str, Any], text: str) -> None:
    x = tensor(np.zeros((2, 1, 12, 12), np.float32), **changes)
    out = np.empty(10, np.float32)
    with refused(status, text):
        call("infer", digits.handle, c.byref(x), c.c_void_p(out.ctypes.data), c.c_int64(10))


def test_contiguous_strides_and_offsets_are_taken(digits: CMarket) -> None:
    data = np.random.default_rng(0).normal(size=(3, 1, 12, 12)).astype(np.float32)
    x = tensor(data, strides=int64s(144, 7, 12, 1), shape=int64s(2, 1, 12, 12), byte_offset=576)
    out = np.empty((2, 5), np.float32)
    call("infer", digits.handle, c.byref(x), c.c_void_p(out.ctypes.data), c.c_int64(10))
    np.testing.assert_array_equal(out, digits.infer(data[1:]))


def test_a_real_dlpack_tensor_is_taken(digits: CMarket) -> None:
    x = np.random.default_rng(0).normal(size=(2, 1, 12, 12)).astype(np.float32)
    capsule = x.__dlpack__()
    pointer = c.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
    borrowed = c.c_void_p(pointer(capsule, b"dltensor"))  # DLManagedTensor begins with DLTensor
    out = np.empty((2, 5), np.float32)
    call("infer", digits.handle, borrowed, c.c_void_p(out.ctypes.data), c.c_int64(10))
    np.testing.assert_array_equal(out, digits.infer(x))


def test_buffers_are_measured(digits: CMarket) -> None:
    x = tensor(np.zeros((2, 1, 12, 12), np.float32))
    out = np.empty(11, np.float32)
    for count in (9, 11, 0, -10):
        with refused(VALUE, "infer: expected a buffer of 2 x 5 elements"):
            where = c.c_void_p(out.ctypes.data), c.c_int64(count)
            call("infer", digits.handle, c.byref(x), *where)
    with refused(
        VALUE, "get_weights: expected a buffer of 4 elements for layers.0.bias, received 5"
    ):
        where = c.c_void_p(out.ctypes.data), c.c_int64(5)
        call("get_weights", digits.handle, c.c_int64(0), b"layers.0.bias", *where)
    optimizer = COptimizer(digits, 3, learning_rate=0.1)
    y, count = tensor(np.zeros(2, np.int32)), c.c_int64(59)
    loss, paths = np.empty(60, np.float32), np.empty(180, np.int32)
    where = c.c_void_p(loss.ctypes.data), c.c_void_p(paths.ctypes.data), c.byref(count)
    with refused(VALUE, "probe: expected buffers for 60 paths, received 59"):
        call("probe", optimizer.handle, c.byref(x), c.byref(y), *where)
    with refused(VALUE, "room for extents from 1"):
        out_ndim = c.c_int32(0)
        shape = int64s(1, 12, 12)
        call("output_shape", digits.handle, shape, 3, shape, c.byref(out_ndim))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_labels_of_any_integer_dtype(digits: CMarket, dtype: str) -> None:
    x = tensor(np.random.default_rng(0).normal(size=(3, 1, 12, 12)).astype(np.float32))
    optimizer = COptimizer(digits, 3, learning_rate=0.1)
    expected, _ = optimizer.probe(x, tensor(np.array([0, 4, 2], np.int32)))
    loss, _ = optimizer.probe(x, tensor(np.array([0, 4, 2], dtype)))
    np.testing.assert_array_equal(loss, expected)


@pytest.mark.parametrize(
    ("status", "labels", "text"),
    [
        (TYPE, np.zeros(2, np.float32), "labels of an integer dtype, received float32"),
        (VALUE, np.zeros(3, np.int32), r"labels \(2,\), received \(3,\)"),
        (VALUE, np.array([0, 2**40]), "labels within int32, received 1099511627776 at sample 1"),
        (VALUE, np.array([0, 5]), "labels from 0 to 4, received 5 at sample 1"),
    ],
)
def test_bad_labels(digits: CMarket, status: int, labels: Any, text: str) -> None:
    optimizer = COptimizer(digits, 3, learning_rate=0.1)
    with refused(status, text):
        optimizer.probe(tensor(np.zeros((2, 1, 12, 12), np.float32)), tensor(labels))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"plan": 4}, "a plan from"),
        ({"update": -1}, "an update from"),
        ({"shaping": 3}, "a shaping from"),
        ({"unit_vector_mode": 3}, "a mode from"),
        ({"learning_rate": float("nan")}, "a finite learning_rate of at least 0"),
        ({"probe_scale": -1.0}, "a finite probe_scale"),
        ({"momentum": float("inf")}, "a finite momentum"),
        ({"plan": 2, "antithetic": 1}, "'tree' or 'star' with antithetic"),
        ({"control_variate": 1}, "'scatter' with control_variate"),
    ],
)
def test_bad_optimizers(digits: CMarket, options: dict[str, Any], text: str) -> None:
    with refused(VALUE, text):
        COptimizer(digits, 3, **options)


@pytest.mark.parametrize(
    ("loss", "path", "rate", "text"),
    [
        (float("nan"), 0, 0.1, "nan"),
        (1.0, 9, 0.1, "9"),
        (1.0, 0, float("inf"), "a finite learning_rate"),
        (1.0, 0, 3e38, "probe amplitude"),
    ],
)
def test_bad_steps_change_nothing(digits: CMarket, loss, path, rate, text) -> None:
    optimizer = COptimizer(digits, 3, plan=1, learning_rate=0.1, probe_scale=10.0)
    x, y = tensor(np.ones((2, 1, 12, 12), np.float32)), tensor(np.zeros(2, np.int32))
    losses, paths = optimizer.probe(x, y)
    before = digits.get(0, "layers.0.weight")
    bad_losses, bad_paths = losses.copy(), paths.copy()
    if loss != 1.0:
        bad_losses[3] = loss
    bad_paths[4, 2] = path if path else bad_paths[4, 2]
    with refused(VALUE, text):
        optimizer.step(bad_losses, bad_paths, rate)
    np.testing.assert_array_equal(digits.get(0, "layers.0.weight"), before)
    again, _ = optimizer.probe(x, y)
    np.testing.assert_array_equal(again, losses)


def test_topk() -> None:
    values = np.array([3, np.nan, -1, 3, 0], np.float32)
    best, order = np.empty(5, np.float32), np.empty(5, np.int64)
    given = c.c_void_p(values.ctypes.data), c.c_int64(5), c.c_int64(5), c.c_int32(1)
    call("topk", *given, c.c_void_p(best.ctypes.data), c.c_void_p(order.ctypes.data))
    assert order.tolist() == [0, 3, 4, 2, 1]
    np.testing.assert_array_equal(best, values[order])
    for k in (0, 6):
        with refused(VALUE, "topk: expected k from 1 to 5"):
            call("topk", given[0], given[1], c.c_int64(k), given[3], None, None)


def test_null_handles() -> None:
    call("market_free", None)
    call("optimizer_free", None)
    with refused(VALUE, "infer: expected a market, received NULL"):
        call("infer", None, None, None, c.c_int64(0))
    with refused(VALUE, "path_count: expected an optimizer, received NULL"):
        call("path_count", None, c.c_int64(1), None)
    with refused(VALUE, "market_create: expected an address"):
        call("market_create", None)
    with refused(VALUE, "optimizer_create: expected options, received NULL"):
        call("optimizer_create", None, None, c.byref(c.c_void_p()))
    with refused(VALUE, "optimizer_create: expected a market, received NULL"):
        options = OptimizerOptions()
        call("optimizer_create", None, c.byref(options), c.byref(c.c_void_p()))


def test_a_named_output_stays_the_output() -> None:
    """Whatever is added behind it."""
    market = CMarket()
    market.spec(2)
    named = pairs.linear(market, 3, 4)
    call("set_output", market.handle, c.c_int32(named))
    pairs.linear(market, 4, 2)
    market.spec(2)  # of another spec the last value is the result, as ever
    pairs.linear(market, 4, 5)
    pairs.activation(market, 0)
    market.finish()
    assert market.output_shape((3,)) == (5,)


def test_star_steps_from_paths_that_tell_nothing(building: CMarket) -> None:
    pairs.linear(building, 3, 2)
    building.spec(2)
    pairs.linear(building, 2, 2)
    building.finish()
    for shaping in range(3):
        options = {"plan": 1, "learning_rate": 0.1, "seed": 1, "shaping": shaping}
        optimizer = COptimizer(building, 2, **options)
        both = np.array([[1, 1]], np.int32)
        assert optimizer.step(np.array([1.5], np.float32), both, 0.1)
