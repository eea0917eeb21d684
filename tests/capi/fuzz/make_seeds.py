"""Write first inputs for the fuzz targets: into FOLDER/calls and FOLDER/load.

Run as ``make_seeds.py FOLDER``.
Calls are coded as ``fuzz_calls.cpp`` reads them, byte by byte.
"""

import json
import sys
from pathlib import Path

LAST = b"\x01"  # coin: go on from the last value
ZERO = b"\x00"


def extent(value: int) -> bytes:
    return bytes([value - 1])


def add_spec(vendors: int) -> bytes:
    return b"\x00" + LAST + extent(vendors) + ZERO


def conv2d(inputs: int, outputs: int, kernel: int) -> bytes:
    size, key, ones = b"\x01", ZERO, extent(1) * 2
    windows = extent(kernel) * 2 + ones + ZERO * 2 + ones
    return b"\x01" + LAST + size + key + extent(inputs) + extent(outputs) + windows + b"\x01\x00"


def linear(inputs: int, outputs: int) -> bytes:
    return b"\x02" + LAST + b"\x01" + ZERO + extent(inputs) + extent(outputs) + ZERO


def norm(kind: int, extents: int) -> bytes:
    numbers = b"\x01\x01" + b"\x01\x01"  # eps and momentum of 1 / 16
    return (
        b"\x03" + LAST + b"\x01\x00" + numbers + ZERO + ZERO + bytes([kind]) + extent(extents) * 2
    )


RELU = b"\x04" + LAST + b"\x01"
POOL = b"\x05" + LAST + b"\x01" + extent(2) * 4 + ZERO * 2 + extent(1) * 2 + ZERO + ZERO + b"\x01"
FLATTEN = b"\x06" + LAST + b"\x03\x01"  # (1, -1)
FINISH = b"\x0d" + LAST + b"\x01\x00\x01"


def batch(*shape: int) -> bytes:
    extents = [extent - 1 for extent in shape] + [0] * (4 - len(shape))
    floats = ZERO + b"\x01\x01\x01"  # no uint8, the CPU, no odd extent, no strides
    return bytes(extents) + bytes(range(40, 56)) + bytes([len(shape) - 1]) + floats


def optimizer(plan: int, meta: bytes = b"\x01") -> bytes:
    """Begin one; ``meta``: no line search."""
    kinds = bytes([7, plan + 1, 1, 1, 1])
    rates = b"\x01\x08" + b"\x01\x10" + b"\x01"
    flags = b"\x01\x01" + ZERO + ZERO
    return b"\x13\x01" + kinds + rates + flags + meta + b"\x01" + ZERO  # no seeds of its own


def probe(*shape: int, call: bytes = b"\x14") -> bytes:
    labels = b"\x00\x01" + b"\x01\x01" + b"\x00\x01" * 6
    return call + ZERO + batch(*shape) + labels


SCORED = b"\x01\x01" + ZERO + b"\x01\x04"
STEP, REPLICA, KEEP_BEST = b"\x16" + SCORED, b"\x19" + SCORED, b"\x1a" + SCORED
RATES = b"\x1b" + ZERO + b"\x03\x02" + b"\x1b" + ZERO + b"\x02\x01\x04"

TINY = add_spec(3) + conv2d(1, 2, 3) + norm(0, 2) + RELU + POOL + FLATTEN
TINY += add_spec(2) + linear(8, 4) + FINISH
DENSE = add_spec(3) + linear(4, 5) + RELU + add_spec(2) + linear(5, 3) + FINISH


def calls() -> dict[str, bytes]:
    seeds = {}
    for plan, name in enumerate(("tree", "star", "scatter", "node")):
        train = optimizer(plan) + (probe(3, 4) + STEP) * 3
        seeds[f"dense_{name}"] = DENSE + train
        seeds[f"image_{name}"] = TINY + optimizer(plan) + (probe(2, 1, 6, 6) + STEP) * 2
    one, more = probe(3, 4), probe(3, 4, call=b"\x18")
    search = optimizer(1, ZERO + b"\x01\x08")
    seeds["updates"] = DENSE + optimizer(1) + one + more + REPLICA + one + STEP + one + KEEP_BEST
    seeds["search"] = DENSE + search + one + more + STEP + RATES + one + REPLICA + one + STEP
    seeds["batch_norm"] = (
        add_spec(2) + linear(4, 4) + norm(1, 4) + FINISH + optimizer(0) + probe(3, 4)
    )
    seeds["infer"] = DENSE + b"\x11" + batch(3, 4) + b"\x01"
    return seeds


SETTINGS = {
    "version": 1, "plan": "tree", "dtype": "float32", "control_variate": False,
    "update": "momentum", "momentum": 0.9, "shaping": "z", "antithetic": False,
    "market": {"vendor_count": [2], "upstream_sampling": [0]},
    "rates": {
        "learning_rate": {"value": 0.5, "dtype": None},
        "meta_learning_rate": None,
        "probe_scale": {"value": 0.25, "dtype": "float32"},
    },
    "state": {"generation": 3, "seed": 5, "rule.steps": 3},
}  # fmt: skip


def checkpoint(arrays: dict[str, tuple[str, list[int], bytes]], **metadata: str) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape, values) in arrays.items():
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def load() -> dict[str, bytes]:
    """Checkpoints of the market of ``fuzz_load.cpp``."""
    prefix = "spec.0.layers."
    arrays = {
        "global_step": ("I64", [], bytes(8)),
        prefix + "1.num_batches_tracked": ("I64", [], bytes(8)),
        prefix + "0.weight": ("F32", [3, 2], bytes(24)),
    }
    for key in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        arrays[prefix + key] = ("F32", [3], bytes(12))
    halves = {key: ("F16", shape, bytes(6)) if shape == [3] else (kind, shape, values)
              for key, (kind, shape, values) in arrays.items()}  # fmt: skip
    state = {
        "optimizer.amplitudes": ("F32", [1], bytes(4)),
        "optimizer.learning_rates": ("F32", [1], bytes(4)),
        "optimizer.seeds.0": ("U64", [2], bytes(16)),
        "optimizer.rule.first.0": ("F32", [15], bytes(60)),
    }
    optimizer = checkpoint(arrays | state, optimizer=json.dumps(SETTINGS))
    return {"whole": checkpoint(arrays), "halves": checkpoint(halves), "optimizer": optimizer}


def main(folder: Path) -> None:
    for kind, seeds in (("calls", calls()), ("load", load())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (folder / kind / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
