"""A kernel's instructions as the machine runs them: numbers of operations, offsets of operands."""

import ctypes
import re
import struct

import ptx_text

_C = ctypes
LANES = 32
SHARED_BEGIN = 1024  # as in ptx/memory.h
MOST_OPERANDS = 14
SPECIALS = ("%tid.x", "%ctaid.x", "%ntid.x", "%nctaid.x", "%laneid")
_ADDRESS = re.compile(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_SHIFTS = ("shl", "shr")
# what says to caches and to other blocks, of which it has none
_CACHE_WORDS = ("nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "volatile", "relaxed", "gpu")
_FLOAT = {"0f": ("I", 4), "0d": ("Q", 8)}


class Encoded(_C.Structure):
    """An instruction, as in ptx/warp.h."""

    _fields_ = [
        ("number", _C.c_int64),
        *((name, _C.c_int32) for name in ("operation", "guard", "negated", "line", "target")),
        *((name, _C.c_int32) for name in ("size", "count", "is_signed")),
        ("offsets", _C.c_int32 * MOST_OPERANDS),
        ("widths", _C.c_int32 * MOST_OPERANDS),
    ]


def _number(text):
    """Give the bits of an immediate, as an integer of any size."""
    if text[:2] in _FLOAT and len(text) == 2 + 2 * _FLOAT[text[:2]][1]:
        return int(text[2:], 16)
    return int(text.rstrip("U"), 0)


class Encoder:
    """Lays out a kernel's frame and encodes its statements."""

    def __init__(self, kernel, find_operation):
        self.kernel = kernel
        self._find = find_operation
        self._constants = {}  # (value, width) to offset
        self._offsets = {}  # of registers, by name
        self._end = 0
        self._lay_out_constants()
        self.constant_end = self._end
        self.special_offsets = [self._new(4) for _ in SPECIALS]
        self._prefixes = sorted(kernel.registers, key=len, reverse=True)
        self.code = (Encoded * len(kernel.statements))()
        for encoded, statement in zip(self.code, kernel.statements, strict=True):
            try:
                self._encode(encoded, statement)
            except (KeyError, ValueError) as problem:
                where = f"{kernel.name}: line {statement.line}: {statement.opcode}"
                operands = ", ".join(statement.operands)
                raise ValueError(f"{where} {operands}: {problem}") from problem

    @property
    def frame_bytes(self):
        """How much a warp's registers take."""
        return self._end

    def constants(self):
        """Give the beginning of a frame."""
        memory = bytearray(self.constant_end)
        for (value, width), offset in self._constants.items():
            if width == 0:
                struct.pack_into("<I", memory, offset, 0xFFFFFFFF if value else 0)
                continue
            one = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
            memory[offset : offset + LANES * width] = one * LANES
        return bytes(memory)

    # -- the frame ---------------------------------------------------------------------------------

    def _new(self, width):
        """Give room for a value of every lane; a predicate's width is 0."""
        offset = self._end
        self._end += max(width * LANES, 64)
        return offset

    def _lay_out_constants(self):
        """Put immediates first: that part of a frame is filled once."""
        for statement in self.kernel.statements:
            for text, width in _flat(statement):
                value = self._value(text)
                if value is not None and (value, width) not in self._constants:
                    self._constants[value, width] = self._new(width)

    def _value(self, text):
        """Give a constant operand's value; None: it is no constant."""
        if text in self.kernel.shared:
            return SHARED_BEGIN + self.kernel.shared[text]
        if text in self.kernel.parameters:
            return self.kernel.parameters[text][0]
        if text[0].isdigit() or text[0] == "-":
            return _number(text)
        return None

    def _register(self, name):
        """Give a register's offset and width."""
        if name in SPECIALS:
            return self.special_offsets[SPECIALS.index(name)], 4
        prefix = next(prefix for prefix in self._prefixes if name.startswith(prefix))
        kind = self.kernel.registers[prefix]
        width = 0 if kind == "pred" else ptx_text.TYPE_BYTES[kind]
        if name not in self._offsets:
            self._offsets[name] = self._new(width)
        return self._offsets[name], width

    # -- statements --------------------------------------------------------------------------------

    def _encode(self, encoded, statement):
        encoded.line = statement.line
        encoded.guard = -1 if statement.guard is None else self._register(statement.guard)[0]
        encoded.negated = statement.negated
        encoded.offsets[:] = [-1] * MOST_OPERANDS
        opcode = statement.opcode
        base = opcode.split(".")[0]
        if base == "bra":
            encoded.target = self.kernel.labels[statement.operands[0]]
            opcode = "bra"
        elif base in ("ld", "st"):
            opcode = self._encode_access(encoded, statement)
        elif base == "cp":
            opcode = self._encode_copy(encoded, statement)
        elif base == "bar" and opcode != "bar.warp.sync":
            reduces = opcode.startswith("bar.red.")
            if statement.operands[reduces : 1 + reduces] != ["0"]:
                raise ValueError("only barrier 0 is known")
            self._encode_operands(encoded, statement)
        else:
            opcode = self._encode_operands(encoded, statement)
        if base == "mov" and _is_vector(statement):
            encoded.count = len(_flat(statement)) - 1
            encoded.size = encoded.widths[0] // encoded.count
            opcode = "mov.pack" if statement.operands[1].startswith("{") else "mov.unpack"
        encoded.operation = self._find(opcode.encode())
        if encoded.operation < 0:
            raise ValueError("not known")

    def _put(self, encoded, index, text, width):
        value = self._value(text)
        if value is not None:
            encoded.offsets[index], encoded.widths[index] = self._constants[value, width], width
        elif text != "_":
            encoded.offsets[index], encoded.widths[index] = self._register(text)

    def _encode_operands(self, encoded, statement):
        opcode = statement.opcode
        for index, (text, width) in enumerate(_flat(statement)):
            if text.startswith("["):
                self._put_address(encoded, index, text)
                continue
            self._put(encoded, index, text, width)
            if encoded.offsets[index] >= 0 and encoded.widths[index] != width:
                if not opcode.startswith("cvt."):
                    raise ValueError(f"{text}: expected a register of {width} bytes")
                opcode = _any_integer(encoded, statement)
        return opcode

    def _put_address(self, encoded, index, text):
        base, offset = _ADDRESS.fullmatch(text).groups()
        encoded.number = int(offset or "0", 0)
        value = self._value(base)
        if value is not None:
            encoded.number += value
        else:
            encoded.offsets[index], encoded.widths[index] = self._register(base)

    def _encode_access(self, encoded, statement):
        base, *words = statement.opcode.split(".")
        kind = words[-1]
        space = next((word for word in words if word in ("param", "shared", "global")), "global")
        vector = next((word for word in words if word in ("v2", "v4")), "v1")
        if set(words) - {kind, space, vector, *_CACHE_WORDS}:
            raise ValueError("not known")
        encoded.size, encoded.count = ptx_text.TYPE_BYTES[kind], int(vector[1])
        encoded.is_signed = kind.startswith("s")
        address, values = statement.operands if base == "st" else reversed(statement.operands)
        self._put_address(encoded, 0, address)
        for index, text in enumerate(_elements(values)):
            self._put(encoded, 1 + index, text, max(encoded.size, 2))
        return f"{base}.{space}"

    def _encode_copy(self, encoded, statement):
        if statement.opcode == "cp.async.wait_group":
            encoded.number = int(statement.operands[0])
        if statement.opcode not in ("cp.async.cg.shared.global", "cp.async.ca.shared.global"):
            return statement.opcode
        to, source, size, *given = statement.operands
        if size != "16":
            raise ValueError("only copies of 16 bytes are known")
        self._put_address(encoded, 1, source)
        if encoded.number != 0:
            raise ValueError("a source with an offset is not known")
        self._put_address(encoded, 0, to)
        if given:
            self._put(encoded, 2, given[0], 4)
        return "cp.async"


def _elements(text):
    """Give a vector's operands."""
    return [part.strip() for part in text.strip("{}").split(",")]


def _is_vector(statement):
    return any(text.startswith("{") for text in statement.operands)


def _any_integer(encoded, statement):
    """Say how to convert integers in registers wider than their types."""
    to, source = kinds = statement.opcode.split(".")[-2:]
    if any(kind not in ptx_text.TYPE_BYTES or kind[0] == "f" for kind in kinds):
        raise ValueError("not known in registers of other widths")
    encoded.size, encoded.is_signed = ptx_text.TYPE_BYTES[source], source[0] == "s"
    encoded.count, encoded.number = ptx_text.TYPE_BYTES[to], to[0] == "s"
    return "cvt.integer"


def _widths(opcode, count):
    """Give the widths of operands: a lane's bytes, 0 for predicates."""
    base, *words = opcode.split(".")
    width = ptx_text.TYPE_BYTES.get(words[-1] if words else "", 0)
    if base == "setp":
        return [0, width, width]
    if base == "selp":
        return [width] * 3 + [0]
    if base in _SHIFTS:
        return [width, width, 4]
    if base == "bfi":
        return [width] * 3 + [4, 4]
    if base in ("mul", "mad") and "wide" in words:
        return [2 * width, width, width, 2 * width]
    if base == "shfl":
        return [4, 0, 4, 4, 4, 4]
    if base == "vote":
        return [width, 0, 4]
    if base == "cvt":
        return _conversion_widths(words)
    return [4 if base in ("mma", "ldmatrix", "bar") else width] * count


def _conversion_widths(words):
    special = {"bf16": 2, "bf16x2": 4, "tf32": 4}
    to, source = ((special | ptx_text.TYPE_BYTES)[word] for word in words[-2:])
    return [to, source, source]


def _flat(statement):
    """Give the operands in the machine's order, vectors in their parts, with their widths."""
    base = statement.opcode.split(".")[0]
    operands = statement.operands
    if statement.opcode.startswith("bar.red."):
        return [(operands[0], 0), (operands[2], 0)]
    if base in ("bra", "label", "cp", "ret") or (base == "bar" and "warp" not in statement.opcode):
        return []
    if base == "st":
        width = max(ptx_text.TYPE_BYTES[statement.opcode.split(".")[-1]], 2)
        return [(text, width) for text in _elements(operands[1])]
    if base == "ld":
        return []
    if base == "mov" and _is_vector(statement):
        whole, parts = sorted(operands, key=lambda text: text.startswith("{"))
        width = ptx_text.TYPE_BYTES[statement.opcode.split(".")[-1]]
        parts = _elements(parts)
        return [(whole, width), *((part, width // len(parts)) for part in parts)]
    texts = []
    for text in operands:
        texts += _elements(text) if text.startswith("{") else text.split("|")
    if base == "shfl" and "|" not in operands[0]:
        texts.insert(1, "_")
    if base == "ldmatrix":
        texts = [texts[-1], *texts[:-1]]
    return list(zip(texts, _widths(statement.opcode, len(texts)), strict=False))
