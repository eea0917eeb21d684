"""The library that runs PTX (ptx/machine.cpp), named by MARKETPLACE_PTX_MACHINE."""

import ctypes
import dataclasses
import os

import ptx_encode
import ptx_text

_C = ctypes
SHARED_LIMIT = 227 * 1024  # bytes of a block, on any chip; the stand-in knows its own
FIND_ALLOCATION = _C.CFUNCTYPE(
    _C.c_int, _C.c_uint64, _C.POINTER(_C.c_uint64), _C.POINTER(_C.c_uint64)
)


class Counts(_C.Structure):
    """What was seen of a kernel, as in ptx/warp.h."""

    _fields_ = [(name, _C.c_uint64) for name in ("launches", "instructions")]


class Cost(_C.Structure):
    """What an instruction's accesses to a memory cost, as in ptx/warp.h."""

    _fields_ = [(name, _C.c_uint64) for name in ("accesses", "passes", "least")]


@dataclasses.dataclass
class Kernel:
    """A kernel as the library holds it."""

    text: ptx_text.Kernel
    module: ptx_text.Module
    handle: int

    @property
    def counts(self):
        return _library.ptx_counts(self.handle).contents

    def costs(self):
        """Give each instruction that used memory, with what that cost in shared and global."""
        for index, statement in enumerate(self.text.statements):
            costs = (Cost * 2)()
            _library.ptx_costs(self.handle, index, costs)
            if costs[0].accesses or costs[1].accesses:
                yield statement, costs[0], costs[1]

    def pack(self, pointers):
        """Lay the arguments out as the kernel reads them."""
        packed = _C.create_string_buffer(self.text.parameter_bytes + 1)
        for number, (offset, size) in enumerate(self.text.parameters.values()):
            _C.memmove(_C.addressof(packed) + offset, pointers[number], size)
        return packed

    def fits(self, threads, shared_bytes):
        """Say whether the chip can run such blocks."""
        return (
            threads <= self.text.most_threads
            and self.text.shared_bytes + shared_bytes <= SHARED_LIMIT
        )

    def run(self, blocks, threads, shared_bytes, arguments):
        """Run blocks; fail with what failed and the line of PTX."""
        if _library.ptx_run(self.handle, blocks, threads, shared_bytes, arguments):
            error = _library.ptx_error().decode()
            line = error.partition(": line ")[2].partition(",")[0]
            said = f"\n{self.module.line(int(line))}" if line.isdigit() else ""
            raise RuntimeError(f"{error} ({blocks} blocks of {threads}){said}")


def load(module, name):
    """Read a kernel."""
    text = module.kernel(name)
    encoder = ptx_encode.Encoder(text, _library.ptx_operation)
    constants = encoder.constants()
    specials = (_C.c_int32 * len(encoder.special_offsets))(*encoder.special_offsets)
    handle = _library.ptx_load(
        name.encode(), encoder.code, len(encoder.code), constants, len(constants),
        encoder.frame_bytes, specials, text.shared_bytes, text.parameter_bytes,
    )  # fmt: skip
    return Kernel(text, module, handle)


def use_allocations(find):
    """Have a function of C say what memory there is; give the one that did until now."""
    _used.append(find)
    _library.ptx_use_allocations(find)
    return _used.pop(0)


_used = [None]


_library = _C.CDLL(os.environ["MARKETPLACE_PTX_MACHINE"])
_library.ptx_load.restype = _C.c_void_p
_library.ptx_load.argtypes = [
    _C.c_char_p, _C.c_void_p, _C.c_size_t, _C.c_char_p, _C.c_size_t, _C.c_size_t, _C.c_void_p,
    _C.c_uint32, _C.c_size_t,
]  # fmt: skip
_library.ptx_run.argtypes = [_C.c_void_p, _C.c_int, _C.c_int, _C.c_uint32, _C.c_void_p]
_library.ptx_error.restype = _C.c_char_p
_library.ptx_counts.restype = _C.POINTER(Counts)
_library.ptx_counts.argtypes = [_C.c_void_p]
_library.ptx_costs.argtypes = [_C.c_void_p, _C.c_size_t, _C.c_void_p]
