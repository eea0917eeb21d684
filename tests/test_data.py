"""Data sets: the IDX format, the cache's rules, the download, the bundled subset."""

import functools
import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np
import pytest
from marketplace import data
from marketplace.data import _cache, _download, _load, make_bundled

NAMES = _cache.IDX_NAMES
DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]


@pytest.fixture(autouse=True)
def no_data_on_this_machine(monkeypatch, tmp_path):
    """Point every rule at empty places, so that no test depends on the machine it runs on."""
    monkeypatch.delenv("MARKETPLACE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(_cache, "DEBIAN_FASHION", tmp_path / "debian")


def write_set(directory, *, train=12, test=5, suffix="", shift=0, names=NAMES):
    """Write a small data set; its labels count up from ``shift``."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in zip(names, (train, train, test, test), strict=True):
        labels = ((np.arange(count) + shift) % 10).astype(np.uint8)
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        data.write_idx(directory / (name + suffix), images if "images" in name else labels)


def header(*shape, code=8, magic=b"\0\0"):
    return magic + struct.pack(f">BB{len(shape)}I", code, len(shape), *shape)


# IDX


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 2), (2, 3, 4), (2, 1, 1, 3)])
@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_idx_round_trip(tmp_path, dtype, shape, name):
    array = (np.random.default_rng(1).random(shape) * 100).astype(dtype)
    data.write_idx(tmp_path / name, array)
    back = data.read_idx(tmp_path / name)
    assert back.dtype == array.dtype and back.dtype.isnative
    np.testing.assert_array_equal(back, array)


def test_idx_bytes_are_those_of_the_format(tmp_path):
    data.write_idx(tmp_path / "a", np.array([[1, 2], [3, 258]], dtype=np.int16))
    expected = bytes([0, 0, 0x0B, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0, 2, 0, 3, 1, 2])
    assert (tmp_path / "a").read_bytes() == expected


def test_idx_gzip_is_recognised_by_content_and_repeatable(tmp_path):
    array = np.arange(10, dtype=np.uint8)
    data.write_idx(tmp_path / "a.gz", array)
    first = (tmp_path / "a.gz").read_bytes()
    data.write_idx(tmp_path / "b.gz", array)
    assert (tmp_path / "b.gz").read_bytes() == first
    (tmp_path / "no_suffix").write_bytes(first)
    np.testing.assert_array_equal(data.read_idx(tmp_path / "no_suffix"), array)


BAD_IDX = {
    "empty": (b"", "an empty file"),
    "short magic": (b"\0\0\x08", "0x000008"),
    "foreign": (b"PNG and so on", "0x504e4720"),
    "unknown type": (header(1, code=0x0A) + b"x", "0x00000a01"),
    "rank 0": (b"\0\0\x08\0", "a rank from 1 to 8, received 0"),
    "rank 9": (header(*[1] * 9) + b"x", "a rank from 1 to 8, received 9"),
    "short sizes": (b"\0\0\x08\x02\0\0\0\x01", "8 bytes of axis sizes, received 4"),
    "short elements": (header(2, 3) + b"12345", r"6 bytes of elements .*\(2, 3\), received 5"),
    "bytes left over": (header(2, 3) + b"1234567", "6 bytes of elements .* received more"),
    "lying sizes": (header(2**32 - 1, 2**32 - 1) + b"1234", "received 4"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", BAD_IDX)
def test_idx_refuses(tmp_path, case, zipped):
    content, message = BAD_IDX[case]
    path = tmp_path / "bad"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(ValueError, match=message) as error:
        data.read_idx(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "header only"])
def test_idx_refuses_damaged_gzip(tmp_path, damage):
    content = gzip.compress(header(200) + np.random.default_rng(0).bytes(200))
    content = {
        "cut": content[:-20],
        "flipped": content[:60] + bytes([content[60] ^ 0xFF]) + content[61:],
        "header only": content[:10],
    }[damage]
    (tmp_path / "bad.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"read_idx: .*bad\.gz: expected"):
        data.read_idx(tmp_path / "bad.gz")


def test_idx_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.read_idx(tmp_path / "nowhere")


def test_write_idx_refuses(tmp_path):
    with pytest.raises(TypeError, match="float32.*received uint64"):
        data.write_idx(tmp_path / "a", np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="1 to 8 axes, received 0"):
        data.write_idx(tmp_path / "a", np.zeros((), np.uint8))
    assert not (tmp_path / "a").exists()


# The cache


def test_cache_directory_rules(monkeypatch, tmp_path):
    assert data.cache_directory() == tmp_path / "xdg" / "marketplace"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.cache_directory() == tmp_path / ".cache" / "marketplace"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.cache_directory() == tmp_path / ".cache" / "marketplace"
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path / "mine"))
    assert data.cache_directory() == tmp_path / "mine"
    monkeypatch.setenv("MARKETPLACE_DATA", "~/mine")
    assert data.cache_directory() == tmp_path / "mine"
    monkeypatch.setenv("MARKETPLACE_DATA", "")
    assert data.cache_directory() == tmp_path / ".cache" / "marketplace"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", [".", "mnist"])
@pytest.mark.parametrize("source", ["auto", "full"])
def test_mnist_from_the_cache(monkeypatch, tmp_path, suffix, folder, source):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    write_set(tmp_path / folder, suffix=suffix)
    loaded = data.load("mnist", source)
    assert loaded.name == "MNIST" and loaded.directory == tmp_path / folder
    assert loaded.x_train.shape == (12, 1, 28, 28) and loaded.x_train.dtype == np.uint8
    assert loaded.x_test.shape == (5, 1, 28, 28) and loaded.x_test.dtype == np.uint8
    assert loaded.y_train.dtype == loaded.y_test.dtype == np.int32
    np.testing.assert_array_equal(loaded.y_test, np.arange(5))
    np.testing.assert_array_equal(
        loaded.x_train[:, 0], data.read_idx(tmp_path / folder / (NAMES[0] + suffix))
    )


def test_dotted_names_are_known_too(monkeypatch, tmp_path):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    write_set(tmp_path, names=[name.replace("-idx", ".idx") for name in NAMES])
    assert data.load("mnist", "auto").name == "MNIST"


def test_bundled_is_taken_despite_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    write_set(tmp_path)
    assert len(data.load("mnist", "bundled").x_train) == 8_000


def test_half_a_data_set_is_an_error_and_not_a_fallback(monkeypatch, tmp_path):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    write_set(tmp_path)
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match=f"all but {NAMES[3]}"):
        data.load("mnist", "auto")


@pytest.mark.parametrize("folder", ["fashion-mnist", "fashion_mnist", "fashion", "debian"])
def test_fashion_is_found(monkeypatch, tmp_path, folder):
    if folder != "debian":
        monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    write_set(tmp_path / folder, suffix=".gz")
    loaded = data.load("fashion", "full")
    assert loaded.name == "Fashion-MNIST" and loaded.directory == tmp_path / folder


def test_digits_are_not_taken_for_clothes_nor_the_reverse(monkeypatch, tmp_path):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path / "digits"))
    write_set(tmp_path / "digits")
    with pytest.raises(FileNotFoundError):
        data.load("fashion")
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path / "fashion-mnist"))
    write_set(tmp_path / "fashion-mnist")
    assert data.load("fashion").directory == tmp_path / "fashion-mnist"
    assert data.load("mnist").name == "MNIST (bundled subset)"


def test_absent_fashion_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist") as error:
        data.load("fashion")
    assert str(tmp_path / "xdg" / "marketplace" / "fashion-mnist") in str(error.value)
    assert "MARKETPLACE_DATA" in str(error.value)


def test_load_refuses_unknown_words():
    with pytest.raises(ValueError, match="dataset to be one of mnist, fashion, received 'cifar'"):
        data.load("cifar")
    with pytest.raises(ValueError, match="source to be one of auto, full, bundled, received 'x'"):
        data.load("mnist", "x")
    with pytest.raises(ValueError, match="no bundled subset"):
        data.load("fashion", "bundled")


BAD_CONTENT = {
    "image size": (NAMES[0], np.zeros((12, 28, 27), np.uint8), r"shape \(12, 28, 27\)"),
    "image dtype": (NAMES[0], np.zeros((12, 28, 28), np.float32), "received float32"),
    "image rank": (NAMES[2], np.zeros((5,), np.uint8), r"shape \(5,\)"),
    "label dtype": (NAMES[1], np.zeros(12, np.int32), "received int32"),
    "label rank": (NAMES[1], np.zeros((12, 1), np.uint8), r"shape \(12, 1\)"),
    "label value": (NAMES[3], np.full(5, 10, np.uint8), "from 0 to 9, received 10"),
    "label count": (NAMES[1], np.zeros(11, np.uint8), "11 labels for 12 images"),
    "no image": (NAMES[2], np.zeros((0, 28, 28), np.uint8), "5 labels for 0 images"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_load_refuses_wrong_content(monkeypatch, tmp_path, case):
    name, array, message = BAD_CONTENT[case]
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    write_set(tmp_path)
    data.write_idx(tmp_path / name, array)
    with pytest.raises(ValueError, match=message):
        data.load("mnist")


# The download


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve a small data set on this machine, and make the loader believe that it is MNIST."""
    served = tmp_path / "served"
    write_set(served, suffix=".gz")
    files = []
    for name in NAMES:
        content = gzip.decompress((served / f"{name}.gz").read_bytes())
        digest = hashlib.sha256(content).hexdigest()
        files.append(_download.RemoteFile(name, len(content), digest))
    handler = functools.partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(_load, "MNIST_FILES", tuple(files))
        monkeypatch.setattr(_load, "download", functools.partial(_download.download, mirrors=[url]))
        for variable in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield served, files, url
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, *args):
        """Say nothing."""


