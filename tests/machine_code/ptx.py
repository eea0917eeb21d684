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
import ptx_costs
import ptx_machine
import ptx_text

_C = ctypes
CHIP = "sm_" + os.environ.get("ARCHITECTURE", "80")
LANES = 32


@dataclasses.dataclass
class Launch:
    """A kernel with the values of its arguments."""

    kernel: ptx_machine.Kernel
    blocks: int
    threads: int
    shared_bytes: int
    arguments: _C.Array


_launches: dict[int, Launch] = {}
_kernels: dict[tuple[int, str], ptx_machine.Kernel] = {}


@functools.cache
def _module(address, size):
    return ptx_text.Module(_C.string_at(address, size).decode())


def _kernel(address, size, name):
    if (address, name) not in _kernels:
        _kernels[address, name] = ptx_machine.load(_module(address, size), name)
    return _kernels[address, name]


def _prepare(code, size, name, blocks, threads, shared_bytes, pointers):
    try:
        kernel = _kernel(code, size, name.decode())
    except Exception:
        traceback.print_exc()
        return -1
    if not kernel.fits(threads, shared_bytes):
        return -1
    number = max(_launches, default=0) + 1
    _launches[number] = Launch(kernel, blocks, threads, shared_bytes, kernel.pack(pointers))
    return number


def _run(number):
    launch = _launches[number]
    try:
        launch.kernel.run(launch.blocks, launch.threads, launch.shared_bytes, launch.arguments)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _release(number):
    _launches.pop(number, None)


_standin = door.open_door(_prepare, _run, _release, CHIP, LANES)
ptx_machine.use_allocations(_standin.standin_find_allocation)


def pytest_configure():
    """Ask for the device before anything runs."""
    door.require("cuda")


def pytest_sessionfinish():
    """Say what has run."""
    kernels = sorted(_kernels.values(), key=lambda kernel: kernel.text.name)
    if "MARKETPLACE_MACHINE_COUNTS" in os.environ:
        ptx_costs.print_costs(kernels)
        return
    for kernel in kernels:
        print(f"{kernel.counts.launches:8d}  {kernel.text.name}", file=sys.stderr)
