r"""The bytes of a replay log: framed, typed, checksummed records, little-endian, append-only.

==========  ======================================================================================
file        magic ``\\x89MPRL\\r\\n\\x1a``, uint32 version, then records
record      uint8 kind, uint8 flags, uint16 0, uint32 length, payload, uint32 checksum
checksum    CRC-32 of kind to payload, begun with the checksum of what precedes the record: a record
            that is lost, repeated or from another file breaks the chain
flag 1      a reader that does not know the kind may pass over the record
payload     HEADER: one JSON object. All others begin with uint64 step and uint32 state, the
            CRC-32 of the market's arrays as they are at that point of the file
==========  ======================================================================================

What follows in the payloads, V being the vendors of all S specs together:

==========  ======================================================================================
STEP        uint8 mode (0 per_spec, 1 whole, 2 as_is: neither normalised nor changed by the rule),
            uint16 terms that add up to g, S float32 learning rates; then the terms
UPDATE      the same, outside of the counted steps
STATISTICS  all running statistics as float32, valid from here on
MARK        nothing: the state at the end of a run, or wherever it was asked for
==========  ======================================================================================

A term begins with uint8, what it is:

==========  ======================================================================================
0           vendors: uint64 generation, uint32 replica, S float32 amplitudes, V float32 coefficients
1           the same, and V uint64 seeds, which do not follow from the master seed
2           values: per spec uint8 coding (0 dense, 1 sparse), uint32 count, count uint32 indices if
            sparse, count float32
==========  ======================================================================================
"""

import enum
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._arrays import F32
from .._recording import AS_IS

MAGIC = b"\x89MPRL\r\n\x1a"
VERSION = 1
MAY_BE_SKIPPED = 1
MODES = ("per_spec", "whole", AS_IS)

_START = struct.Struct("<8sI")
_FRAME = struct.Struct("<BBHI")
_CHECKSUM = struct.Struct("<I")
_POINT = struct.Struct("<QI")
_STEP = struct.Struct("<BH")
_TERM = struct.Struct("<B")
_DRAW = struct.Struct("<QI")
_CODED = struct.Struct("<BI")

START_BYTES = _START.size


class Kind(enum.IntEnum):
    """Kinds of records."""

    HEADER = 1
    STEP = 2
    STATISTICS = 3
    MARK = 4
    UPDATE = 5


KINDS = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True)
class Frame:
    """One record as it lies in the file.

    Attributes
    ----------
    kind, flags : int
        What it is.
    payload : bytes
        Its content.
    start, end : int
        Where it lies in the file, in bytes.
    checksum : int
        The chain's value behind it.
    """

    kind: int
    flags: int
    payload: bytes
    start: int
    end: int
    checksum: int

    @property
    def point(self) -> tuple[int, int]:
        """Step and state checksum; not for a header."""
        step, state = _POINT.unpack_from(self.payload)
        return int(step), int(state)

    @property
    def body(self) -> memoryview:
        """What follows step and state."""
        return memoryview(self.payload)[_POINT.size :]


@dataclass(frozen=True)
class Weighted:
    """One draw: its vendors, and how much of each delta the step takes.

    Attributes
    ----------
    generation, replica : int
        From which the seeds follow, together with the master seed.
    amplitudes : float32 array (S,)
        Largest element of a delta, per spec.
    coefficients : list of float32 array (V,)
        Per spec.
    seeds : list of uint64 array (V,), or None
        Per spec, where they do not follow from generation and master seed.
    """

    generation: int
    replica: int
    amplitudes: F32
    coefficients: list[F32]
    seeds: list[NDArray[np.uint64]] | None


@dataclass(frozen=True)
class Step:
    """The content of a STEP or UPDATE: mode, learning rates (S,), and what adds up to g.

    A term that is no draw is one flat array (n,) per spec.
    """

    mode: str
    rates: F32
    terms: Sequence[Weighted | list[F32]]


class Damage(Exception):
    """The file is broken from here on; the text says how."""


def file_start() -> bytes:
    """Give the first bytes of a log."""
    return _START.pack(MAGIC, VERSION)


def is_log(start: bytes) -> bool:
    """Tell whether a file that begins like this is a replay log, of whatever version."""
    return start[: len(MAGIC)] == MAGIC


def version_of(start: bytes) -> int:
    """Give the version of a log from its first bytes; 0 if they end before it."""
    return int(_START.unpack(start)[1]) if len(start) == START_BYTES else 0


def frame(kind: Kind, payload: bytes, checksum: int, flags: int = 0) -> tuple[bytes, int]:
    """Give a record's bytes and the chain's checksum behind it."""
    record = _FRAME.pack(kind, flags, 0, len(payload)) + payload
    checksum = zlib.crc32(record, checksum)
    return record + _CHECKSUM.pack(checksum), checksum


