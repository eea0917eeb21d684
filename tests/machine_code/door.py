"""The stand-in for a vendor's runtime, and how it has a machine run kernels."""

import contextlib
import ctypes
import dataclasses
import os
import threading
import traceback
from typing import Any

import marketplace as mp
import pytest

_C = ctypes
_Prepare = _C.CFUNCTYPE(
    _C.c_int, _C.c_void_p, _C.c_size_t, _C.c_char_p, _C.c_uint, _C.c_uint, _C.c_size_t,
    _C.POINTER(_C.c_void_p),
)  # fmt: skip
_Run = _C.CFUNCTYPE(_C.c_int, _C.c_int)
_Release = _C.CFUNCTYPE(None, _C.c_int)


class _Machine(_C.Structure):
    _fields_ = [("prepare", _Prepare), ("run", _Run), ("release", _Release)]


@dataclasses.dataclass
class Launch:
    """A machine's kernel with the values of its arguments, as it laid them out."""

    kernel: Any
    blocks: int
    threads: int
    shared_bytes: int
    arguments: _C.Array


def open_door(prepare, run, chip, lanes):
    """Have the stand-in call these functions for launches; give its library.

    ``prepare(code, size, name, blocks, threads, shared_bytes, pointers)`` gives a Launch, None
    where the chip could not run it; ``run(launch)`` does it. One is prepared or runs at a time,
    whoever asks; what they raise is printed, and the launch has failed.
    """
    turn, launches = threading.Lock(), {}

    def keep(code, size, name, *rest):
        with turn, _printed():
            if (launch := prepare(code, size, name.decode(), *rest)) is not None:
                number = max(launches, default=0) + 1
                launches[number] = launch
                return number
        return -1

    def run_kept(number):
        with turn, _printed():
            run(launches[number])
            return 0
        return 1

    def release(number):
        launches.pop(number, None)

    machine = _Machine(_Prepare(keep), _Run(run_kept), _Release(release))
    standin = _C.CDLL(os.environ["MARKETPLACE_STANDIN"], mode=_C.RTLD_GLOBAL)
    standin.machine = machine  # kept as long as the library
    standin.standin_use(_C.byref(machine), chip.encode(), lanes)
    return standin


@contextlib.contextmanager
def _printed():
    try:
        yield
    except Exception:
        traceback.print_exc()


def require(kind):
    """Stop the tests where the plugin cannot be used: they would all run on the CPU."""
    problem = mp.build_info()["plugins"][kind]["problem"]
    if problem is not None:
        raise pytest.UsageError(f"{kind} plugin: {problem}")
