"""Files that are written whole or not at all: links, permissions, devices, failures."""

import os
import stat

import marketplace as mp
import pytest
from marketplace import _disk, checkpoint, nn
from marketplace.callbacks import CSVLogger
from safetensors.numpy import load_file

OLD = b"what was there"


def market():
    return [mp.Spec(nn.Model(nn.Linear(4, 3)), 2)]


def write_csv(path):
    """Log a metric that turns up late, so that the file is written anew."""
    log = CSVLogger(path)
    log.on_train_begin({"step": 0}, {})
    log.on_step_end({"step": 1, "testing/other": 2.0})
    log.on_train_end({"step": 1})


WRITERS = {
    "write_atomic": lambda path: _disk.write_atomic(path, b"new"),
    "write_checkpoint": lambda path: checkpoint.write_checkpoint(market(), 3, path),
    "save": lambda path: mp.Optimizer(market(), 0.1, seed=1).save(path),
    "csv": write_csv,
}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def old_file(path):
    path.write_bytes(b"step,\n" if path.suffix == ".csv" else OLD)
    return path


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@writers
def test_a_link_stays_a_link(tmp_path, write):
    (tmp_path / "disk").mkdir()
    target = old_file(tmp_path / "disk" / "run.csv")
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.symlink_to(os.path.join("disk", "run.csv"))
    second.symlink_to(first)
    before = target.read_bytes()
    write(second)
    assert os.readlink(second) == str(first) and os.readlink(first) == "disk/run.csv"
    assert not target.is_symlink() and target.read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == ["disk", "first.csv", "second.csv"]
    assert os.listdir(target.parent) == ["run.csv"]


@writers
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions_are_kept(tmp_path, write, mode):
    path = old_file(tmp_path / "run.csv")
    path.chmod(mode)
    write(path)
    assert mode_of(path) == mode and path.read_bytes() != OLD


@writers
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_has_the_usual_permissions(tmp_path, write, mask, mode):
    before = os.umask(mask)
    try:
        write(tmp_path / "run.csv")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "run.csv") == mode


def test_a_link_to_a_file_that_is_not_there_yet(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("file")
    checkpoint.write_checkpoint(market(), 3, link)
    assert os.readlink(link) == "file" and load_file(tmp_path / "file")["global_step"] == 3


def test_a_private_file_is_never_open_to_others(tmp_path, monkeypatch):
    path = old_file(tmp_path / "file")
    path.chmod(0o600)
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_mode))
    _disk.write_atomic(path, b"new")
    assert [stat.S_IMODE(mode) for mode in seen] == [0o600]


def test_a_device_is_written_to(tmp_path):
    before = os.stat(os.devnull)
    _disk.write_atomic(os.devnull, b"new")
    after = os.stat(os.devnull)
    assert stat.S_ISCHR(after.st_mode) and after.st_ino == before.st_ino


@pytest.mark.parametrize("name", ["fsync", "chmod", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(monkeypatch, tmp_path, name):
    path = old_file(tmp_path / "file")

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        _disk.write_atomic(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]


def test_one_file_by_many_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, link = old_file(tmp_path / "file"), tmp_path / "link"
    link.symlink_to("file")
    os.link(file, tmp_path / "hard")
    for other in ("file", "./file", link, "hard"):
        assert _disk.same_file(file, other)
    old_file(tmp_path / "other")
    assert not _disk.same_file(file, "other") and not _disk.same_file(file, "missing")
    (tmp_path / "later").symlink_to("missing")
    assert _disk.same_file("later", tmp_path / "missing")