def frames(file: BinaryIO) -> Iterator[Frame]:
    """Read a log's records, from behind its first bytes on.

    Raises
    ------
    Damage
        Where the file ends within a record, or a checksum does not fit.
    """
    start, checksum = START_BYTES, zlib.crc32(file_start())
    while head := file.read(_FRAME.size):
        if len(head) < _FRAME.size:
            raise Damage(f"it ends within the record at byte {start}")
        kind, flags, _, length = _FRAME.unpack(head)
        rest = file.read(length + _CHECKSUM.size)
        if len(rest) < length + _CHECKSUM.size:
            raise Damage(f"it ends within the record at byte {start}")
        payload = rest[:length]
        checksum = zlib.crc32(payload, zlib.crc32(head, checksum))
        if _CHECKSUM.unpack_from(rest, length)[0] != checksum:
            raise Damage(f"the record at byte {start} does not have the checksum that it should")
        end = start + _FRAME.size + len(rest)
        yield Frame(kind, flags, payload, start, end, checksum)
        start = end


def point(step: int, state: int) -> bytes:
    """Give what every record but the header begins with."""
    return _POINT.pack(step, state)


# -- STEP and UPDATE -------------------------------------------------------------------------------

_DERIVED, _SEEDED, _VALUES = range(3)


def encode_step(step: Step) -> bytes:
    """Give what follows step and state."""
    parts = [_STEP.pack(MODES.index(step.mode), len(step.terms)), _floats(step.rates)]
    for term in step.terms:
        parts += _encode_draw(term) if isinstance(term, Weighted) else _encode_values(term)
    return b"".join(parts)


def _encode_draw(draw: Weighted) -> list[bytes]:
    parts = [_TERM.pack(_DERIVED if draw.seeds is None else _SEEDED)]
    parts += [_DRAW.pack(draw.generation, draw.replica), _floats(draw.amplitudes)]
    parts += [_floats(values) for values in draw.coefficients]
    return parts + [values.astype("<u8").tobytes() for values in draw.seeds or ()]


def _encode_values(values: list[F32]) -> list[bytes]:
    return [_TERM.pack(_VALUES), *(_coded(spec) for spec in values)]


def decode_step(body: memoryview, vendor_counts: Sequence[int], sizes: Sequence[int]) -> Step:
    """Read what ``encode_step`` wrote, for specs of so many vendors and parameters.

    Raises
    ------
    Damage
        For content of another size or meaning.
    """
    cursor = Cursor(body)
    mode, count = cursor.unpack(_STEP)
    if mode >= len(MODES) or count == 0:
        raise Damage(f"a step has mode {mode} and {count} terms")
    rates = cursor.array("<f4", len(vendor_counts))
    terms = [_decode_term(cursor, vendor_counts, sizes) for _ in range(count)]
    cursor.finish()
    return Step(MODES[mode], rates, terms)


def _decode_term(
    cursor: "Cursor", vendor_counts: Sequence[int], sizes: Sequence[int]
) -> Weighted | list[F32]:
    (what,) = cursor.unpack(_TERM)
    if what == _VALUES:
        return [_decoded(cursor, size) for size in sizes]
    if what not in (_DERIVED, _SEEDED):
        raise Damage(f"a step has a term of kind {what}")
    generation, replica = cursor.unpack(_DRAW)
    amplitudes = cursor.array("<f4", len(vendor_counts))
    coefficients = [cursor.array("<f4", count) for count in vendor_counts]
    seeds = [cursor.array("<u8", count) for count in vendor_counts] if what == _SEEDED else None
    return Weighted(generation, replica, amplitudes, coefficients, seeds)


def _coded(values: F32) -> bytes:
    # by their bits: a negative zero is no zero here
    present = np.flatnonzero(values.view(np.uint32))
    if 2 * present.size >= values.size:
        return _CODED.pack(0, values.size) + _floats(values)
    head = _CODED.pack(1, present.size)
    return head + present.astype("<u4").tobytes() + _floats(values[present])


def _decoded(cursor: "Cursor", size: int) -> F32:
    sparse, count = cursor.unpack(_CODED)
    values = np.zeros(size, dtype=np.float32)
    if sparse == 1:
        indices = cursor.array("<u4", count)
        if count and int(indices.max()) >= size:
            raise Damage(f"a direction of {size} values has index {int(indices.max())}")
        values[indices] = cursor.array("<f4", count)
    elif sparse == 0 and count == size:
        values[:] = cursor.array("<f4", count)
    else:
        raise Damage(f"a direction of {size} values has coding {sparse} and {count} values")
    return values


class Cursor:
    """Reads one payload from its beginning to its end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Read some integers."""
        return layout.unpack(self._take(layout.size))

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """Read ``count`` numbers, in this machine's byte order."""
        kind = np.dtype(dtype)
        values = np.frombuffer(self._take(count * kind.itemsize), dtype=kind)
        return values.astype(kind.newbyteorder("="))

    def finish(self) -> None:
        """Refuse what is left over."""
        if self._at != len(self._data):
            raise Damage(f"a record has {len(self._data) - self._at} bytes too many")

    def _take(self, count: int) -> memoryview:
        if self._at + count > len(self._data):
            raise Damage(f"a record has {self._at + count - len(self._data)} bytes too few")
        self._at += count
        return self._data[self._at - count : self._at]


def _floats(values: F32) -> bytes:
    return values.astype("<f4").tobytes()