def test_full_downloads_into_the_cache_once(mirror, tmp_path):
    served, _, _ = mirror
    lines = []
    loaded = data.load("mnist", "full", report=lines.append)
    cache = tmp_path / "xdg" / "marketplace" / "mnist"
    assert loaded.directory == cache and len(loaded.x_train) == 12
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    assert len(lines) == 4 and lines[0].startswith("downloading http://127.0.0.1")
    for path in served.iterdir():
        path.unlink()
    assert data.load("mnist", "auto", report=lines.append).directory == cache
    assert len(lines) == 4


@pytest.mark.parametrize("damage", ["other content", "longer", "not gzip", "missing", "cut"])
def test_bad_download_leaves_nothing(mirror, tmp_path, damage):
    served, _, _ = mirror
    path = served / f"{NAMES[0]}.gz"
    content = path.read_bytes()
    plain = gzip.decompress(content)
    bad = {
        "other content": gzip.compress(plain[:-1] + bytes([plain[-1] ^ 1])),
        "longer": gzip.compress(plain + b"x"),
        "not gzip": plain,
        "missing": None,
        "cut": content[:-10],
    }[damage]
    path.unlink()
    if bad is not None:
        path.write_bytes(bad)
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        data.load("mnist", "full")
    assert "MARKETPLACE_DATA" in str(error.value) and "bundled" in str(error.value)
    assert not (tmp_path / "xdg").exists()


