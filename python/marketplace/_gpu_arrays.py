"""GPU arrays at the door: other libraries' memory and streams, borrowed without the host between.

An array comes by ``__dlpack__`` or ``__cuda_array_interface__``, a stream as its handle or as an
object that knows it. The engine's own stream of each device is what they are ordered with: it waits
for them before a call, and they wait for it behind one.
"""

import operator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arrays import I32, describe, labels_input, market_input, refusal
from .device_array import DeviceArray
from .tensor import Tensor

Samples: TypeAlias = NDArray[Any] | _core.DeviceTensor
Labels: TypeAlias = I32 | _core.DeviceTensor

_GPU_TYPES = {2: "cuda", 13: "cuda", 10: "hip"}  # DLPack: CUDA, CUDA managed, ROCm
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}  # DLPack's, by NumPy's kind


class Call:
    """One call: what it runs on, the stream it is ordered with, where its results are wanted.

    Parameters
    ----------
    op : str
        Its name, for errors.
    engine : Engine
        What runs it.
    stream : int or object, optional
        The caller's stream, on the engine's first device.
    out : {"numpy", "device"}
        Where results go.
    """

    def __init__(
        self, op: str, engine: _core.Engine, stream: Any = None, out: str = "numpy"
    ) -> None:
        self.op = op
        self.engine = engine
        self.exchange = engine.exchange
        if out not in ("numpy", "device"):
            raise refusal(ValueError, op, "out 'numpy' or 'device'", repr(out))
        if self.exchange is None and out == "device":
            raise refusal(ValueError, op, f"out 'numpy' with device '{engine.device}'", "'device'")
        self.on_device = out == "device"
        self._handle = None if stream is None else self._begin(stream)

    def _begin(self, stream: Any) -> int:
        handle = stream_handle(stream, self.op)
        if self.exchange is None:
            wanted = f"no stream with device '{self.engine.device}'"
            raise refusal(ValueError, self.op, wanted, describe(stream))
        self.exchange.wait_for(self.exchange.leader, handle)
        return handle

    @property
    def place(self) -> tuple[bool, bool]:
        """Whether results stay on the device, and whether the call waits for them."""
        return self.on_device, self._handle is None

    def samples(self, x: Any) -> Samples:
        """Give market data: at least one axis, contiguous, on a GPU uint8 or float32."""
        if isinstance(x, _core.DeviceTensor):
            return x  # borrowed by the call that this one is a part of
        if not is_gpu_array(x):
            return market_input(x, self.op)
        tensor = self._borrow(x, "x")
        if tensor.dtype not in ("uint8", "float32"):
            wanted = "x of dtype uint8 or float32 on a GPU"
            raise refusal(TypeError, self.op, wanted, tensor.dtype)
        if not tensor.shape:
            raise refusal(ValueError, self.op, "x of shape (B, ...)", tensor.shape)
        return tensor

    def numbers(self, x: Any) -> _core.DeviceTensor:
        """Give an array on a GPU as it is."""
        return self._borrow(x, "x")

    def labels(self, y: Any, batch: int, on_host: bool) -> Labels:
        """Give labels ``(B,)``; ``on_host``: where they are read by what runs on the host."""
        if isinstance(y, _core.DeviceTensor):
            return y
        if not is_gpu_array(y):
            return labels_input(y, self.op, batch)
        tensor = self._borrow(y, "y")
        if not tensor.dtype.startswith(("int", "uint")):
            raise refusal(TypeError, self.op, "y of an integer dtype", tensor.dtype)
        if tensor.shape != (batch,):
            raise refusal(ValueError, self.op, f"y of shape ({batch},)", tensor.shape)
        return labels_input(tensor.numpy(), self.op, batch) if on_host else tensor

    def batch(self, x: Any, y: Any, on_host: bool) -> tuple[Samples, Labels]:
        """Give samples and their labels; see ``samples`` and ``labels``."""
        samples = self.samples(x)
        return samples, self.labels(y, samples.shape[0], on_host)

    def finish(self, results: Samples) -> Tensor | DeviceArray:
        """Give results to the caller, who has them in the order of its stream."""
        if not isinstance(results, _core.DeviceTensor):
            return Tensor.wrap(results)
        if self._handle is not None and self.exchange is not None:
            self.exchange.go_before(self.exchange.leader, self._handle)
        return DeviceArray(results)

    # -- arrays of other libraries -----------------------------------------------------------------

    def _borrow(self, value: Any, name: str) -> _core.DeviceTensor:
        if self.exchange is None:
            wanted = f"{name} in host memory with device '{self.engine.device}'"
            raise refusal(TypeError, self.op, wanted, _whereabouts(value))
        if hasattr(value, "__dlpack_device__"):
            return self._from_dlpack(value, name, self.exchange)
        return self._from_interface(value, name, self.exchange)

    def _from_dlpack(self, value: Any, name: str, exchange: _core.Exchange) -> _core.DeviceTensor:
        kind, index = value.__dlpack_device__()
        if _GPU_TYPES[int(kind)] != exchange.kind:
            wanted = f"{name} on a {exchange.kind} device"
            raise refusal(TypeError, self.op, wanted, _whereabouts(value))
        stream = exchange.stream(int(index))
        try:
            capsule = value.__dlpack__(stream=stream, max_version=(1, 0))
        except TypeError:  # a producer from before version 1
            capsule = value.__dlpack__(stream=stream)
        return _core.DeviceTensor.from_capsule(exchange, capsule, self.op, name)

    def _from_interface(
        self, value: Any, name: str, exchange: _core.Exchange
    ) -> _core.DeviceTensor:
        described = value.__cuda_array_interface__
        shape = tuple(int(extent) for extent in described["shape"])
        dtype = np.dtype(described["typestr"])
        if dtype.kind not in _CODES or not dtype.isnative:
            wanted = f"{name} of numbers in native byte order"
            raise refusal(TypeError, self.op, wanted, f"typestr '{described['typestr']}'")
        if described.get("mask") is not None:
            raise refusal(ValueError, self.op, f"{name} without a mask", "a masked array")
        if not _is_row_major(shape, described.get("strides"), dtype.itemsize):
            raise refusal(ValueError, self.op, f"{name} as a C-contiguous array", "a strided one")
        address, code = int(described["data"][0]), _CODES[dtype.kind]
        tensor = _core.DeviceTensor.borrow(
            exchange, value, address, shape, code, 8 * dtype.itemsize, self.op, name
        )
        stream = described.get("stream")
        if stream == 0:
            raise refusal(ValueError, self.op, f"the stream of {name} as 1, 2 or a handle", stream)
        if stream is not None:
            exchange.wait_for(tensor.device, int(stream))
        return tensor


