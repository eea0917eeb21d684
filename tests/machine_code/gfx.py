"""AMD chips on the CPU: the plugin's kernels, run instruction by instruction.

The kernels' machine code is read from the plugin, as the vendor's compiler made it, and run by
tinygrad's emulator, which is made from AMD's description of its instruction sets. The host's side
of the runtime is the stand-in (runtime.h). ``pytest -p gfx`` has tests use both; run_gfx says what
the environment must hold.
"""

import collections
import ctypes
import os
import sys

import door
import gfx_machine
from code_object import kernels_of
from gfx_machine import CHIP, LANES

_C = ctypes


# By kernel: launches, blocks, instructions of all waves.
counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])


def _hidden(kind, blocks, threads):
    return {
        "hidden_block_count_x": blocks,
        "hidden_block_count_y": 1,
        "hidden_block_count_z": 1,
        "hidden_group_size_x": threads,
        "hidden_group_size_y": 1,
        "hidden_group_size_z": 1,
        "hidden_grid_dims": 1,
    }.get(kind, 0)


def _pack(kernel, blocks, threads, pointers):
    """Lay the arguments out as the kernel reads them."""
    packed = _C.create_string_buffer(kernel.argument_bytes + 64)
    given = 0
    for argument in kernel.arguments:
        offset, size, kind = argument[".offset"], argument[".size"], argument[".value_kind"]
        if kind.startswith("hidden_"):
            value = _hidden(kind, blocks, threads).to_bytes(size, "little")
            _C.memmove(_C.addressof(packed) + offset, value, size)
        else:
            _C.memmove(_C.addressof(packed) + offset, pointers[given], size)
            given += 1
    return packed


def _prepare(code, size, name, blocks, threads, shared_bytes, pointers):
    kernel = kernels_of(code, size)[1][name]
    if threads > 1024 or kernel.shared_bytes + shared_bytes > gfx_machine.LDS_LIMIT:
        return None
    packed = _pack(kernel, blocks, threads, pointers)
    return door.Launch(kernel, blocks, threads, shared_bytes, packed)


def _run(launch):
    count = counts[launch.kernel.name]
    count[0] += 1
    count[1] += launch.blocks
    with gfx_machine.subnormals(launch.kernel):
        for block in range(launch.blocks):
            count[2] += gfx_machine.run_block(launch, block)


_standin = door.open_door(_prepare, _run, CHIP, LANES)


def report():
    """Say what has run."""
    print(f"{'launches':>8s} {'blocks':>9s} {'instructions':>12s}  on {CHIP}", file=sys.stderr)
    for name, count in sorted(counts.items(), key=lambda item: -item[1][2]):
        print("{:8d} {:9d} {:12d}  {}".format(*count, name), file=sys.stderr)


def pytest_configure():
    """Ask for the device before anything runs."""
    door.require("hip")


def pytest_sessionfinish():
    """Say it at the end of the tests."""
    if os.environ.get("MARKETPLACE_MACHINE_COUNTS"):
        report()
