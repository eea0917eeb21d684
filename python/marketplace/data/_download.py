"""Fetching full MNIST into the cache: checked against checksums, written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .._disk import write_atomic

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TIMEOUT_SECONDS = 5.0
_MAX_COMPRESSED_BYTES = 32 << 20


class RemoteFile(NamedTuple):
    """One IDX file: its name, and the size and SHA-256 of its *uncompressed* content."""

    name: str
    size_bytes: int
    sha256: str


MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def download(
    files: Sequence[RemoteFile],
    directory: Path,
    mirrors: Sequence[str] = MNIST_MIRRORS,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Download gzip-compressed files into a directory and check each one's content.

    Parameters
    ----------
    files : sequence of RemoteFile
        What to fetch, as ``<mirror><name>.gz``.
    directory : Path
        Where to put the files; created when missing.
    mirrors : sequence of str
        Base URLs, tried in order for each file.
    timeout_seconds : float
        How long one attempt may wait for the server, in seconds.
    report : callable, optional
        Called with one line of text before each attempt.

    Returns
    -------
    list of Path
        The files, in the order asked for.

    Raises
    ------
    ConnectionError
        No mirror delivered a file, or what it delivered has another checksum.
    OSError
        The directory cannot be written.
    """
    return [_download_one(file, directory, mirrors, timeout_seconds, report) for file in files]


def _download_one(
    file: RemoteFile,
    directory: Path,
    mirrors: Sequence[str],
    timeout_seconds: float,
    report: Callable[[str], None] | None,
) -> Path:
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{file.name}.gz"
        if report is not None:
            report(f"downloading {url}")
        try:
            content = _fetch(url, timeout_seconds)
            _check(content, file)
        except (OSError, http.client.HTTPException, EOFError, zlib.error, ValueError) as error:
            failures.append(f"{urllib.parse.urlsplit(url).netloc}: {_reason(error)}")
            continue
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{file.name}.gz"
        write_atomic(path, content)
        return path
    raise ConnectionError(f"download: {file.name}.gz could not be had: " + "; ".join(failures))


def _fetch(url: str, timeout_seconds: float) -> bytes:
    with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
        content: bytes = response.read(_MAX_COMPRESSED_BYTES + 1)
    if len(content) > _MAX_COMPRESSED_BYTES:
        raise ValueError(f"more than {_MAX_COMPRESSED_BYTES} bytes")
    return content


def _check(compressed: bytes, file: RemoteFile) -> None:
    with gzip.GzipFile(fileobj=io.BytesIO(compressed)) as stream:
        content = stream.read(file.size_bytes + 1)
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise ValueError(f"expected content with SHA-256 {file.sha256}, received {digest}")


def _reason(error: BaseException) -> str:
    """Say it briefly: without "<urlopen error ...>" and error numbers."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