def cut(x: Samples, y: Labels, count: int, op: str) -> list[tuple[Samples, Labels]]:
    """Cut samples into minibatches of equal size, without a copy."""
    samples = x.shape[0]
    if count > 1 and (samples == 0 or samples % count):
        wanted = f"samples that {count} minibatches can share"
        raise refusal(ValueError, op, wanted, f"{samples} samples")
    size = samples // count
    ends = [(k * size, (k + 1) * size) for k in range(count)]
    return [(_rows(x, *pair), _rows(y, *pair)) for pair in ends]


def _rows(array: Any, first: int, last: int) -> Any:
    is_there = isinstance(array, _core.DeviceTensor)
    return array.rows(first, last) if is_there else array[first:last]


def with_leading_axis(array: Any) -> Any:
    """Give an array of shape ``(1, ...)``, without a copy."""
    return array.reshape((1, *array.shape))


def is_gpu_array(value: Any) -> bool:
    """Tell whether a value says that it lies in a GPU's memory."""
    if isinstance(value, np.ndarray):
        return False
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in _GPU_TYPES
    return hasattr(value, "__cuda_array_interface__")


def stream_handle(stream: Any, op: str) -> int:
    """Give the handle of a stream: an integer, or what knows one by a name in use."""
    found = stream
    if hasattr(stream, "__cuda_stream__"):
        version, found = stream.__cuda_stream__()
        if version != 0:
            raise refusal(ValueError, op, "version 0 of __cuda_stream__", version)
    else:
        for name in ("ptr", "cuda_stream"):
            found = getattr(stream, name, found)
    try:
        if isinstance(found, bool):
            raise TypeError
        handle = operator.index(found)
    except TypeError:
        wanted = "stream as an integer or with __cuda_stream__(), ptr or cuda_stream"
        raise refusal(TypeError, op, wanted, describe(stream)) from None
    if handle < 0:
        raise refusal(ValueError, op, "a stream's handle of at least 0", handle)
    return handle


def _whereabouts(value: Any) -> str:
    if hasattr(value, "__dlpack_device__"):
        return f"an array on DLPack device type {int(value.__dlpack_device__()[0])}"
    return "an array in GPU memory"


def _is_row_major(shape: tuple[int, ...], strides: Any, item_bytes: int) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = item_bytes
    for extent, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if extent > 1 and stride != expected:
            return False
        expected *= extent
    return True
