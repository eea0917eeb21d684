"""The stand-in for a vendor's runtime, and how it has a machine run kernels."""

import ctypes
import os
import threading

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


def open_door(prepare, run, release, chip, lanes):
    """Have the stand-in call these functions for launches; give its library.

    One launch is prepared or runs at a time, whoever asks.
    """
    turn = threading.Lock()

    def prepare_alone(*launch):
        with turn:
            return prepare(*launch)

    def run_alone(number):
        with turn:
            return run(number)

    machine = _Machine(_Prepare(prepare_alone), _Run(run_alone), _Release(release))
    standin = _C.CDLL(os.environ["MARKETPLACE_STANDIN"], mode=_C.RTLD_GLOBAL)
    standin.machine = machine  # kept as long as the library
    standin.standin_use(_C.byref(machine), chip.encode(), lanes)
    return standin


def require(kind):
    """Stop the tests where the plugin cannot be used: they would all run on the CPU."""
    problem = mp.build_info()["plugins"][kind]["problem"]
    if problem is not None:
        raise pytest.UsageError(f"{kind} plugin: {problem}")
