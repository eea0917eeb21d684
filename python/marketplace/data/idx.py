"""The IDX file format (MNIST's own), plain or gzip-compressed.

A file is ``0x00 0x00 <type code> <rank>``, then one big-endian uint32 per axis, then the
elements in row-major order, big-endian. Source: Y. LeCun, C. Cortes, "The MNIST database".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_GZIP_MAGIC = b"\x1f\x8b"
_MAX_RANK = 8
_CHUNK_BYTES = 1 << 20
_DTYPES: dict[int, str] = {
    0x08: ">u1",
    0x09: ">i1",
    0x0B: ">i2",
    0x0C: ">i4",
    0x0D: ">f4",
    0x0E: ">f8",
}
_CODES = {np.dtype(name).newbyteorder("="): code for code, name in _DTYPES.items()}


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one IDX file; gzip is recognised by its first bytes, not by the name.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    ndarray
        The array in the machine's byte order, with the shape and dtype of the file's header.

    Raises
    ------
    ValueError
        The file is no IDX file, is cut short, has bytes left over, or is damaged gzip data.
    OSError
        The file cannot be opened or read.
    """
    path = Path(path)
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            return _parse(raw, path)
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                return _parse(stream, path)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _error(path, "intact gzip data", str(error)) from error


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as an IDX file, gzip-compressed when the name ends in ``.gz``.

    The gzip header holds no time and no name, so equal arrays give equal files.

    Parameters
    ----------
    path : str or path
        The file; an existing one is replaced.
    array : ndarray
        uint8, int8, int16, int32, float32 or float64, with 1 to 8 axes.

    Raises
    ------
    TypeError
        The dtype has no IDX type code.
    ValueError
        The array has no axis or more than 8.
    OSError
        The file cannot be written.
    """
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        names = ", ".join(str(dtype) for dtype in _CODES)
        raise TypeError(f"write_idx: expected one of {names}, received {array.dtype}")
    if not 1 <= array.ndim <= _MAX_RANK:
        raise ValueError(f"write_idx: expected 1 to {_MAX_RANK} axes, received {array.ndim}")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    content = header + array.astype(_DTYPES[code]).tobytes()
    path = Path(path)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=9, mtime=0)
    path.write_bytes(content)


def _parse(stream: _Reader, path: Path) -> NDArray[Any]:
    """Read header and elements; never asks for more bytes than the header announces."""
    dtype, shape = _parse_header(stream, path)
    expected_bytes = math.prod(shape) * dtype.itemsize
    payload = _read_up_to(stream, expected_bytes + 1)
    if len(payload) != expected_bytes:
        received = "more" if len(payload) > expected_bytes else str(len(payload))
        raise _error(path, f"{expected_bytes} bytes of elements for shape {shape}", received)
    return np.frombuffer(payload, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _parse_header(stream: _Reader, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        expected = "an IDX file (0x0000, a type code 0x08 to 0x0e, a rank)"
        raise _error(path, expected, f"0x{magic.hex()}" if magic else "an empty file")
    rank = magic[3]
    if not 1 <= rank <= _MAX_RANK:
        raise _error(path, f"a rank from 1 to {_MAX_RANK}", str(rank))
    sizes = stream.read(4 * rank)
    if len(sizes) != 4 * rank:
        raise _error(path, f"{4 * rank} bytes of axis sizes", str(len(sizes)))
    return np.dtype(_DTYPES[magic[2]]), struct.unpack(f">{rank}I", sizes)


def _read_up_to(stream: _Reader, count: int) -> bytes:
    """Read at most ``count`` bytes, in chunks: a lying header must not reserve the memory."""
    chunks = []
    while count > 0 and (chunk := stream.read(min(count, _CHUNK_BYTES))):
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def _error(path: Path, expected: str, received: str) -> ValueError:
    return ValueError(f"read_idx: {path}: expected {expected}, received {received}")
