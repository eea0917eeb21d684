"""Blocks of threads of an AMD chip, run by tinygrad's emulator of its instructions."""

import contextlib
import ctypes
import functools
import os
import struct

from test.amd.helpers import TARGET_TO_ARCH
from test.mockgpu.amd import emu
from tinygrad.device import Buffer, BufferSpec
from tinygrad.dtype import dtypes

_C = ctypes
CHIP = os.environ["MARKETPLACE_CHIP"]
ARCH = TARGET_TO_ARCH[CHIP]
LANES = 64 if ARCH == "cdna" else 32
LDS_LIMIT = 64 * 1024
_LEFT = 0xFF  # NaN, in every byte
LONGEST = 50_000_000  # instructions of one wave: more is a loop without end


# -- what a wave starts with -----------------------------------------------------------------------

_PRIVATE_BUFFER, _DISPATCH, _QUEUE, _KERNARG, _DISPATCH_ID, _FLAT_SCRATCH, _PRIVATE_SIZE = range(7)


@functools.cache
def _dispatch_packet(blocks, threads):
    """Give what a kernel may read of its dispatch: the sizes of a block and of the grid."""
    fields = (0, 1, threads, 1, 1, 0, blocks * threads, 1, 1)
    return _C.create_string_buffer(struct.pack("<HHHHHHIII", *fields), 64)


def _user_registers(launch):
    """Give the scalar registers that the descriptor asks to be set."""
    registers = []
    for bit, size in ((_PRIVATE_BUFFER, 4), (_DISPATCH, 2), (_QUEUE, 2), (_KERNARG, 2),
                      (_DISPATCH_ID, 2), (_FLAT_SCRATCH, 2), (_PRIVATE_SIZE, 1)):  # fmt: skip
        if not launch.kernel.properties >> bit & 1:
            continue
        address = 0
        if bit == _KERNARG:
            address = _C.addressof(launch.arguments)
        elif bit == _DISPATCH:
            address = _C.addressof(_dispatch_packet(launch.blocks, launch.threads))
        registers += [address & 0xFFFFFFFF, address >> 32, 0, 0][:size]
    return registers


# -- what the emulator does not do yet -------------------------------------------------------------

# What says something to caches alone, of which it has none.
_CACHE_WORDS = (0xE0AC0000, 0xE0B00000) if ARCH == "rdna3" else ()  # buffer_gl0_inv, _gl1_inv
_CACHE_OPS = ("GLOBAL_INV", "GLOBAL_WB", "GLOBAL_WBINV", "BUFFER_INV", "BUFFER_WBL2")


class _SharedMemory(emu._Ctx):
    """Lanes that are switched off read no shared memory, whatever their addresses are."""

    __slots__ = ()

    def rvgpr_dyn(self, reg, lane, valid=None):
        value = super().rvgpr_dyn(reg, lane, valid)
        if not self._is_address(reg):
            return value
        return emu._lane_active(self.rexec(), lane).where(value, emu._c(0))

    def _is_address(self, reg):
        return any(reg is self.inst_field(kind.addr) for kind in _SHARED)


class _FromAccumulators(_SharedMemory):
    """What is written to shared memory comes from the accumulators."""

    __slots__ = ()

    def rvgpr_dyn(self, reg, lane, valid=None):
        if self._is_address(reg):
            return super().rvgpr_dyn(reg, lane, valid)
        return self.raccvgpr_dyn(reg, lane, valid)


class _NoScalarBase(emu._Ctx):
    """Addresses of any memory have no scalar part, whatever the field of it holds."""

    __slots__ = ()

    def optional_field(self, inst, field):
        return None if field == "saddr" else super().optional_field(inst, field)


def _compile_flat(inst, ctx):
    ctx.__class__ = _NoScalarBase
    with _global_pcode():
        return emu._compile_mem_op(inst, ctx)


@contextlib.contextmanager
def _global_pcode():
    """Have addresses of any memory mean global memory: nothing else is reached by them here."""
    original = emu.get_pcode
    operations = emu.ir4.VGLOBALOp
    emu.get_pcode = lambda op: original(
        getattr(operations, op.name.replace("FLAT_", "GLOBAL_")) if ARCH == "rdna4" else op
    )
    try:
        yield
    finally:
        emu.get_pcode = original


def _compile_shared(inst, ctx):
    if "PERMUTE" not in emu._op_name(inst):
        ctx.__class__ = _FromAccumulators if emu._iattr(inst, "acc") else _SharedMemory
    return emu._compile_mem_op(inst, ctx)


def _compile_cached(inst, ctx):
    if emu._op_name(inst) in _CACHE_OPS:
        return emu.UOp.sink(*ctx.inc_pc())
    return (
        _compile_mubuf(inst, ctx)
        if isinstance(inst, emu.irc.MUBUF)
        else emu._compile_mem_op(inst, ctx)
    )


