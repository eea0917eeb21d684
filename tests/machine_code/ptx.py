"""NVIDIA chips on the CPU: the plugin's kernels as nvcc made them, run by their PTX.

`pytest -p ptx` has the plugin use it; the environment names the stand-in for the runtime
(MARKETPLACE_STANDIN) and the library that runs PTX (MARKETPLACE_PTX_MACHINE).
"""

import ctypes
import functools
import os
import sys

import door
import ptx_costs
import ptx_machine
import ptx_text

_C = ctypes
CHIP = "sm_" + os.environ.get("ARCHITECTURE", "80")
LANES = 32


_kernels: dict[tuple[int, str], ptx_machine.Kernel] = {}


@functools.cache
def _module(address, size):
    return ptx_text.Module(_C.string_at(address, size).decode())


def _kernel(address, size, name):
    if (address, name) not in _kernels:
        _kernels[address, name] = ptx_machine.load(_module(address, size), name)
    return _kernels[address, name]


def _prepare(code, size, name, blocks, threads, shared_bytes, pointers):
    kernel = _kernel(code, size, name)
    if not kernel.fits(threads, shared_bytes):
        return None
    return door.Launch(kernel, blocks, threads, shared_bytes, kernel.pack(pointers))


def _run(launch):
    launch.kernel.run(launch.blocks, launch.threads, launch.shared_bytes, launch.arguments)


_standin = door.open_door(_prepare, _run, CHIP, LANES)
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
