"""Another library on the emulated GPU: memory, streams and arrays of its own.

Its pointers are those of the SIMT shim's devices, so a missing order between streams shows: work is
put off until somebody waits for it.
"""

import contextlib
import ctypes
import gc

import marketplace as mp
import numpy as np
import pytest
from markets import MLP, build, fresh_seeds

PLUGIN = mp.build_info()["plugins"].get("cuda", {}).get("path")
_C = ctypes


def _load():
    try:
        library = None if PLUGIN is None else _C.CDLL(PLUGIN)
        return library if hasattr(library, "simt_allocate") else None
    except OSError:
        return None


_LIBRARY = _load()
GPUS = [device["name"] for device in mp.devices() if device["kind"] != "cpu"]
IS_REAL = bool(GPUS) and _LIBRARY is None
FIRST = GPUS[0] if GPUS else None
EMULATED = _LIBRARY is not None and "cuda:0" in GPUS
DEFERS = EMULATED and hasattr(_LIBRARY, "simt_defer")  # or does all work at once
several = pytest.mark.skipif(len(GPUS) < 2, reason="one GPU only")
VENDORS = (2, 3, 2)
BUSY_WORK = 40  # copies that a stream has to do before what counts


def _declare(name, result, *arguments):
    function = getattr(_LIBRARY, name)
    function.restype, function.argtypes = result, arguments


if EMULATED:
    _declare("simt_allocate", _C.c_void_p, _C.c_int, _C.c_size_t)
    _declare("simt_free", _C.c_int, _C.c_void_p)
    _declare("simt_create_stream", _C.c_void_p, _C.c_int)
    _declare("simt_destroy_stream", _C.c_int, _C.c_void_p)
    _declare("simt_synchronize", _C.c_int, _C.c_int, _C.c_void_p)
    _copy = (_C.c_int, _C.c_void_p, _C.c_void_p, _C.c_size_t, _C.c_void_p)
    _declare("simt_copy", _C.c_int, *_copy)
    _declare("simt_order", _C.c_int, _C.c_int, _C.c_void_p, _C.c_void_p)
    _declare("simt_fail_allocation", None, _C.c_int)
    if DEFERS:
        _declare("simt_defer", None, _C.c_bool)
    for _name in ("host_copied_bytes", "live_blocks"):
        _declare(f"simt_{_name}", _C.c_int64)


def call(name, *arguments):
    """Call the machine; what fails, fails the test."""
    result = getattr(_LIBRARY, f"simt_{name}")(*arguments)
    function = getattr(_LIBRARY, f"simt_{name}")
    if function.restype is _C.c_int:
        assert result == 0, f"{name}: error {result}"
    return result


def make(layers=MLP, device=FIRST, **options):
    """Build a market of its own and an optimizer of it."""
    built = build(layers, VENDORS)
    options = {"seeds": fresh_seeds(VENDORS), "seed": 1} | options
    return built, mp.Optimizer(built.specs, 0.125, device=device, **options)


def live_blocks():
    """Count the blocks of device and pinned memory that somebody has."""
    gc.collect()
    return call("live_blocks")


@contextlib.contextmanager
def deferred():
    """Let nothing be done before somebody waits for it."""
    if DEFERS:
        call("defer", True)
    try:
        yield
    finally:
        if DEFERS:
            call("defer", False)


class Stream:
    """A stream of the library; by a handle of its own, or one of the numbers 0, 1 and 2."""

    def __init__(self, device=0, handle=None):
        self.device, self.own = device, handle is None
        self.handle = call("create_stream", device) if handle is None else handle

    def __del__(self):
        if self.own:
            self.synchronize()
            call("destroy_stream", self.handle)

    def synchronize(self):
        call("synchronize", self.device, self.handle)

    def keep_busy(self, block):
        """Put work before what comes, so that who does not wait comes too early."""
        for _ in range(BUSY_WORK):
            call("copy", self.device, block, block, 1, self.handle)


class Memory:
    """An array of the library on a device, filled in the order of a stream."""

    def __init__(self, values, on=None, device=0):
        self.values = np.ascontiguousarray(values)
        self.stream = Stream(device) if on is None else on
        self.device = device
        self.address = call("allocate", device, max(self.values.nbytes, 1))
        self.stream.keep_busy(self.address)
        call(
            "copy", device, self.address, self.values.ctypes.data, self.values.nbytes,
            self.stream.handle,
        )  # fmt: skip

    def __del__(self):
        if hasattr(self, "address"):
            call("free", self.address)

    def read(self, stream):
        """Give the values in the order of a stream."""
        out = np.empty_like(self.values)
        call("copy", self.device, out.ctypes.data, self.address, out.nbytes, stream.handle)
        stream.synchronize()
        return out


class InterfaceArray(Memory):
    """An array that tells of itself by ``__cuda_array_interface__``."""

    def __init__(self, values, on=None, device=0, **changed):
        super().__init__(values, on, device)
        self.changed = changed

    @property
    def __cuda_array_interface__(self):
        described = {
            "shape": self.values.shape,
            "typestr": self.values.dtype.str,
            "data": (self.address, True),  # nobody but the library writes
            "strides": None,
            "stream": self.stream.handle,
            "version": 3,
        }
        return described | self.changed


