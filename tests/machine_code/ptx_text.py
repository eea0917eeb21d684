"""PTX as text: its kernels, and the instructions, registers and shared variables of one."""

import dataclasses
import re

TYPE_BYTES = {
    "u8": 1, "s8": 1, "b8": 1, "u16": 2, "s16": 2, "b16": 2, "u32": 4, "s32": 4, "b32": 4, "f32": 4,
    "u64": 8, "s64": 8, "b64": 8, "f64": 8,
}  # fmt: skip

_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%\w+)<(\d+)>;")
_ONE_REGISTER = re.compile(r"\.reg\s+\.\w+\s+(%[a-z]+)(\d+)\s*;")
_REGISTER = re.compile(r"%[a-z]+\d+")
_SCOPED = 1_000_000  # no kernel has so many registers
_SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.(\w+)\s+(\w+)(?:\[(\d+)\])?;")
_DYNAMIC = re.compile(r"\.extern\s+\.shared\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[\];")
_MOST_THREADS = re.compile(r"\.maxntid\s+(\d+)")
_LABEL = re.compile(r"(\$\w+):$")
_INSTRUCTION = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.]*)\s*(.*?)\s*;$")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")
_DYNAMIC_ALIGNMENT = 16


@dataclasses.dataclass
class Statement:
    """An instruction, or a label (the opcode "label")."""

    line: int
    opcode: str
    operands: list[str] = dataclasses.field(default_factory=list)
    guard: str | None = None  # a predicate
    negated: bool = False


@dataclasses.dataclass
class Kernel:
    """What the text says of a kernel."""

    name: str
    statements: list[Statement] = dataclasses.field(default_factory=list)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    # prefixes to types; offsets and sizes; offsets
    registers: dict[str, str] = dataclasses.field(default_factory=dict)
    parameters: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    shared: dict[str, int] = dataclasses.field(default_factory=dict)
    parameter_bytes: int = 0
    shared_bytes: int = 0
    most_threads: int = 1024


def _aligned(offset, alignment):
    return -(-offset // alignment) * alignment


class Module:
    """A text with kernels, each of which is read when it is asked for."""

    def __init__(self, text):
        self._text = text
        self._at = {found[1]: found.start() for found in _ENTRY.finditer(text)}
        self._dynamic = [found[2] for found in _DYNAMIC.finditer(text)]

    def line(self, number):
        """Give a line of the text, counted from 1."""
        return self._text.split("\n", number)[number - 1].strip()

    def kernel(self, name):
        """Read a kernel."""
        start = self._at[name]
        body = self._text.index("{", start)
        kernel = Kernel(name)
        _read_head(kernel, self._text[start:body])
        first = self._text.count("\n", 0, body) + 1
        scopes = _Scopes()
        for number, line in enumerate(self._text[body + 1 :].split("\n"), first):
            line = scopes.read(line.split("//")[0].strip())
            if line is None:
                break
            _read_line(kernel, number, line)
        kernel.shared_bytes = _aligned(kernel.shared_bytes, _DYNAMIC_ALIGNMENT)
        kernel.shared.update(dict.fromkeys(self._dynamic, kernel.shared_bytes))
        return kernel


class _Scopes:
    """Registers that are declared between braces, by names that nothing else has."""

    def __init__(self):
        self._names = []  # of each scope that is open
        self._count = 0

    def read(self, line):
        """Give the line with those names; nothing for a brace, None for the kernel's last."""
        if line == "{":
            self._names.append({})
        elif line == "}":
            if not self._names:
                return None
            self._names.pop()
        elif self._names and (declared := _ONE_REGISTER.match(line)):
            self._count += 1
            self._names[-1][declared[1] + declared[2]] = f"{declared[1]}{_SCOPED + self._count}"
        else:
            return _REGISTER.sub(self._rename, line)
        return ""

    def _rename(self, found):
        inner = (names[found[0]] for names in reversed(self._names) if found[0] in names)
        return next(inner, found[0])


def _read_head(kernel, head):
    for found in _PARAMETER.finditer(head):
        size = TYPE_BYTES[found[2]] * int(found[4] or 1)
        offset = _aligned(kernel.parameter_bytes, int(found[1] or TYPE_BYTES[found[2]]))
        kernel.parameters[found[3]] = offset, size
        kernel.parameter_bytes = offset + size
    if threads := _MOST_THREADS.search(head):
        kernel.most_threads = int(threads[1])


def _read_line(kernel, number, line):
    if not line or line.startswith(".pragma"):
        return
    if label := _LABEL.match(line):
        kernel.labels[label[1]] = len(kernel.statements)
        kernel.statements.append(Statement(number, "label"))
    elif line.startswith("."):
        _read_declaration(kernel, number, line)
    elif found := _INSTRUCTION.match(line):
        negated, guard, opcode, operands = found.groups()
        split = _OPERAND.findall(operands)
        kernel.statements.append(Statement(number, opcode, split, guard, negated == "!"))
    else:
        raise ValueError(f"line {number}: not understood: {line}")


def _read_declaration(kernel, number, line):
    if registers := _REGISTERS.match(line):
        kernel.registers[registers[2]] = registers[1]
    elif shared := _SHARED.match(line):
        offset = _aligned(kernel.shared_bytes, int(shared[1]))
        kernel.shared[shared[3]] = offset
        kernel.shared_bytes = offset + TYPE_BYTES[shared[2]] * int(shared[4] or 1)
    else:
        raise ValueError(f"line {number}: not understood: {line}")