def test_second_mirror_is_tried(mirror, tmp_path):
    _, files, url = mirror
    lines = []
    paths = _download.download(files, tmp_path / "d", [url + "no/", url], report=lines.append)
    assert [path.name for path in paths] == [f"{name}.gz" for name in NAMES]
    assert len(lines) == 8


def test_offline_says_what_to_do_in_one_line(mirror, monkeypatch, tmp_path):
    closed = "http://127.0.0.1:9/"  # the discard port: nobody listens there
    monkeypatch.setattr(_load, "download", functools.partial(_download.download, mirrors=[closed]))
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        data.load("mnist", "full")
    message = str(error.value)
    assert str(tmp_path / "xdg" / "marketplace" / "mnist") in message
    assert "MARKETPLACE_DATA" in message and "\n" not in message


def test_silent_server_is_given_up(mirror, tmp_path):
    _, files, _ = mirror
    with http.server.socketserver.TCPServer(("127.0.0.1", 0), None) as silent:
        url = f"http://127.0.0.1:{silent.server_address[1]}/"
        with pytest.raises(ConnectionError, match="timed out"):
            _download.download(files[:1], tmp_path / "d", [url], timeout_seconds=0.2)


def test_published_checksums_and_sizes():
    assert [file.name for file in _download.MNIST_FILES] == list(NAMES)
    assert [file.size_bytes for file in _download.MNIST_FILES] == [
        16 + 60_000 * 784,
        8 + 60_000,
        16 + 10_000 * 784,
        8 + 10_000,
    ]


# The bundled subset; test_bundled.py looks at its contents


def test_bundled_subset_is_the_default():
    loaded = data.load()
    assert loaded.name == "MNIST (bundled subset)"
    assert loaded.x_train.shape == (8_000, 1, 28, 28) and loaded.x_test.shape == (2_000, 1, 28, 28)
    # Shares of the full set's classes (5,923 zeros of 60,000, 6,742 ones, ...).
    full_train = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    full_test = np.array([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert np.abs(np.bincount(loaded.y_train) - full_train * 8_000 / 60_000).max() < 1
    assert np.abs(np.bincount(loaded.y_test) - full_test * 2_000 / 10_000).max() < 1


def test_make_bundled_writes_and_checks(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(make_bundled, "SIZES", {"train": 6, "t10k": 3})
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path / "full"))
    target = ["--output", str(tmp_path / "subset")]
    assert make_bundled.main(target) == 1
    assert "expected full MNIST" in capsys.readouterr().err
    write_set(tmp_path / "full", train=20, test=10)
    assert make_bundled.main(target) == 0
    assert make_bundled.main([*target, "--check"]) == 0
    labels = data.read_idx(tmp_path / "subset" / f"{NAMES[1]}.gz")
    data.write_idx(tmp_path / "subset" / f"{NAMES[1]}.gz", labels[::-1].copy())
    assert make_bundled.main([*target, "--check"]) == 1
    assert "differs from the draw: train-labels" in capsys.readouterr().out
