"""Files: written whole or not at all, and told apart whatever their paths are."""

import contextlib
import os
import stat

FilePath = str | os.PathLike[str]


def write_atomic(path: FilePath, content: bytes) -> None:
    """Write a file so that a reader sees either the whole of it or what was there before.

    Parameters
    ----------
    path : path-like
        The file. Links are followed, an existing file's permissions are kept; a device or a pipe
        is written to.
    content : bytes
        All of it.

    Raises
    ------
    OSError
        It cannot be written; what was there is untouched, and no temporary file is left behind.
    """
    mode = _mode_of(path)
    try:
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            with open(path, "wb") as device:  # a rename would put a file in its place
                device.write(content)
        else:
            _replace(os.path.realpath(path), content, mode)
    except OSError as error:
        if error.errno is None:
            raise
        # a full disk names no file, a failed rename a temporary one
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def same_file(one: FilePath, other: FilePath) -> bool:
    """Tell whether two paths lead to one file, which need not be there yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _mode_of(path: FilePath) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _replace(target: str, content: bytes, mode: int | None) -> None:
    """Write beside the target, because a rename is atomic only within one file system."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb", opener=_private if mode is not None else None) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _private(path: str, flags: int) -> int:
    """Open for the owner alone: what others may read is settled when all of it is there."""
    return os.open(path, flags, 0o600)
