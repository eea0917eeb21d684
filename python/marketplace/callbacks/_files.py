"""Logs as files: one line a step, written at once, and continued where a run is resumed."""

import abc
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._arrays import refusal
from .._disk import FilePath, write_atomic
from ._base import Callback, Status

_JSON_START = b'{"step": '
_CSV_START = b"step,"
_COLUMNS = (
    "step",
    "seconds",
    "flops",
    "training/loss",
    "training/accuracy",
    "training/lr",
    "training/gflops",
    "testing/accuracy",
)


def read_rows(path: FilePath) -> list[Status]:
    """Read a log of ``JSONLogger`` or ``CSVLogger``.

    Parameters
    ----------
    path : path-like
        The log. A last line that was cut off is passed over.

    Returns
    -------
    list of dict of str to number
        What was logged of every step, in order; what was not measured is left out.

    Raises
    ------
    FileNotFoundError, OSError
        For a file that is missing or cannot be read.
    ValueError
        For a file of something else; it names the line.
    """
    path = Path(path)
    with open(path, "rb") as file:
        is_csv = file.read(1) == _CSV_START[:1]
    rows = _csv_rows(path) if is_csv else _json_rows(path)
    return [row for row, _ in rows]


class _FileLogger(Callback, abc.ABC):
    """Lines of a file, the last of which may have been cut off."""

    def __init__(self, path: FilePath) -> None:
        self.path = Path(path)
        self._file: io.FileIO | None = None

    def __repr__(self) -> str:
        """Name the file."""
        return f"{type(self).__name__}({str(self.path)!r})"

    def on_train_begin(self, status: Status, settings: Mapping[str, Any]) -> None:
        """Open the file, at the place where the run goes on.

        Raises
        ------
        OSError
            For a file that cannot be read or written.
        ValueError
            For a file of something else; it stays as it is.
        """
        exists = self.path.exists()
        end = self._find_end(int(status["step"])) if exists else 0
        self._open(end, "r+" if exists else "w")

    def on_train_end(self, status: Status) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    @abc.abstractmethod
    def _rows(self) -> Iterator[tuple[Status, int]]:
        """Read the rows, and where each ends in the file."""

    def _find_end(self, step: int) -> int:
        """Check that the file is a log; give the offset behind what stays of it."""
        end = 0
        for row, offset in self._rows():
            if row["step"] > step or step == 0:
                break
            end, self.seconds_before = offset, float(row.get("seconds", 0.0))
        return end

    def _open(self, end: int, mode: str) -> None:
        self._file = io.FileIO(self.path, mode)
        self._file.truncate(end)
        self._file.seek(end)

    def _write(self, text: str) -> None:
        assert self._file is not None
        left = memoryview(text.encode())
        while left:  # unbuffered: what was written is in the system's hands
            left = left[self._file.write(left) :]


class JSONLogger(_FileLogger):
    """JSON lines: one object a step, of what was measured.

    A run from step 0 replaces an older log. A resumed run continues it: rows of later steps, from
    before a crash, are dropped, and so is a last line that was cut off. A number that is not finite
    becomes null.

    Parameters
    ----------
    path : path-like
        The file, such as ``run.jsonl``.
    """

    def on_step_end(self, status: Status) -> None:
        """Write a line."""
        row = {
            name: value if math.isfinite(value) else None
            for name, value in status.items()
            if name != "steps"
        }
        self._write(json.dumps(row, allow_nan=False) + "\n")

    def _rows(self) -> Iterator[tuple[Status, int]]:
        return _json_rows(self.path)


class CSVLogger(_FileLogger):
    """Comma-separated values: a header, and one line a step.

    It begins, continues and replaces files as ``JSONLogger`` does. What was not measured at a step
    is empty. A metric that turns up later gets a column of its own; the file is then written anew,
    whole or not at all.

    Parameters
    ----------
    path : path-like
        The file, such as ``run.csv``.
    """

    def __init__(self, path: FilePath) -> None:
        super().__init__(path)
        self._columns: tuple[str, ...] = ()

    def on_train_begin(self, status: Status, settings: Mapping[str, Any]) -> None:
        """Open the file, at the place where the run goes on; write its header if it has none.

        Raises
        ------
        OSError, ValueError
            As ``JSONLogger``.
        """
        super().on_train_begin(status, settings)
        if not self._columns:
            self._columns = _COLUMNS
            self._write(_line(self._columns))

    def on_step_end(self, status: Status) -> None:
        """Write a line."""
        new = tuple(name for name in status if name not in (*self._columns, "steps"))
        if new:
            self._widen(new)
        self._write(_line([_text(status.get(name)) for name in self._columns]))

    def _find_end(self, step: int) -> int:
        kept = super()._find_end(step)
        header = _csv_header(self.path)
        if step == 0 or header is None:
            return 0
        self._columns, start = header
        return max(kept, start)

    def _widen(self, new: tuple[str, ...]) -> None:
        """Add columns, empty so far."""
        assert self._file is not None
        old = self.path.read_text(encoding="utf-8").splitlines()[1:]
        lines = [_line(self._columns + new), *(row + "," * len(new) + "\n" for row in old)]
        write_atomic(self.path, "".join(lines).encode())
        self._file.close()
        self._open(self.path.stat().st_size, "r+")
        self._columns += new

    def _rows(self) -> Iterator[tuple[Status, int]]:
        return _csv_rows(self.path)


# -- lines -----------------------------------------------------------------------------------------


def _lines(path: Path, start: bytes) -> Iterator[tuple[int, str, int]]:
    """Give the whole lines of a log, their numbers and ends; the first begins with ``start``."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and not (line.startswith(start) or start.startswith(line)):
                raise _unfit(path, f"a log that begins with {start.decode()!r}", repr(line[:20]))
            if not line.endswith(b"\n"):
                return  # cut off
            yield number, line.decode("utf-8", "replace"), file.tell()


def _json_rows(path: Path) -> Iterator[tuple[Status, int]]:
    for number, line, end in _lines(path, _JSON_START):
        try:
            row = {name: value for name, value in json.loads(line).items() if value is not None}
            row["step"] = int(row["step"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unfit(path, f"an object with a step in line {number}", line[:60]) from error
        yield row, end


def _csv_header(path: Path) -> tuple[tuple[str, ...], int] | None:
    """Give the columns and where the header ends; None where it was cut off."""
    for _, line, end in _lines(path, _CSV_START):
        return tuple(_fields(line)), end
    return None


def _csv_rows(path: Path) -> Iterator[tuple[Status, int]]:
    header = _csv_header(path)
    for number, line, end in _lines(path, _CSV_START):
        if header is None or number == 1:
            continue
        fields = _fields(line)
        try:
            pairs = zip(header[0], fields, strict=True)
            row: Status = {name: float(text) for name, text in pairs if text}
            row["step"] = int(row["step"])
        except (ValueError, KeyError) as error:
            wanted = f"{len(header[0])} numbers, the first a step, in line {number}"
            raise _unfit(path, wanted, line[:60]) from error
        yield row, end


def _line(fields: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()


def _fields(line: str) -> list[str]:
    return next(csv.reader([line]), [])


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)


def _unfit(path: Path, expected: str, received: str) -> ValueError:
    return refusal(ValueError, f"log {path}", expected, received.rstrip())
