"""Probes shared among the actors of a Ray cluster, which may die and be replaced."""

import itertools
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from .. import _core
from .._arrays import F32, integer, refusal
from .._sharing import Minibatch
from ..optimizers import Optimizer
from ._balance import Balance
from ._evaluate import in_path_order
from ._follower import Step
from ._history import History
from ._identity import Identity, check_plan, checksum, find_difference, identify
from ._ray_connect import OP, connect, import_ray
from ._ray_exchange import Answer, Exchange, Worker
from ._ray_worker import RayWorker, Request, get_state
from ._report import Report

_FRUITLESS = 5  # workers in a row that die before they have evaluated anything


class RayCluster:
    """Trains one market with many workers: actors that each evaluate a share of every probe.

    This process and all workers run the same program, ``make_optimizer()`` once and ``step`` again
    and again; only their probes are shared. A worker that dies loses nothing: the others evaluate
    its share, and a new one takes its place at the next step, from a checkpoint and the steps that
    were taken since. The weights have the same bits as in one process, whoever dies.

    Parameters
    ----------
    make_optimizer : callable
        Makes market and optimizer, the same wherever it is called: from seeds. Plan "tree" or
        "star". Both functions are sent to the workers as Ray does, by cloudpickle.
    step : callable
        Takes one step of the optimizer that it is given, for instance
        ``lambda optimizer: optimizer.train_step(*batches(optimizer.global_step))``: data must
        follow from the step, rates too.
    workers : int
        How many.
    address : str, optional
        Of an existing Ray cluster: "host:port", "ray://host:port" or "auto". If not given, the one
        that ``ray.init`` has connected to, or a new one on this machine.
    timeout : float
        Seconds to wait for the workers to start, and for the slowest share; a worker that takes
        longer is ended and replaced.
    check_every : int
        Probes from one comparison of all workers' weights to the next.
    replay_steps : int
        Most steps that a newcomer takes again to be where the others are, from the records that
        this process keeps: four bytes a vendor and step. Beyond, it begins from a new checkpoint.
        With 0, for programs that change weights outside of the optimizer's steps, always.
    worker_options : dict, optional
        Options of the actors, such as ``{"num_gpus": 1}``; one CPU each if not given.
    bind : bool
        Whether every worker keeps to as many cores as it has threads, the next ones of its machine:
        shares come back sooner, above all where workers are no fewer than cores. Not for machines
        on which others compute too. Linux only; elsewhere workers stay free.

    Attributes
    ----------
    optimizer : Optimizer
        This process's.
    timeout : float
        As given; may be set.
    probes : int
        Probes so far.

    Raises
    ------
    ModuleNotFoundError
        Without ray.
    ConnectionError
        For an address where no Ray cluster is.
    TimeoutError
        For workers that do not start in time.
    ValueError
        For another plan.
    RuntimeError
        For a worker of another version, or whose optimizer differs; it names the worker.
    """

    def __init__(
        self,
        make_optimizer: Callable[[], Optimizer],
        step: Step,
        *,
        workers: int = 2,
        address: str | None = None,
        timeout: float = 300.0,
        check_every: int = 100,
        replay_steps: int = 1000,
        worker_options: dict[str, Any] | None = None,
        bind: bool = False,
    ) -> None:
        count = integer(workers, OP, "workers", 1)
        self.optimizer = make_optimizer()
        check_plan(self.optimizer, OP)
        steps = integer(replay_steps, OP, "replay_steps", 0)
        self._ray = import_ray()
        self._make_optimizer, self._step = make_optimizer, step
        self.timeout, self._check_every = timeout, check_every
        self._worker_options = {"num_cpus": 1} if worker_options is None else worker_options
        self._bind = bool(bind)
        self.probes = 0
        self._started = self._fruitless = 0
        self._workers: list[Worker] = []  # that follow the program
        self._newcomers: list[Worker] = []
        self._balance = Balance()
        self._generation: int | None = None  # at which newcomers were let in
        self._identity = identify(self.optimizer)
        self._history = History(self.optimizer, steps) if steps > 0 else None
        self._checkpoint: Any = None  # where the history begins, in Ray's object store
        self._owns_ray = connect(self._ray, address, count)
        self._exchange = Exchange(self._ray)
        try:
            self.add_workers(count)
            self._await_start(count)
        except BaseException:
            self.close()
            raise
        self.optimizer._sharing, self.optimizer._history = self, self._history

    # -- what the user calls -----------------------------------------------------------------------

    def step(self) -> Any:
        """Take one step; give what the program's step gives."""
        return self._step(self.optimizer)

    def add_workers(self, count: int) -> None:
        """Start more workers; they join at the step that begins when they are ready.

        Parameters
        ----------
        count : int
            How many, at least 1. The call does not wait for them.

        Raises
        ------
        TypeError, ValueError
            For another count.
        """
        for _ in range(integer(count, OP, "workers", 1)):
            self._newcomers.append(self._start())

    @property
    def bytes_sent(self) -> int:
        """Bytes of all messages to workers."""
        return self._exchange.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes of all messages from workers."""
        return self._exchange.bytes_received

    @property
    def worker_names(self) -> list[str]:
        """Who evaluates shares at present."""
        return [worker.name for worker in self._workers]

    def close(self) -> None:
        """End all workers, and the Ray cluster if it was started here."""
        self.optimizer._sharing = self.optimizer._history = None
        for worker in self._workers + self._newcomers:
            self._ray.kill(worker.actor)
        self._exchange.forget()
        self._workers, self._newcomers = [], []
        if self._owns_ray:
            self._ray.shutdown()
            self._owns_ray = False

    def __enter__(self) -> "RayCluster":
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

    # -- what the optimizer calls ------------------------------------------------------------------

    def losses(
        self, native: _core.Optimizer, minibatch: Minibatch, further: bool, between: bool
    ) -> F32:
        """Collect the losses of all shares; send them on, with the shares of the next probe."""
        if between and native.generation != self._generation:
            self._generation = native.generation
            self._let_in(native, minibatch)
        native.probe_leader(*minibatch, further)
        present = checksum(self.optimizer) if self._checks(self.probes) else 0
        losses = self._collect(native, minibatch, present)
        self.probes += 1
        self._advance(native, minibatch, losses)
        return losses

    # -- workers come and go -----------------------------------------------------------------------

    def _start(self) -> Worker:
        options = {"scheduling_strategy": "SPREAD", "max_restarts": 0} | self._worker_options
        actor = self._ray.remote(RayWorker).options(**options)
        actor = actor.remote(self._make_optimizer, self._step)
        self._started += 1
        return Worker(self._started - 1, actor, actor.hello.remote())

    def _await_start(self, count: int) -> None:
        """Wait for the first workers; with fewer than were asked for, there is no run."""
        end = time.monotonic() + self.timeout
        while not all(self._is_ready(worker) for worker in list(self._newcomers)):
            if time.monotonic() > end:
                ready = sum(self._is_ready(worker) for worker in list(self._newcomers))
                cpus = self._ray.cluster_resources().get("CPU", 0)
                received = f"{ready}; the cluster has {cpus:g} CPUs, workers need "
                received += str(self._worker_options)
                wanted = f"{count} workers within {self.timeout:g} s"
                raise refusal(TimeoutError, OP, wanted, received)
            hellos = [worker.hello for worker in self._newcomers]
            self._ray.wait(hellos, num_returns=len(hellos), timeout=0.5)

    def _is_ready(self, worker: Worker) -> bool:
        """Tell whether a newcomer has made its optimizer; one that has died is replaced."""
        if worker.place != "starting":
            return True
        if not self._ray.wait([worker.hello], timeout=0)[0]:
            return False
        try:
            hello = self._ray.get(worker.hello)
        except self._ray.exceptions.RayTaskError as error:
            raise self._worker_error("a worker that starts", worker, error) from error
        except self._ray.exceptions.RayError as error:
            self._newcomers.remove(worker)
            self._mourn(worker, error)
            return False
        worker.place, worker.node, worker.point = hello.place, hello.node, hello.point
        self._compare_identity(worker, hello.identity)
        if self._bind:
            worker.seat = self._free_seat(worker.node)
            worker.actor.keep_to_cores.remote(worker.seat)
        return True

    def _free_seat(self, node: str) -> int:
        """Give the first number that no worker of a machine has."""
        others = self._workers + self._newcomers
        taken = {worker.seat for worker in others if worker.node == node}
        return next(seat for seat in itertools.count() if seat not in taken)

    def _let_in(self, native: _core.Optimizer, minibatch: Minibatch) -> None:
        """Let newcomers follow from this step on; their shares begin with the next probe."""
        ready = [worker for worker in list(self._newcomers) if self._is_ready(worker)]
        if not ready:
            return
        bounds = [0] * (len(ready) + 1)
        if not self._workers:  # nobody has begun with this probe
            bounds = self._balance.cut(native, minibatch[0].shape[1:], ready)
        begins = self._beginnings(ready)
        for worker, begin, first, last in zip(ready, begins, bounds, bounds[1:], strict=False):
            self._newcomers.remove(worker)
            request = Request(first, last, self._checks(self.probes), None)
            self._exchange.join(worker, request, *begin)
        self._workers += ready

    def _beginnings(self, ready: list[Worker]) -> list[tuple[Any, Any]]:
        """Give what each newcomer begins from: the steps on record, and a checkpoint if needed."""
        history = self._history
        if history is None:
            return [(None, self._ray.put(get_state(self.optimizer)))] * len(ready)
        strangers = any(worker.point != history.base for worker in ready)
        if history.base is None or (strangers and self._checkpoint is None):
            history.begin_anew()
            self._checkpoint = self._ray.put(get_state(self.optimizer))
        steps = self._ray.put(history.present())
        return [
            (steps, None if worker.point == history.base else self._checkpoint) for worker in ready
        ]

    def _mourn(self, worker: Worker, cause: object) -> None:
        """Go on without a worker, and start another in its place."""
        self._fruitless += not worker.useful
        text = " ".join(str(cause).split())[:300]  # Ray's advice goes on
        if self._fruitless >= _FRUITLESS:
            wanted = "workers that live long enough to evaluate a share"
            received = (
                f"{self._fruitless} in a row that did not, the last one {worker.name}: {text}"
            )
            raise refusal(RuntimeError, OP, wanted, received)
        self._newcomers.append(self._start())
        warnings.warn(
            f"{OP}: {worker.name} is gone and will be replaced: {text}",
            RuntimeWarning,
            stacklevel=2,
        )

    # -- messages ----------------------------------------------------------------------------------

    def _advance(self, native: _core.Optimizer, minibatch: Minibatch, losses: F32) -> None:
        """Send the losses of one probe, with the shares of the next.

        So the workers take their step while this process takes its own.
        """
        if not self._workers:
            return
        bounds = self._balance.cut(native, minibatch[0].shape[1:], self._workers)
        check = self._checks(self.probes)
        for worker, first, last in zip(self._workers, bounds, bounds[1:], strict=False):
            self._exchange.link(worker, losses.size, self.timeout)
            self._exchange.ask(worker, Request(first, last, check, losses), self.timeout)

    def _checks(self, probe: int) -> bool:
        return probe % self._check_every == 0

    def _collect(self, native: _core.Optimizer, minibatch: Minibatch, present: int) -> F32:
        """Wait for all shares; those of workers that die go to the others, or to this process."""
        found: dict[int, F32] = {}  # by their first path
        missing = [] if self._exchange.pending else [(0, native.path_order.size)]
        while self._exchange.pending or missing:
            for answer in self._exchange.collect(self.timeout) if self._exchange.pending else []:
                first, last = answer.asked.first, answer.asked.last
                if answer.message is None:
                    self._lose(answer)
                    missing += [(first, last)] if last > first else []
                else:
                    losses = self._take(answer, answer.message, present)
                    found |= {first: losses} if last > first else {}
            self._ask_again(missing)
            if not self._exchange.pending:
                for first, last in missing:
                    found[first] = native.probe_share(*minibatch, first, last)
            missing = []
        return in_path_order(native, [found[first] for first in sorted(found)])

    def _lose(self, answer: Answer) -> None:
        """Go on without a worker; not if it was its program that failed."""
        worker, error = answer.asked.worker, answer.error
        if isinstance(error, self._ray.exceptions.RayTaskError):
            raise self._worker_error("losses", worker, error) from error
        cause: object = error
        if isinstance(error, self._ray.exceptions.GetTimeoutError):
            cause = f"no answer in {self.timeout:g} s"
        if worker in self._workers:
            self._workers.remove(worker)
            self._mourn(worker, cause)

    def _take(self, answer: Answer, message: bytes, present: int) -> F32:
        """Check a worker's report, and give its losses."""
        worker = answer.asked.worker
        report = Report.from_bytes(message)
        self._check(worker, report, present)
        if answer.asked.last > answer.asked.first and not worker.useful:
            worker.useful = True
            self._fruitless = 0
        self._balance.note(worker, report.seconds)
        return report.losses

    def _ask_again(self, missing: list[tuple[int, int]]) -> None:
        """Share the shares of the dead among the living, who are at the same probe."""
        check = self._checks(self.probes)
        for first, last in missing if self._workers else []:
            bounds = np.linspace(first, last, len(self._workers) + 1).astype(int).tolist()
            for worker, begin, end in zip(self._workers, bounds, bounds[1:], strict=False):
                if end > begin:
                    self._exchange.ask(worker, Request(begin, end, check, None), self.timeout)

    # -- comparisons -------------------------------------------------------------------------------

    def _check(self, worker: Worker, report: Report, present: int) -> None:
        step = self.optimizer.global_step
        if report.step != step % 2**32:
            wanted = f"every worker at step {step}, as here"
            raise refusal(RuntimeError, OP, wanted, f"step {report.step} from {worker.name}")
        if report.checksum != present:
            wanted = f"weights with checksum {present:08x} at step {step}, as here"
            received = f"{report.checksum:08x} from {worker.name}"
            raise refusal(RuntimeError, OP, wanted, received)

    def _compare_identity(self, worker: Worker, identity: Identity) -> None:
        if (difference := find_difference(self._identity, identity)) is not None:
            key, wanted, received = difference
            expected = f"{key} {wanted}, as here"
            raise refusal(RuntimeError, OP, expected, f"{received} in {worker.name}")

    def _worker_error(self, expected: str, worker: Worker, error: Any) -> RuntimeError:
        """Say what a worker's program ended with."""
        cause = getattr(error, "cause", None) or error
        received = f"{type(cause).__name__}: {cause} from {worker.name}"
        return refusal(RuntimeError, OP, expected, received)
