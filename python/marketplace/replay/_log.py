"""Reading a replay log: its header, where its steps lie, and whether it is whole."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .._arrays import refusal
from .._disk import FilePath
from ._format import (
    KINDS,
    MAY_BE_SKIPPED,
    START_BYTES,
    VERSION,
    Damage,
    Frame,
    Kind,
    frames,
    is_log,
    version_of,
)
from ._header import Header


@dataclass(frozen=True)
class Log:
    """A replay log as found.

    Attributes
    ----------
    path : Path
        The file.
    header : Header
        Of which market, run and checkpoint it is.
    first_step, last_step : int
        The states that it leads to: of ``first_step``, the checkpoint's own, to ``last_step``.
    damage : str or None
        How the file is broken at its end; the steps before it count.
    sound_bytes : int
        Length of the file up to there.
    """

    path: Path
    header: Header
    first_step: int
    last_step: int
    damage: str | None
    sound_bytes: int

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that the log begins from."""
        return self.path.with_name(self.header.checkpoint)

    def frames(self) -> Iterator[Frame]:
        """Read all sound records of whatever kind, the header first."""
        try:
            yield from _frames_of(self.path)
        except Damage:
            return

    def records(self) -> Iterator[Frame]:
        """Read all sound records behind the header, of kinds known to this version.

        Raises
        ------
        ValueError
            For a record of a kind that this version does not know and must not pass over.
        """
        for record in self.frames():
            if record.kind in KINDS:
                if record.kind != Kind.HEADER:
                    yield record
            elif not record.flags & MAY_BE_SKIPPED:
                raise unfit(
                    self.path,
                    f"records of the kinds 1 to {max(KINDS)}",
                    f"kind {record.kind} at byte {record.start}: a newer version wrote it",
                )


def read(path: FilePath) -> Log:
    """Read a replay log's header, and look through all of it.

    Parameters
    ----------
    path : path-like
        The log.

    Returns
    -------
    Log
        What it is, and how far it goes.

    Raises
    ------
    FileNotFoundError, OSError
        For a file that is missing or cannot be read.
    ValueError
        For a file that is no replay log, of another version, or damaged within its header. Damage
        further on is told by ``damage``.
    """
    path = Path(path)
    check_start(path)
    header, last, end = None, 0, START_BYTES
    damage = None
    try:
        for record in _frames_of(path):
            if header is None:
                header = _header(record)
                last = header.first_step
            elif record.kind in (Kind.STEP, Kind.UPDATE):
                last = record.point[0] + 1
            elif record.kind == Kind.MARK:
                last = max(last, record.point[0])
            end = record.end
    except Damage as error:
        damage = str(error)
    if header is None:
        raise unfit(path, "a replay log with a header", damage or "an empty one")
    return Log(path, header, header.first_step, last, damage, end)


def check_start(path: Path) -> None:
    """Refuse a file that is no replay log, or of another version."""
    with open(path, "rb") as file:
        start = file.read(START_BYTES)
    if not is_log(start):
        raise unfit(path, "a replay log", f"a file that begins with {start[:8]!r}")
    if version_of(start) != VERSION:
        raise unfit(path, f"version {VERSION}", f"version {version_of(start)}")


def unfit(path: FilePath, expected: str, received: object) -> ValueError:
    """Build the error of a log that does not fit."""
    return refusal(ValueError, f"replay log {os.fspath(path)}", expected, received)


def _header(record: Frame) -> Header:
    if record.kind != Kind.HEADER:
        raise Damage("it does not begin with a header")
    return Header.from_json(record.payload)


def _frames_of(path: Path) -> Iterator[Frame]:
    with open(path, "rb") as file:
        file.seek(START_BYTES)
        yield from frames(file)