# -- DLPack ----------------------------------------------------------------------------------------


class _Tensor(_C.Structure):
    _fields_ = [
        ("data", _C.c_void_p),
        ("device_type", _C.c_int32),
        ("device", _C.c_int32),
        ("ndim", _C.c_int32),
        ("code", _C.c_uint8),
        ("bits", _C.c_uint8),
        ("lanes", _C.c_uint16),
        ("shape", _C.POINTER(_C.c_int64)),
        ("strides", _C.POINTER(_C.c_int64)),
        ("byte_offset", _C.c_uint64),
    ]


_Deleter = _C.CFUNCTYPE(None, _C.c_void_p)


class _Managed(_C.Structure):
    _fields_ = [("tensor", _Tensor), ("context", _C.c_void_p), ("deleter", _Deleter)]


class _Versioned(_C.Structure):
    _fields_ = [
        ("major", _C.c_uint32),
        ("minor", _C.c_uint32),
        ("context", _C.c_void_p),
        ("deleter", _Deleter),
        ("flags", _C.c_uint64),
        ("tensor", _Tensor),
    ]


_api = _C.pythonapi
_api.PyCapsule_New.restype = _C.py_object
_api.PyCapsule_New.argtypes = [_C.c_void_p, _C.c_char_p, _C.c_void_p]
_api.PyCapsule_GetPointer.restype = _C.c_void_p
_api.PyCapsule_GetPointer.argtypes = [_C.py_object, _C.c_char_p]
_api.PyCapsule_SetName.argtypes = [_C.py_object, _C.c_char_p]
_api.PyCapsule_GetName.restype = _C.c_char_p
_api.PyCapsule_GetName.argtypes = [_C.py_object]
_USED = {name: b"used_" + name for name in (b"dltensor", b"dltensor_versioned")}  # live on
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


_exported: list = []
_deleters: list = []  # code that may be running when its array goes


class DlpackArray(Memory):
    """An array that gives DLPack capsules; what was asked of it, and how often one was deleted."""

    def __init__(self, values, on=None, device=0, *, versioned=True, **changed):
        super().__init__(values, on, device)
        self.versioned, self.changed = versioned, changed
        self.asked, self.deleted, self.kept = [], 0, []

    def __dlpack_device__(self):
        return self.changed.get("device_type", 2), self.device

    def __dlpack__(self, *, stream=None, max_version=None):
        self.asked.append((stream, max_version))
        call("order", self.device, self.stream.handle, stream)
        return self._capsule()

    def _tensor(self):
        shape = (_C.c_int64 * self.values.ndim)(*self.values.shape)
        strides = [n // self.values.itemsize for n in self.values.strides]
        strides = (_C.c_int64 * self.values.ndim)(*self.changed.get("strides", strides))
        self.kept += [shape, strides]
        dtype = self.values.dtype
        fields = {"data": self.address, "device_type": 2, "device": self.device, "lanes": 1}
        fields |= {"code": _CODES[dtype.kind], "bits": 8 * dtype.itemsize}
        fields |= {key: value for key, value in self.changed.items() if key != "strides"}
        fields.pop("major", None)
        return _Tensor(ndim=self.values.ndim, shape=shape, strides=strides, **fields)

    def _capsule(self):
        def delete(_):
            self.deleted += 1
            _exported.remove(self)

        deleter = _Deleter(delete)
        _exported.append(self)  # a capsule keeps its array
        if self.versioned:
            major = self.changed.get("major", 1)
            managed = _Versioned(major=major, deleter=deleter, tensor=self._tensor())
        else:
            managed = _Managed(deleter=deleter, tensor=self._tensor())
        self.kept.append(managed)
        _deleters.append(deleter)
        name = b"dltensor_versioned" if self.versioned else b"dltensor"
        return _api.PyCapsule_New(_C.addressof(managed), name, None)


class OldDlpackArray(DlpackArray):
    """The same from before there were versions."""

    def __init__(self, values, on=None, device=0, **changed):
        super().__init__(values, on, device, versioned=False, **changed)

    def __dlpack__(self, *, stream=None):
        return super().__dlpack__(stream=stream)


class Taken:
    """What a consumer makes of a capsule: a view, and the deleter that it must call once."""

    def __init__(self, capsule):
        self.name = _api.PyCapsule_GetName(capsule)
        address = _api.PyCapsule_GetPointer(capsule, self.name)
        kind = _Versioned if self.name == b"dltensor_versioned" else _Managed
        self._managed = kind.from_address(address)
        _api.PyCapsule_SetName(capsule, _USED[self.name])
        tensor = self._managed.tensor
        self.address, self.device = tensor.data, (tensor.device_type, tensor.device)
        self.shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
        self.strides = tuple(tensor.strides[i] for i in range(tensor.ndim))
        self.dtype = (tensor.code, tensor.bits, tensor.lanes)
        self.flags = getattr(self._managed, "flags", None)
        self.version = getattr(self._managed, "major", None)

    def delete(self):
        self._managed.deleter(_C.addressof(self._managed))


def read(device, address, shape, stream):
    """Give float32 values in a device's memory, in the order of a stream."""
    out = np.empty(shape, np.float32)
    call("copy", device, out.ctypes.data, address, out.nbytes, stream.handle)
    stream.synchronize()
    return out
