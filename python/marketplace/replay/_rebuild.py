"""From a checkpoint and a log to the weights of any step."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import integer, refusal
from .._disk import FilePath, same_file
from ..checkpoint import OPTIMIZER_PREFIX, STEP_KEY, Tensors, read_file, write_file
from ._format import Damage, Frame, Kind
from ._header import Header, blank_model, checksum_of, set_statistics
from ._log import Log, read, unfit
from ._steps import StepTaker


def rebuild(
    log: FilePath, step: int, checkpoint: FilePath | None = None, *, threads: int | None = None
) -> dict[str, NDArray[Any]]:
    """Rebuild a market's arrays as they were after ``step`` steps, to the bit.

    The steps between the checkpoint and ``step`` are taken again:
    ``W += lr g / |g|``, ``g = sum_v c_v delta_v``, with deltas from their seeds. No data and no
    forward pass is needed.

    Parameters
    ----------
    log : path-like
        A file that ``Recorder`` wrote.
    step : int
        How many steps; from the checkpoint's to the log's ``last_step``.
    checkpoint : path-like, optional
        Any checkpoint of the run up to ``step``; the one that the log began from if not given.
    threads : int, optional
        Threads; all if not given. The result does not depend on it.

    Returns
    -------
    dict of str to ndarray
        What a checkpoint holds: ``spec.{i}.{key}`` and ``global_step``.

    Raises
    ------
    FileNotFoundError, OSError
        For files that are missing or cannot be read.
    TypeError
        For a step that is no integer.
    ValueError
        For a log that is damaged before ``step``, ends before it, or does not fit its checkpoint;
        or for running statistics that it does not have.
    """
    return _rebuild(read(log), step, checkpoint, threads)


def _rebuild(
    found: Log, step: int, checkpoint: FilePath | None, threads: int | None
) -> dict[str, NDArray[Any]]:
    wanted = integer(step, "replay", "step", 0)
    start = found.checkpoint if checkpoint is None else Path(checkpoint)
    begin = _read_checkpoint(found, start)
    _check_range(found, wanted, begin.step)
    count = 0 if threads is None else integer(threads, "replay", "threads", 1)
    market = _Replica(found.header, begin, count)
    try:
        _Run(found, market, start, begin.step, wanted).go()
    except Damage as error:
        raise unfit(found.path, "records of this version", error) from error
    return market.tensors(begin.tensors) | {STEP_KEY: np.array(wanted, dtype=np.int64)}


def write(
    log: FilePath,
    step: int,
    path: FilePath,
    checkpoint: FilePath | None = None,
    *,
    threads: int | None = None,
) -> None:
    """Rebuild the arrays of one step and write them as a checkpoint.

    Parameters
    ----------
    log, step, checkpoint, threads
        As for ``rebuild``.
    path : path-like
        Safetensors file to write or replace; the same bytes as ``write_checkpoint`` at that step.

    Raises
    ------
    FileNotFoundError, OSError, TypeError, ValueError
        As ``rebuild``, and for a file that cannot be written, or that the log needs: the log itself
        or a checkpoint to begin from.
    """
    found = read(log)
    _check_output(found, path, checkpoint)
    write_file(path, _rebuild(found, step, checkpoint, threads))


def _check_output(log: Log, path: FilePath, checkpoint: FilePath | None) -> None:
    """Refuse to replace what the weights are rebuilt from."""
    needed = {"the log": log.path, "the checkpoint that the log began from": log.checkpoint}
    if checkpoint is not None:
        needed |= {"the checkpoint to begin from": Path(checkpoint)}
    for name, file in needed.items():
        if same_file(path, file):
            raise refusal(ValueError, "replay", f"an output other than {name}", os.fspath(path))


class _Replica:
    """The market's arrays with an engine that can update them; its layers are not needed."""

    def __init__(self, header: Header, checkpoint: "_Checkpoint", threads: int) -> None:
        self._header = header
        self.models = [blank_model(spec) for spec in header.specs]
        for index, model in enumerate(self.models):
            for key in model.keys:
                values = checkpoint.tensors[f"spec.{index}.{key}"]
                model.set(key, np.asarray(values, dtype=np.float32))
        self._market = _core.Market(_core.Engine("cpu", "float32", threads), self.models)
        self._native = _core.Optimizer(
            self._market,
            header.vendor_counts,
            [0] * len(self.models),
            plan=str(header.rule["plan"]),
            learning_rate=0.0,
            probe_scale=None,
            meta_learning_rate=None,
            seed=header.seed,
            seeds=None,
            control_variate=False,
            update=str(header.rule["update"]),
            momentum=float(header.rule["momentum"]),
            shaping="z",  # coefficients are on record
            antithetic=header.antithetic,
        )
        if checkpoint.state is not None:
            self._native.load_state(checkpoint.state)
        sizes = [spec.size for spec in header.specs]
        self._steps = StepTaker(self._market, self._native, header.vendor_counts, sizes)

    def apply(self, record: Frame) -> None:
        """Take the update of a STEP or UPDATE record again."""
        self._steps.take(record.body)

    def tensors(self, template: Tensors) -> Tensors:
        """Give the arrays as a checkpoint names them; counters stay integers."""
        return {name: self._tensor(name, template[name].dtype) for name in self._header.shapes}

    def _tensor(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        _, spec, key = name.split(".", 2)
        values = self.models[int(spec)].get(key).reshape(self._header.shapes[name])
        return values.astype(dtype) if dtype.kind in "iu" else values


@dataclass
class _Run:
    """One way through the log, from the checkpoint's step to the wanted one."""

    log: Log
    market: _Replica
    checkpoint: Path
    first: int
    wanted: int

    def go(self) -> None:
        statistics = self.first
        for record in self.log.records():
            step, state = record.point
            if step < self.first:
                continue
            if record.kind == Kind.STATISTICS:
                set_statistics(self.market.models, self.log.header.specs, record.body)
                statistics = step
                continue
            self._verify(step, state)
            if record.kind != Kind.MARK:
                if step >= self.wanted:
                    break
                self.market.apply(record)
        if statistics < self.wanted and any(spec.buffers for spec in self.log.header.specs):
            raise unfit(
                self.log.path,
                f"the running statistics of step {self.wanted}",
                f"those up to step {statistics}: it was not closed",
            )

    def _verify(self, step: int, state: int) -> None:
        """Refuse a state that is not the one that a record was written at."""
        actual = checksum_of(self.market.models)
        if actual == state:
            return
        wanted, received = f"checksum {state:08x} at step {step}", f"{actual:08x}"
        if step == self.first:
            raise unfit(self.log.path, wanted, f"{received}, that of {self.checkpoint}")
        reason = "the weights changed between the steps, or the device rounded in another way"
        raise unfit(self.log.path, wanted, f"{received}: {reason}")


@dataclass(frozen=True)
class _Checkpoint:
    """Where to begin: arrays, step, and the optimizer's state where the update rule has one."""

    tensors: Tensors
    step: int
    state: dict[str, Any] | None


def _read_checkpoint(log: Log, path: Path) -> _Checkpoint:
    """Read a checkpoint, refusing one of another market, or without what the rule needs."""
    tensors, metadata = read_file(path)
    shapes = {name: list(value.shape) for name, value in tensors.items()}
    for name, shape in log.header.shapes.items():
        if shapes.get(name) != shape:
            received = f"{shapes.get(name, 'none')} in {path}"
            raise unfit(log.path, f"a checkpoint with {name} of shape {shape}", received)
    found = tensors.get(STEP_KEY)
    if found is None or found.dtype.kind not in "iu" or found.size != 1:
        raise unfit(log.path, f"a checkpoint with an integer {STEP_KEY}", path)
    state = None
    if log.header.rule["update"] != "unit":
        state = _optimizer_state(log, path, tensors, metadata)
    return _Checkpoint(tensors, int(found), state)


def _optimizer_state(
    log: Log, path: Path, tensors: Tensors, metadata: dict[str, str]
) -> dict[str, Any]:
    """Give the state of a momentum or Adam, which the steps before the checkpoint have made."""
    try:
        plain = dict(json.loads(metadata["optimizer"])["state"])
    except (KeyError, ValueError, TypeError) as error:
        wanted = f"a file of Optimizer.save, for update {log.header.rule['update']!r}"
        raise unfit(log.path, wanted, f"{path} without an optimizer") from error
    arrays = {
        name.removeprefix(OPTIMIZER_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(OPTIMIZER_PREFIX)
    }
    return plain | arrays


def _check_range(log: Log, wanted: int, first: int) -> None:
    if not log.first_step <= first <= log.last_step:
        received = f"one of step {first}"
        span = f"steps {log.first_step} to {log.last_step}"
        raise unfit(log.path, f"a checkpoint of {span}", received)
    if not first <= wanted <= log.last_step:
        end = f"step {wanted}" + (f"; {log.damage}" if log.damage else "")
        raise unfit(log.path, f"a step from {first} to {log.last_step}", end)