def _find_lanes(lane, control, row_mask, bank_mask, wave_size):
    """Know also the control by which all lanes of a row read one of them."""
    if control & 0x1F0 != _ROW_SHARE:
        return _dpp16_ctrl(lane, control, row_mask, bank_mask, wave_size)
    itself, enabled, valid = _dpp16_ctrl(lane, _OWN_LANE, row_mask, bank_mask, wave_size)
    row = itself & emu._c(~15, dtypes.int)
    return row + emu._c(control & 15, dtypes.int), enabled, valid


_ROW_SHARE, _OWN_LANE = 0x150, 0xE4
_dpp16_ctrl, emu._dpp16_ctrl = emu._dpp16_ctrl, _find_lanes
_SHARED = (emu.ir3.DS, emu.ir4.DS, emu.irc.DS)
_compile_mubuf = emu._INST_HANDLERS[emu.irc.MUBUF]
emu._INST_HANDLERS.update(dict.fromkeys(_SHARED, _compile_shared))
emu._INST_HANDLERS[emu.irc.FLAT] = emu._INST_HANDLERS[emu.ir4.VFLAT] = _compile_flat
emu._INST_HANDLERS[emu.irc.MUBUF] = emu._INST_HANDLERS[emu.ir4.VGLOBAL] = _compile_cached


def _skip(registers, size):
    words = _C.cast(registers, _C.POINTER(_C.c_uint32))
    words[emu.PC_LO_IDX] += size


# -- waves and blocks ------------------------------------------------------------------------------

_memory = Buffer("CPU", 1 << 40, dtypes.uint32, options=BufferSpec(external_ptr=0))
_memory.ensure_allocated()
_shared = Buffer("CPU", LDS_LIMIT // 4, dtypes.uint32).ensure_allocated()
_program: dict[int, tuple] = {}  # by the address of the instruction


def _instruction(at):
    if at not in _program and _C.c_uint32.from_address(at).value in _CACHE_WORDS:
        _program[at] = (lambda registers: _skip(registers.value, 8), (0,), False)
    if at not in _program:
        (program, runtime), instruction = emu._decode_at(at, ARCH)
        operation = getattr(instruction, "op", None)
        waits = operation in emu._BARRIER_OPS or operation in emu._BARRIER_SOP1_OPS
        _program[at] = (runtime.fxn, program.arg.globals, waits)
    return _program[at]


def _wave(launch, block, first, registers):
    kernel = launch.kernel
    state = emu._init_wave(
        kernel.entry, first, launch.threads, launch.threads, 1, 1, 0, kernel.resources,
        kernel.private_bytes, ARCH, block, 0, 0, registers, LANES,
    )  # fmt: skip
    private = _C.create_string_buffer(max(kernel.private_bytes * LANES, 1))
    addresses = [
        state.sgpr_buf._buf.va_addr,
        state.vgpr_buf._buf.va_addr,
        _memory._buf.va_addr,
        _shared._buf.va_addr,
        _C.addressof(private),
        state.accvgpr_buf._buf.va_addr,
    ]
    return state, [_C.c_uint64(address) for address in addresses], private


def _advance(state, buffers):
    """Run a wave until it waits for the others: instructions, and whether it came to its end."""
    for done in range(LONGEST):
        at = state.pc
        if at == emu.ENDPGM_PC:
            return done, True
        function, used, waits = _instruction(at)
        function(*[buffers[index] for index in used])
        if waits:
            return done + 1, False
    raise RuntimeError(f"{LONGEST} instructions of one wave")


def run_block(launch, block):
    """Run the waves of a block from barrier to barrier; give how many instructions that took."""
    # what a block finds in shared memory is what another one left
    _C.memset(_shared._buf.va_addr, _LEFT, LDS_LIMIT)
    registers = _user_registers(launch)
    waves = [_wave(launch, block, first, registers) for first in range(0, launch.threads, LANES)]
    total = 0
    while waves:
        waiting = []
        for wave in waves:
            done, ended = _advance(wave[0], wave[1])
            total += done
            if not ended:
                waiting.append(wave)
        waves = waiting
    _check_shared(launch.kernel.shared_bytes + launch.shared_bytes)
    return total


def _check_shared(used):
    beyond = _C.string_at(_shared._buf.va_addr + used, LDS_LIMIT - used)
    if beyond.strip(bytes([_LEFT])):
        raise RuntimeError(f"shared memory: expected writes to {used} bytes, received some beyond")


def subnormals(kernel):
    """Treat subnormal numbers as the kernel wants them, while in the context."""
    return emu._MXCSRContext() if kernel.flushes else contextlib.nullcontext()
