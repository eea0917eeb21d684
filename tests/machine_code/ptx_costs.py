"""What kernels' accesses to memory would cost: MARKETPLACE_MACHINE_COUNTS.

Shared memory serves a warp in wavefronts, one more for each different word of the busiest bank;
global memory is moved in sectors of 32 bytes. Both are set against the fewest that would do.
"""

import collections
import re
import shutil
import subprocess
import sys

import ptx_machine

WORST = 3  # instructions of a kernel that are shown
_KINDS = (
    ("ldmatrix", "ldmatrix"), ("cp.async", "copy"), ("ld.shared", "load"), ("st.shared", "store"),
    ("ld", "load"), ("st", "store"),
)  # fmt: skip
_MEMORIES = ("shared", "global")
_PASSES = {"shared": "wavefronts", "global": "sectors"}


def _kind(opcode):
    return next(kind for start, kind in _KINDS if opcode.startswith(start))


def _add(total, cost):
    for name, _ in ptx_machine.Cost._fields_:
        setattr(total, name, getattr(total, name) + getattr(cost, name))


def sums(kernel):
    """Give costs by memory and kind of access."""
    totals = collections.defaultdict(ptx_machine.Cost)
    for statement, *costs in kernel.costs():
        for memory, cost in zip(_MEMORIES, costs, strict=True):
            if cost.accesses:
                _add(totals[memory, _kind(statement.opcode)], cost)
    return totals


def worst(kernel):
    """Give the instructions that cost most above the least, with memory and excess."""
    found = [
        (cost.passes - cost.least, memory, statement)
        for statement, *costs in kernel.costs()
        for memory, cost in zip(_MEMORIES, costs, strict=True)
        if cost.passes > cost.least
    ]
    return sorted(found, key=lambda entry: -entry[0])[:WORST]


def _readable(name):
    """Give the kernel's name as C++ has it."""
    if shutil.which("c++filt"):
        name = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip()
    return re.sub(r"marketplace::gpu::|\(anonymous namespace\)::|^void |\(.*\)$", "", name)


def print_costs(kernels):
    """Say it for every kernel that was launched."""
    for kernel in kernels:
        counts = kernel.counts
        if not counts.launches:
            continue
        say = f"{_readable(kernel.text.name)}: {counts.launches} launches"
        print(f"{say}, {counts.instructions} instructions of warps", file=sys.stderr)
        for (memory, kind), cost in sorted(sums(kernel).items()):
            ratio = f"{cost.passes / max(cost.least, 1):.2f} of the least"
            passes = f"{cost.passes:10} {_PASSES[memory]}: {ratio}"
            print(f"    {memory} {kind:8} {cost.accesses:9} accesses, {passes}", file=sys.stderr)
        for excess, memory, statement in worst(kernel):
            text = kernel.module.line(statement.line)
            print(f"      {memory} +{excess}, line {statement.line}: {text}", file=sys.stderr)
