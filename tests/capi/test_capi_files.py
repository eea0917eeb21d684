"""Checkpoints of the C ABI: hostile files, other markets' files, and what is no file."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clibrary import FILE, VALUE, CMarket, COptimizer, refused, tensor


def checkpoint(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "empty": b"",
    "cut off in the length": b"\x01\0\0",
    "a header beyond the file": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": checkpoint(b"{hello}"),
    "JSON that is no object": checkpoint(b"[1]"),
    "deep nesting": checkpoint(b'{"a":' + b"[" * 100000),
    "deep objects": checkpoint(b'{"a":' * 100000),
    "invalid UTF-8": checkpoint(b'{"\xff\xfe":{}}'),
    "text behind": checkpoint(b"{} x"),
    "a name twice": checkpoint(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), b"1234"),
    "a field twice": checkpoint(b'{"a":{"dtype":"F32","dtype":"F32"}}'),
    "an unknown field": checkpoint({"a": entry() | {"more": 1}}, b"1234"),
    "a missing field": checkpoint({"a": {"dtype": "F32", "shape": [1]}}),
    "an unknown dtype": checkpoint({"a": entry("F7")}, b"1234"),
    "negative extents": checkpoint({"a": entry(shape=(-1,))}, b"1234"),
    "extents that overflow": checkpoint({"a": entry(shape=(2**32, 2**32))}, b"1234"),
    "huge numbers": checkpoint(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}'),
    "offsets reversed": checkpoint({"a": entry(offsets=(4, 0))}, b"1234"),
    "offsets beyond the file": checkpoint({"a": entry(offsets=(2**62, 2**62 + 4))}, b"1234"),
    "three offsets": checkpoint({"a": entry(offsets=(0, 4, 8))}, b"1234"),
    "a gap": checkpoint({"a": entry(offsets=(4, 8))}, b"12345678"),
    "an overlap": checkpoint({"a": entry(), "b": entry()}, b"1234"),
    "data behind": checkpoint({"a": entry()}, b"12345"),
    "nothing of this market": checkpoint({}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(digits: CMarket, name: str, tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(HOSTILE[name])
    with refused(VALUE, f"checkpoint {path}: expected .*, received "):
        digits.load(path)


def edited(path: os.PathLike[str], name: str, change: Any) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    tensors[name] = change(tensors.get(name))
    save_file({key: value for key, value in tensors.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("spec.2.layers.0.bias", lambda _: None, "no spec.2.layers.0.bias"),
        (
            "spec.9.extra",
            lambda _: np.zeros(1, np.float32),
            "9 tensors of this market, received 10",
        ),
        ("spec.2.layers.0.bias", lambda v: v[:4], r"of shape \(5,\), received \(4,\)"),
        ("spec.2.layers.0.bias", lambda v: v.astype(np.int32), "a floating dtype, received I32"),
        ("global_step", lambda _: np.array(-1), "global_step from 0"),
        ("global_step", lambda _: np.array(2.0), "an integer global_step"),
        ("global_step", lambda _: np.array([3]), "an integer global_step"),
    ],
)
def test_another_markets_file_changes_nothing(digits, name, change, text, tmp_path) -> None:
    digits.save(tmp_path / "file", 3)
    edited(tmp_path / "file", name, change)
    digits.initialize(77)
    before = digits.get(0, "layers.0.weight")
    with refused(VALUE, text):
        digits.load(tmp_path / "file")
    np.testing.assert_array_equal(digits.get(0, "layers.0.weight"), before)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_floating_dtypes_are_read(digits: CMarket, dtype: Any, tmp_path) -> None:
    values = np.array([0.1, -65504, 6e-8, np.inf, 1 / 3]).astype(dtype)
    digits.save(tmp_path / "file", 3)
    edited(tmp_path / "file", "spec.2.layers.0.bias", lambda _: values)
    digits.load(tmp_path / "file")
    np.testing.assert_array_equal(digits.get(2, "layers.0.bias"), values.astype(np.float32))


def test_files_that_are_none(digits: CMarket, tmp_path) -> None:
    with refused(FILE, "No such file"):
        digits.load(tmp_path / "absent")
    with refused(FILE, "a regular file, received Is a directory"):
        digits.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with refused(FILE, "a regular file"):
        digits.load(tmp_path / "pipe")
    with refused(FILE, "a file that can be written, received No such file"):
        digits.save(tmp_path / "absent" / "file", 0)
    with refused(VALUE, "global_step from 0"):
        digits.save(tmp_path / "file", -1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe"]


def test_a_failed_save_keeps_the_older_file(digits: CMarket, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with refused(FILE, "folder: expected a file that can be written"):
        digits.save(tmp_path / "folder", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# -- of optimizers -------------------------------------------------------------------------------


def optimizer_file(path: Path, metadata: dict[str, str], **tensors: Any) -> None:
    """Change a file of an optimizer."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, "numpy") as file:
        given = file.metadata()
    changed = load_file(path) | {f"optimizer.{name}": value for name, value in tensors.items()}
    kept = {name: value for name, value in changed.items() if value is not None}
    save_file(kept, path, given | metadata)


NESTED = '{"antithetic": ' + "[" * 200_000 + "]" * 200_000 + "}"


@pytest.mark.parametrize(
    ("metadata", "tensors", "text"),
    [
        ({"optimizer": "nothing"}, {}, "the settings of an optimizer"),
        ({"optimizer": "{}"}, {}, "the settings of an optimizer"),
        ({"optimizer": NESTED}, {}, "with antithetic false, received another"),
        ({}, {"seeds.1": None}, "integer seeds.1 in one row, received none"),
        ({}, {"seeds.1": np.zeros(4, np.float32)}, "integer seeds.1 in one row, received F32"),
        ({}, {"seeds.1": np.zeros(3, np.uint64)}, "4 seeds for spec 1, received 3"),
        ({}, {"amplitudes": np.zeros(2, np.float32)}, "3 amplitudes"),
        ({}, {"rule.first.0": np.zeros(7, np.float32)}, "first"),
    ],
)
def test_bad_optimizer_files_change_nothing(digits, metadata, tensors, text, tmp_path) -> None:
    path = tmp_path / "file"
    optimizer = COptimizer(digits, 3, plan=1, update=2, learning_rate=0.1, seed=3)
    x, y = tensor(np.ones((2, 1, 12, 12), np.uint8)), tensor(np.array([0, 1]))
    optimizer.step(*optimizer.probe(x, y), 0.1)
    optimizer.save(path, 1)
    before = path.read_bytes()
    optimizer_file(path, metadata, **tensors)
    with refused(VALUE, text):
        optimizer.load(path)
    optimizer.save(path, 1)
    assert path.read_bytes() == before


def test_another_optimizers_file(digits: CMarket, tmp_path) -> None:
    optimizer = COptimizer(digits, 3, plan=1, learning_rate=0.1)
    for options, text in (
        ({"plan": 0}, 'plan "star", received "tree"'),
        ({"plan": 1, "update": 4}, 'update "unit", received "adam"'),
        ({"plan": 1, "momentum": 0.5}, "momentum 0.8999.*, received 0.5"),
        ({"plan": 1, "antithetic": 1}, "antithetic false, received true"),
    ):
        COptimizer(digits, 3, learning_rate=0.1, **options).save(tmp_path / "file", 0)
        with refused(VALUE, f"an optimizer with {text}"):
            optimizer.load(tmp_path / "file")
    digits.save(tmp_path / "file", 0)
    with refused(VALUE, "a file of an optimizer, received one without its settings"):
        optimizer.load(tmp_path / "file")
