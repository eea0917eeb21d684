"""Checkpoints that are truncated, foreign or cannot be written: a clear error, and nothing lost."""

import contextlib
import resource

import marketplace as mp
import numpy as np
import pytest
import safetensors.numpy
from markets import (
    CONV,
    MLP,
    MLP_SHAPE,
    batch,
    build,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)

VENDORS = (2, 3, 2)


def write_plain(built, path):
    mp.checkpoint.write_checkpoint(built.specs, 7, path)


def write_full(built, path):
    opt = optimizer(built, seed=1)
    opt.step(*opt.probe(*batch(MLP_SHAPE)))
    opt.save(path)


def read_plain(built, path):
    mp.checkpoint.load_checkpoint(built.specs, path)


def read_full(built, path):
    mp.Optimizer.resume(path, built.specs, threads=1)


KINDS = {"plain": (write_plain, read_plain), "full": (write_full, read_full)}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """A checkpoint on disk and how to read it: the reference's format, and the full state."""
    write, read = KINDS[request.param]
    path = tmp_path / "market.safetensors"
    write(build(MLP, VENDORS, seed=1), path)
    return path, read


def refused(read, path, error=ValueError):
    """Expect the read to fail, naming the file, and to leave a market as it was."""
    built = build(MLP, VENDORS, seed=2)
    before = states(built)
    with pytest.raises(error) as caught:
        read(built, path)
    assert str(path) in str(caught.value)
    same_states(before, states(built))
    return str(caught.value)


def test_both_kinds_can_be_read(kind):
    """Otherwise the refusals below would prove nothing."""
    path, read = kind
    built = build(MLP, VENDORS, seed=2)
    before = states(built)
    read(built, path)
    assert not np.array_equal(before[0]["layers.0.weight"], states(built)[0]["layers.0.weight"])


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.5, -1])
def test_truncated(kind, keep):
    path, read = kind
    whole = path.read_bytes()
    length = int(len(whole) * keep) if isinstance(keep, float) else keep
    path.write_bytes(whole[:length])
    assert "expected" in refused(read, path)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(200), b"{}", b"\xff" * 300, bytes(300), b"PK\x03\x04" * 50],
)
def test_foreign_file(kind, content):
    path, read = kind
    path.write_bytes(content)
    assert "expected" in refused(read, path)


def test_foreign_tensors(kind):
    path, read = kind
    safetensors.numpy.save_file({"encoder.weight": np.zeros((3, 3), np.float32)}, path)
    assert "expected" in refused(read, path)


def test_another_market(kind, tmp_path):
    path, read = kind
    mp.checkpoint.write_checkpoint(build(CONV, VENDORS).specs, 7, path)
    refused(read, path)


def change_tensors(path, change):
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as archive:
        metadata = archive.metadata()
    change(tensors)
    safetensors.numpy.save_file(tensors, path, metadata)


def test_missing_tensor(kind):
    path, read = kind
    change_tensors(path, lambda tensors: tensors.pop("spec.2.layers.0.weight"))
    assert "spec.2.layers.0.weight" in refused(read, path)


def test_tensor_of_the_wrong_shape(kind):
    """The last spec is wrong; the first must not have been loaded by then."""
    path, read = kind
    wrong = np.zeros((2, 2), np.float32)
    change_tensors(path, lambda tensors: tensors.update({"spec.2.layers.0.weight": wrong}))
    assert "spec.2.layers.0.weight" in refused(read, path)


def test_missing_file(kind, tmp_path):
    _, read = kind
    refused(read, tmp_path / "nowhere.safetensors", FileNotFoundError)


def test_directory(kind, tmp_path):
    _, read = kind
    refused(read, tmp_path, (OSError, ValueError))


def test_resume_needs_the_full_state(tmp_path):
    path = tmp_path / "plain.safetensors"
    write_plain(build(MLP, VENDORS), path)
    assert "expected" in refused(read_full, path)


def test_resume_into_other_vendor_counts(tmp_path):
    path = tmp_path / "full.safetensors"
    write_full(build(MLP, VENDORS), path)
    built = build(MLP, (2, 4, 2), seed=2)
    before = states(built)
    with pytest.raises(ValueError, match=r"expected .+ received"):
        read_full(built, path)
    same_states(before, states(built))


# -- writing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 512 bytes: what a full disk does to a write.

    Only around the write itself: the test runner's own output may be a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def writers(built, opt):
    return {
        "plain": lambda path: mp.checkpoint.write_checkpoint(built.specs, 8, path),
        "full": opt.save,
    }


@pytest.mark.parametrize("name", ["plain", "full"])
def test_full_disk_keeps_the_old_checkpoint(tmp_path, name):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=1)
    path = tmp_path / "market.safetensors"
    writers(built, opt)[name](path)
    old = path.read_bytes()
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    opt.step(loss, paths)
    before, seeds = states(built), seeds_of(opt)
    with full_disk(), pytest.raises(OSError, match="market.safetensors"):
        writers(built, opt)[name](path)
    assert path.read_bytes() == old
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    same_states(before, states(built))
    for a, b in zip(seeds, seeds_of(opt), strict=True):
        same_bits(a, b)


@pytest.mark.parametrize("name", ["plain", "full"])
def test_full_disk_leaves_no_half_checkpoint(tmp_path, name):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=1)
    with full_disk(), pytest.raises(OSError, match="market.safetensors"):
        writers(built, opt)[name](tmp_path / "market.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["plain", "full"])
def test_missing_folder(tmp_path, name):
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=1)
    with pytest.raises(OSError, match="nowhere"):
        writers(built, opt)[name](tmp_path / "nowhere" / "market.safetensors")
