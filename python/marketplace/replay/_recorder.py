"""Writing a replay log while an optimizer trains."""

import contextlib
import io
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .. import _core
from .._arrays import F32, refusal
from .._disk import FilePath
from .._recording import Draw
from ..optimizers import Optimizer
from ._format import (
    START_BYTES,
    Kind,
    file_start,
    frame,
    point,
)
from ._header import Header, checksum_of, get_statistics, layout_of, rule_of
from ._log import Log, check_start, read, unfit
from ._steps import record_step, record_update


def base_checkpoint(log: Path) -> Path:
    """Give the checkpoint that a new log begins from; it lies beside the log."""
    return log.with_name(log.name + ".safetensors")


class Recorder:
    """Writes down every step of an optimizer, so that ``rebuild`` can take it again.

    A step costs ``4 sum(V)`` bytes and a few dozen more, whatever the size of the model; a market
    with batch norms adds its running statistics, and plan "node" its measured gradients, four bytes
    a parameter, for neither follows from seeds. Each record is
    written before the weights change: a run that is cut off leaves at most one incomplete record,
    and all steps before it can be rebuilt.

    Parameters
    ----------
    path : path-like
        The log. Beside it lies ``{path}.safetensors``, the checkpoint that it begins from. At
        ``global_step`` 0 both are replaced; later, an existing log is continued, and what it holds
        from that step on is dropped.
    optimizer : Optimizer
        Whose steps to record, until ``close``.
    warn : callable
        Told in one line why the log ends early; by default a RuntimeWarning.

    Attributes
    ----------
    error : OSError or None
        Why the log ends early: training goes on without it.

    Raises
    ------
    RuntimeError
        For an optimizer that another recorder listens to.
    ValueError
        For a file that is no replay log, or the log of another run or market, or one that does not
        reach ``global_step``. Nothing has changed then.
    OSError
        For files that cannot be read or written.

    Examples
    --------
    >>> with Recorder("run.replay", optimizer):          # doctest: +SKIP
    ...     for x, y in batches:
    ...         optimizer.train_step(x, y)
    """

    def __init__(
        self,
        path: FilePath,
        optimizer: Optimizer,
        *,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        if optimizer.recorder is not None:
            raise refusal(RuntimeError, "Recorder", "an optimizer without one", "one that has it")
        if optimizer.replica > 0:
            wanted = "an optimizer between two updates"
            raise refusal(RuntimeError, "Recorder", wanted, "one with replicas added up")
        self.error: OSError | None = None
        self._path = Path(path)
        self._optimizer = optimizer
        self._warn = warn or _warn
        self._layout = layout_of(optimizer.marketplace)
        self._last: _Point | None = None
        if optimizer.global_step > 0 and self._path.exists():
            self._file, self._end, self._chain = self._go_on()
        else:
            self._file, self._end, self._chain = self._begin()
        self.mark()
        if self.error is not None:
            raise self.error
        optimizer.recorder = self

    def __repr__(self) -> str:
        """Name the log and the optimizer."""
        return f"Recorder({str(self._path)!r}, {self._optimizer!r})"

    # -- what the optimizer calls ------------------------------------------------------------------

    def step(self, draws: Sequence[Draw | list[F32]], mode: str, rates: F32) -> None:
        """Record a step that is about to be taken.

        Parameters
        ----------
        draws : sequence of Draw or of list of float32 array (n,)
            What adds up to the step: the vendors of each replica and their coefficients, or flat
            sums per spec that follow from no seeds, at four bytes a parameter.
        mode : str
            Unit vector mode, or "as_is" for a sum that is an update by itself.
        rates : float32 array (S,)
            Learning rates.
        """
        self._write(Kind.STEP, record_step(self._optimizer._native, draws, mode, rates))

    def update(self, directions: Sequence[F32], rates: F32) -> None:
        """Record an ``update_weights``; takes four bytes a parameter, or eight for one not zero.

        Parameters
        ----------
        directions : sequence of float32 array (n,)
            Per spec, what is added.
        rates : float32 array (S,)
            How much of it.
        """
        self._write(Kind.UPDATE, record_update(directions, rates))

    # -- what the user calls -----------------------------------------------------------------------

    def mark(self) -> None:
        """Record the present state's checksum, and force all of the log onto the disk.

        Where a checkpoint is written, ``replay`` can then tell that it is of this run.
        """
        self._write(Kind.MARK, b"")
        if self.error is None:
            with self._may_end():
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Mark the end and stop recording."""
        if self._file.closed:
            return
        self.mark()
        self._file.close()
        self._optimizer.recorder = None

    def __enter__(self) -> "Recorder":
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # -- beginning ---------------------------------------------------------------------------------

    def _begin(self) -> tuple[io.FileIO, int, int]:
        if self._path.exists() and self._path.stat().st_size > 0:
            check_start(self._path)
        opt = self._optimizer
        checkpoint = base_checkpoint(self._path)
        rule = rule_of(opt)
        about = {"version": _core.__version__, "dtype": opt.dtype, "device": opt.device}
        header = Header(self._layout, opt.seed, opt.global_step, checkpoint.name, rule, about)
        opt.save(checkpoint)
        record, chain = frame(Kind.HEADER, header.to_json(), zlib.crc32(file_start()))
        file = io.FileIO(self._path, "w")
        _write_all(file, file_start() + record)
        return file, file.tell(), chain

    def _go_on(self) -> tuple[io.FileIO, int, int]:
        log = read(self._path)
        self._check(log)
        end, chain = self._place(log)
        file = io.FileIO(self._path, "r+")
        file.truncate(end)
        file.seek(end)
        return file, end, chain

    def _check(self, log: Log) -> None:
        step = self._optimizer.global_step
        if log.header.specs != self._layout:
            raise unfit(self._path, "the log of this market", "that of another")
        if log.header.seed != self._optimizer.seed:
            raise unfit(self._path, f"seed {self._optimizer.seed}", log.header.seed)
        if log.header.rule != rule_of(self._optimizer):
            raise unfit(self._path, f"a run with {rule_of(self._optimizer)}", log.header.rule)
        if not log.first_step <= step <= log.last_step:
            received = f"{log.first_step} to {log.last_step}"
            received += f"; {log.damage}" if log.damage else ""
            raise unfit(self._path, f"a log that reaches step {step}", received)

    def _place(self, log: Log) -> tuple[int, int]:
        """Find where the present step's records begin; the state there must be the present one."""
        step, state = self._optimizer.global_step, checksum_of(self._models())
        end, chain, other = START_BYTES, 0, None
        for record in log.frames():
            at, found = (-1, 0) if record.kind == Kind.HEADER else record.point
            if at > step or (at == step and found == state):
                break
            other = found if at == step else None
            end, chain = record.end, record.checksum
        if other is not None:
            received = f"{state:08x}, that of the weights to go on from"
            raise unfit(self._path, f"checksum {other:08x} at step {step}", received)
        return end, chain

    # -- writing -----------------------------------------------------------------------------------

    def _models(self) -> list[_core.Model]:
        return [spec.model._core for spec in self._optimizer.marketplace]

    def _write(self, kind: Kind, body: bytes) -> None:
        models = self._models()
        at = _Point(kind, self._optimizer.global_step, checksum_of(models), self._end, self._chain)
        if self.error is not None or not self._follows(at):
            return
        end, chain, data = self._end, self._chain, b""
        if any(spec.buffers for spec in self._layout):
            statistics = point(at.step, at.state) + get_statistics(models, self._layout)
            data, chain = frame(Kind.STATISTICS, statistics, chain)
        record, chain = frame(kind, point(at.step, at.state) + body, chain)
        with self._may_end():
            _write_all(self._file, data + record)
            self._last = at
            self._end, self._chain = end + len(data + record), chain

    def _follows(self, at: "_Point") -> bool:
        """Tell whether to write a record; a step that was recorded but not taken makes way."""
        last = self._last
        if last is None or at.step > last.step or (at.step == last.step and last.kind != Kind.STEP):
            return True
        if at.step == last.step and at.state == last.state:
            self._file.truncate(last.end)
            self._file.seek(last.end)
            self._end, self._chain = last.end, last.chain
            return True
        if at.kind == Kind.MARK:  # taken but not counted, because something struck in between
            return False
        wanted = f"global_step of at least {last.step + (last.kind == Kind.STEP)}, as recorded"
        raise refusal(RuntimeError, "Recorder", wanted, at.step)

    @contextlib.contextmanager
    def _may_end(self) -> Iterator[None]:
        """Let a full disk cost the log, not the training."""
        try:
            yield
        except OSError as error:
            self.error = OSError(error.errno, error.strerror, os.fspath(self._path))
            step = self._optimizer.global_step
            self._warn(f"step {step}: the replay log ends here: {self.error}")


@dataclass(frozen=True)
class _Point:
    """A record's kind, step and state, and where in the file and the chain it begins."""

    kind: Kind
    step: int
    state: int
    end: int
    chain: int


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=8)


def _write_all(file: io.FileIO, data: bytes) -> None:
    """Write without a buffer, so that what was written is in the system's hands."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
