"""The installed C library through ctypes, as thin as it goes."""

import contextlib
import ctypes as c
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PREFIX = Path(os.environ["MARKETPLACE_CAPI_PREFIX"])
LIBRARY = next(PREFIX.glob("lib*/libmarketplace.so"))
lib = c.CDLL(str(LIBRARY))
lib.mp_last_error.restype = c.c_char_p
lib.mp_version.restype = c.c_char_p

VALUE, TYPE, RUNTIME, MEMORY, FILE = 1, 2, 3, 4, 5
CODES = {"i": 0, "u": 1, "f": 2}
Pair = c.c_int64 * 2


class Tensor(c.Structure):
    _fields_ = [
        ("data", c.c_void_p), ("device_type", c.c_int32), ("device_id", c.c_int32),
        ("ndim", c.c_int32), ("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16),
        ("shape", c.POINTER(c.c_int64)), ("strides", c.POINTER(c.c_int64)),
        ("byte_offset", c.c_uint64),
    ]  # fmt: skip


class Options(c.Structure):
    """A struct that begins with its size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(c.sizeof(type(self)), **fields)


class Conv2d(Options):
    _fields_ = [
        ("size", c.c_size_t), ("key", c.c_char_p), ("in_channels", c.c_int64),
        ("out_channels", c.c_int64), ("kernel", Pair), ("stride", Pair), ("padding", Pair),
        ("dilation", Pair), ("groups", c.c_int64), ("no_bias", c.c_int32), ("reserved", c.c_int32),
    ]  # fmt: skip


class Linear(Options):
    _fields_ = [
        ("size", c.c_size_t), ("key", c.c_char_p), ("in_features", c.c_int64),
        ("out_features", c.c_int64), ("no_bias", c.c_int32), ("reserved", c.c_int32),
    ]  # fmt: skip


class Norm(Options):
    _fields_ = [
        ("size", c.c_size_t), ("key", c.c_char_p), ("eps", c.c_double), ("momentum", c.c_double),
        ("no_affine", c.c_int32), ("reserved", c.c_int32),
    ]  # fmt: skip


class Pool2d(Options):
    _fields_ = [
        ("size", c.c_size_t), ("kernel", Pair), ("stride", Pair), ("padding", Pair),
        ("dilation", Pair), ("exclude_pad", c.c_int32), ("reserved", c.c_int32),
    ]  # fmt: skip


class DeviceOptions(Options):
    _fields_ = [
        ("size", c.c_size_t), ("device", c.c_char_p), ("dtype", c.c_char_p),
        ("max_memory_bytes", c.c_int64), ("threads", c.c_int32), ("reserved", c.c_int32),
    ]  # fmt: skip


class Device(Options):
    _fields_ = [
        ("size", c.c_size_t), ("name", c.c_char * 64), ("kind", c.c_char * 16),
        ("description", c.c_char * 160), ("threads", c.c_int32), ("reserved", c.c_int32),
    ]  # fmt: skip


class Parameter(Options):
    _fields_ = [
        ("size", c.c_size_t), ("key", c.c_char_p), ("shape", c.POINTER(c.c_int64)),
        ("count", c.c_int64), ("ndim", c.c_int32), ("is_buffer", c.c_int32),
    ]  # fmt: skip


class OptimizerOptions(Options):
    _fields_ = [
        ("size", c.c_size_t), ("seed", c.c_uint64), ("plan", c.c_int32), ("update", c.c_int32),
        ("shaping", c.c_int32), ("unit_vector_mode", c.c_int32), ("learning_rate", c.c_float),
        ("probe_scale", c.c_float), ("momentum", c.c_float), ("antithetic", c.c_int32),
        ("control_variate", c.c_int32), ("use_ignore_index", c.c_int32),
        ("ignore_index", c.c_int32), ("meta_learning_rate", c.c_float),
        ("seeds", c.POINTER(c.c_uint64)), ("seed_count", c.c_int64),
    ]  # fmt: skip


class Refused(Exception):
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(lib.mp_last_error().decode())


def call(name: str, *arguments: Any) -> None:
    status = getattr(lib, "mp_" + name)(*arguments)
    if status != 0:
        raise Refused(status)


@contextlib.contextmanager
def refused(status: int, text: str) -> Iterator[None]:
    """Expect a call to fail with this status and a text like this."""
    with pytest.raises(Refused, match=text) as failure:
        yield
    assert failure.value.status == status


def int64s(*values: int) -> Any:
    return (c.c_int64 * len(values))(*values)


def tensor(array: np.ndarray[Any, Any], **changes: Any) -> Tensor:
    """Describe an array; the tensor keeps it alive."""
    made = Tensor(
        array.ctypes.data, 1, 0, array.ndim, CODES[array.dtype.kind], array.dtype.itemsize * 8, 1,
        int64s(*array.shape), None, 0,
    )  # fmt: skip
    for field, value in changes.items():
        setattr(made, field, value)
    made.keep = array
    return made


class CMarket:
    """A market through the C ABI. Layers: ``market.add("linear", byref(Linear(...)))``."""

    def __init__(self) -> None:
        self.handle = c.c_void_p()
        call("market_create", c.byref(self.handle))

    def __del__(self) -> None:
        lib.mp_market_free(self.handle)

    def spec(self, vendors: int, sampling: int = 0) -> None:
        call("add_spec", self.handle, c.c_int64(vendors), c.c_int64(sampling))
        self.last = 0

    def add(self, layer: str, *arguments: Any, x: int | None = None) -> int:
        value = c.c_int32(self.last if x is None else x)
        call(layer, self.handle, value, *arguments, c.byref(value))
        self.last = value.value
        return self.last

    def finish(self, **options: Any) -> None:
        call("market_finish", self.handle, c.byref(DeviceOptions(**options)))

    def initialize(self, seed: int) -> None:
        call("market_initialize", self.handle, c.c_uint64(seed))

    def keys(self, spec: int) -> dict[str, tuple[int, ...]]:
        count = c.c_int64()
        call("parameter_count", self.handle, c.c_int64(spec), c.byref(count))
        found = {}
        for index in range(count.value):
            one = Parameter()
            call("get_parameter", self.handle, c.c_int64(spec), c.c_int64(index), c.byref(one))
            found[one.key.decode()] = tuple(one.shape[: one.ndim])
        return found

    def get(self, spec: int, key: str) -> np.ndarray[Any, Any]:
        values = np.empty(self.keys(spec)[key], np.float32)
        pointer, count = c.c_void_p(values.ctypes.data), c.c_int64(values.size)
        call("get_weights", self.handle, c.c_int64(spec), key.encode(), pointer, count)
        return values

    def set(self, spec: int, key: str, values: Tensor) -> None:
        call("set_weights", self.handle, c.c_int64(spec), key.encode(), c.byref(values))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        out, ndim = int64s(*[0] * 16), c.c_int32(16)
        call("output_shape", self.handle, int64s(*shape), c.c_int32(len(shape)), out, c.byref(ndim))
        return tuple(out[: ndim.value])

    def infer(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        out = np.empty((len(x), *self.output_shape(x.shape[1:])), np.float32)
        where = c.c_void_p(out.ctypes.data), c.c_int64(out.size)
        call("infer", self.handle, c.byref(tensor(x)), *where)
        return out

    def save(self, path: os.PathLike[str], step: int) -> None:
        call("market_save", self.handle, os.fsencode(path), c.c_int64(step))

    def load(self, path: os.PathLike[str]) -> int:
        step = c.c_int64(-1)
        call("market_load", self.handle, os.fsencode(path), c.byref(step))
        return step.value


class COptimizer:
    """An optimizer through the C ABI."""

    def __init__(self, market: CMarket, depth: int, **options: Any) -> None:
        self.handle, self.depth = c.c_void_p(), depth
        made = OptimizerOptions(**options)
        call("optimizer_create", market.handle, c.byref(made), c.byref(self.handle))

    def __del__(self) -> None:
        lib.mp_optimizer_free(self.handle)

    def path_count(self, batch: int) -> int:
        count = c.c_int64()
        call("path_count", self.handle, c.c_int64(batch), c.byref(count))
        return count.value

    def probe(
        self, x: Tensor, y: Tensor, name: str = "probe"
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return self._probed(
            x, lambda *where: call(name, self.handle, c.byref(x), c.byref(y), *where)
        )

    def train_step(
        self, x: Tensor, y: Tensor, rate: float
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], bool]:
        equal = c.c_int32(-1)

        def run(*where: Any) -> None:
            given = c.byref(x), c.byref(y), c.c_float(rate)
            call("train_step", self.handle, *given, *where, c.byref(equal))

        return *self._probed(x, run), bool(equal.value)

    def _probed(
        self, x: Tensor, run: Callable[..., None]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        count = c.c_int64(self.path_count(x.shape[0]))
        loss = np.empty(count.value, np.float32)
        paths = np.empty((count.value, self.depth), np.int32)
        run(c.c_void_p(loss.ctypes.data), c.c_void_p(paths.ctypes.data), c.byref(count))
        return loss[: count.value], paths[: count.value]

    def accumulate(self, x: Tensor, y: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return self.probe(x, y, "accumulate")

    def step(self, loss: Any, paths: Any, rate: float) -> bool:
        return bool(self._update("step", loss, paths, rate, c.c_int32(-1)))

    def add_replica(self, loss: Any, paths: Any, rate: float) -> bool:
        return bool(self._update("add_replica", loss, paths, rate, c.c_int32(-1)))

    def keep_best(self, loss: Any, paths: Any, rate: float) -> int:
        return int(self._update("keep_best", loss, paths, rate, c.c_int64(-1)))

    def _update(self, name: str, loss: Any, paths: Any, rate: float, told: Any) -> Any:
        loss, paths = np.ascontiguousarray(loss), np.ascontiguousarray(paths)
        given = c.c_void_p(loss.ctypes.data), c.c_void_p(paths.ctypes.data), c.c_int64(len(loss))
        call(name, self.handle, *given, c.c_float(rate), c.byref(told))
        return told.value

    def drop_replicas(self) -> None:
        call("drop_replicas", self.handle)

    def set_rate(self, name: str, value: float) -> None:
        call(f"set_{name}", self.handle, c.c_float(value))

    def learning_rates(self) -> np.ndarray[Any, Any]:
        rates = np.empty(self.depth, np.float32)
        call(
            "get_learning_rates", self.handle, c.c_void_p(rates.ctypes.data), c.c_int64(self.depth)
        )
        return rates

    def save(self, path: os.PathLike[str], step: int) -> None:
        call("optimizer_save", self.handle, os.fsencode(path), c.c_int64(step))

    def load(self, path: os.PathLike[str]) -> int:
        step = c.c_int64(-1)
        call("optimizer_load", self.handle, os.fsencode(path), c.byref(step))
        return step.value
