"""NVIDIA chips on the CPU: the plugin's kernels as nvcc made them, run by their PTX.

`pytest -p ptx` has the plugin use it; the environment names the stand-in for the runtime
(MARKETPLACE_STANDIN) and the library that runs PTX (MARKETPLACE_PTX_MACHINE).
"""

import ctypes
import dataclasses
import functools
import os
import sys
import traceback

import door
import ptx_encode
import ptx_text

_C = ctypes
CHIP = "sm_80"
LANES = 32
_SHARED_LIMIT = 163 * 1024  # of a block
COUNTS = "MARKETPLACE_MACHINE_COUNTS" in os.environ


class Counts(_C.Structure):
    """What was seen of a kernel, as in ptx/warp.h."""

    _fields_ = [
        (name, _C.c_uint64)
        for name in (
            "launches", "instructions", "shared_accesses", "shared_wavefronts", "shared_least",
            "global_accesses", "sectors", "sectors_least",
        )
    ]  # fmt: skip


@dataclasses.dataclass
class Kernel:
    """A kernel as the machine holds it."""

    text: ptx_text.Kernel
    module: ptx_text.Module
    handle: int


@dataclasses.dataclass
class Launch:
    """A kernel with the values of its arguments."""

    kernel: Kernel
    blocks: int
    threads: int
    shared_bytes: int
    arguments: _C.Array


# -- the machine -----------------------------------------------------------------------------------

_machine = _C.CDLL(os.environ["MARKETPLACE_PTX_MACHINE"])
_machine.ptx_load.restype = _C.c_void_p
_machine.ptx_load.argtypes = [
    _C.c_char_p, _C.c_void_p, _C.c_size_t, _C.c_char_p, _C.c_size_t, _C.c_size_t, _C.c_void_p,
    _C.c_uint32, _C.c_size_t,
]  # fmt: skip
_machine.ptx_run.argtypes = [_C.c_void_p, _C.c_int, _C.c_int, _C.c_uint32, _C.c_void_p]
_machine.ptx_error.restype = _C.c_char_p
_machine.ptx_counts.restype = _C.POINTER(Counts)
_machine.ptx_counts.argtypes = [_C.c_void_p]


@functools.cache
def _module(address, size):
    return ptx_text.Module(_C.string_at(address, size).decode())


_kernels: dict[tuple, Kernel] = {}


def _kernel(address, size, name):
    if (address, name) not in _kernels:
        module = _module(address, size)
        _kernels[address, name] = _load(module, module.kernel(name))
    return _kernels[address, name]


def _load(module, text):
    encoder = ptx_encode.Encoder(text, _machine.ptx_operation)
    constants = encoder.constants()
    specials = (_C.c_int32 * len(encoder.special_offsets))(*encoder.special_offsets)
    handle = _machine.ptx_load(
        text.name.encode(), encoder.code, len(encoder.code), constants, len(constants),
        encoder.frame_bytes, specials, text.shared_bytes, text.parameter_bytes,
    )  # fmt: skip
    return Kernel(text, module, handle)


# -- launches --------------------------------------------------------------------------------------

_launches: dict[int, Launch] = {}


def _pack(kernel, pointers):
    """Lay the arguments out as the kernel reads them."""
    packed = _C.create_string_buffer(kernel.parameter_bytes + 1)
    for number, (offset, size) in enumerate(kernel.parameters.values()):
        _C.memmove(_C.addressof(packed) + offset, pointers[number], size)
    return packed


def _prepare(code, size, name, blocks, threads, shared_bytes, pointers):
    try:
        kernel = _kernel(code, size, name.decode())
    except Exception:
        traceback.print_exc()
        return -1
    text = kernel.text
    if threads > text.most_threads or text.shared_bytes + shared_bytes > _SHARED_LIMIT:
        return -1
    number = max(_launches, default=0) + 1
    packed = _pack(text, pointers)
    _launches[number] = Launch(kernel, blocks, threads, shared_bytes, packed)
    return number


def _run(number):
    launch = _launches[number]
    failed = _machine.ptx_run(
        launch.kernel.handle, launch.blocks, launch.threads, launch.shared_bytes, launch.arguments
    )
    if failed:
        _report(launch, _machine.ptx_error().decode())
    return failed


def _report(launch, error):
    print(f"PTX: {error} ({launch.blocks} blocks of {launch.threads})", file=sys.stderr)
    number = error.partition(": line ")[2].partition(",")[0]
    if number.isdigit():
        print(f"PTX: {launch.kernel.module.line(int(number))}", file=sys.stderr)


def _release(number):
    _launches.pop(number, None)


_standin = door.open_door(_prepare, _run, _release, CHIP, LANES)
_machine.ptx_use_allocations(_standin.standin_find_allocation)


def pytest_sessionfinish():
    """Say what has run."""
    names = [name for name, _ in Counts._fields_] if COUNTS else ["launches", "instructions"]
    rows = []
    for (_, kernel_name), kernel in _kernels.items():
        seen = _machine.ptx_counts(kernel.handle).contents
        rows.append([*(getattr(seen, name) for name in names), kernel_name])
    door.print_table([[*(name[:12] for name in names), ""], *sorted(rows, key=lambda row: row[-1])])
