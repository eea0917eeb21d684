"""Code objects: ELF files with AMD's machine code, what describes it in MessagePack."""

import ctypes
import dataclasses
import functools
import struct

import msgpack

_C = ctypes
_PT_LOAD, _PT_NOTE, _SHT_DYNSYM = 1, 4, 11


@dataclasses.dataclass
class Kernel:
    """A kernel's entry in memory, and what its descriptor and metadata say of it."""

    name: str
    entry: int
    arguments: list
    argument_bytes: int
    shared_bytes: int
    private_bytes: int
    resources: int  # compute_pgm_rsrc2
    properties: int
    flushes: bool  # subnormal float32 to zero


def _segments(image):
    table, size, count = struct.unpack_from("<Q", image, 32) + struct.unpack_from("<HH", image, 54)
    for index in range(count):
        kind, _, offset, address, _, in_file, in_memory, _ = struct.unpack_from(
            "<IIQQQQQQ", image, table + index * size
        )
        yield kind, offset, address, in_file, in_memory


def _load(image):
    """Give the memory that the file describes, as the loader would lay it out."""
    parts = [part for part in _segments(image) if part[0] == _PT_LOAD]
    end = max(address + in_memory for _, _, address, _, in_memory in parts)
    memory = _C.create_string_buffer(end + 4096 + 16)
    base = -(-_C.addressof(memory) // 4096) * 4096
    for _, offset, address, in_file, _ in parts:
        _C.memmove(base + address, image[offset : offset + in_file], in_file)
    return memory, base


def _metadata(image):
    for kind, offset, _, size, _ in _segments(image):
        if kind != _PT_NOTE:
            continue
        name, description, _ = struct.unpack_from("<III", image, offset)
        assert 12 + name + description <= size + 4
        start = offset + 12 + -(-name // 4) * 4
        return msgpack.unpackb(image[start : start + description])
    raise ValueError("code object: expected a note with metadata, received none")


def _symbols(image):
    """Give the dynamic symbols: names to addresses."""
    (table,) = struct.unpack_from("<Q", image, 40)
    size, count = struct.unpack_from("<HH", image, 58)
    found = {}
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + i * size) for i in range(count)]
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != _SHT_DYNSYM:
            continue
        strings = sections[link][4]
        for at in range(offset, offset + length, entry):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, at)
            end = image.index(b"\0", strings + name)
            found[image[strings + name : end].decode()] = value
    return found


@functools.cache
def kernels_of(address, size):
    """Give the memory that a code object is loaded to, and its kernels by name."""
    image = _C.string_at(address, size)
    memory, base = _load(image)
    symbols = _symbols(image)
    kernels = {}
    for described in _metadata(image)["amdhsa.kernels"]:
        at = base + symbols[described[".symbol"]]
        shared, private, _, _, entry = struct.unpack("<IIIIq", _C.string_at(at, 24))
        modes, resources, properties = struct.unpack("<IIH", _C.string_at(at + 48, 10))
        kernels[described[".name"]] = Kernel(
            name=described[".name"],
            entry=at + entry,
            arguments=described[".args"],
            argument_bytes=described[".kernarg_segment_size"],
            shared_bytes=shared,
            private_bytes=private,
            resources=resources,
            properties=properties,
            flushes=modes >> 16 & 3 != 3,
        )
    return memory, kernels
