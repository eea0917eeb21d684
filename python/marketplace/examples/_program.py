"""The way of an example from its options to its results, which all of them share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..data import Dataset
from . import _cli, _distributed, _plot, _report
from ._arguments import Defaults
from ._cli import Options
from ._interrupt import Interrupt
from ._markets import Structure
from ._run import Outcome, train
from ._watching import Watching, settings_of

Given = TypeVar("Given", bound=Options)
Report = Callable[[str], None]


def run(
    prog: str,
    options: Given,
    defaults: Defaults,
    arguments: Sequence[str],
    load: Callable[[Given, Report | None], Dataset],
    make_structure: Callable[[Given, Dataset], Structure],
) -> int:
    """Load, train and report; turn every error into one line and a status.

    Parameters
    ----------
    prog : str
        The command, as shown in messages.
    options : Options
        The command line.
    defaults : Defaults
        The example's defaults.
    arguments : sequence of str
        The command line's words, to be shown when it can go on.
    load : callable
        Options, and what may be told of one line of text, to a data set.
    make_structure : callable
        Options and data set to the market's structure.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        with _distributed.guarded(options):
            options = _distributed.own_part(options)
            job = _distributed.Job(options, defaults, load, make_structure)
            outcome = _run(job)
            return _status(prog, options, outcome, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _cli.STATUS_INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError, ImportError) as error:
        return _cli.fail(prog, error)


def _run(job: _distributed.Job) -> Outcome:
    """Find out whatever can fail before the training starts; then train."""
    options = job.options
    if options.plot is not None:
        _plot.require_matplotlib()
    dataset = job.load(options, None if options.quiet else _tell)
    with _distributed.optimizer_of(job, dataset) as opt:
        flops = opt.flops_per_step(
            dataset.x_train.shape[1:],
            options.batch_size,
            forward_pass=options.forward_pass,
            marketplace_replica=options.marketplace_replica,
        )
        return _train(_report.Run(options, dataset, opt.marketplace, opt, flops))


def _train(work: _report.Run) -> Outcome:
    options = work.options
    settings = settings_of(work.opt, options)
    watching = Watching(work.opt, options, work.flops_per_step, settings)
    if not options.quiet:
        _tell("\n".join(_report.opening_lines(work)))
    with Interrupt(_distributed.stop_signals(options)) as interrupt:
        outcome = train(work.market, work.opt, work.dataset, options, watching, interrupt)
        if _distributed.speaks(options):
            print(_report.summary(work, outcome), flush=True)
        _write_results(work, outcome)
    return outcome


def _write_results(work: _report.Run, outcome: Outcome) -> None:
    if work.options.json is not None:
        _report.write_json(work.options.json, work, outcome)
    if work.options.plot is not None:
        _report.write_plot(work.options.plot, work, outcome)


def _status(prog: str, options: Options, outcome: Outcome, arguments: Sequence[str]) -> int:
    failure = next(iter(outcome.log_errors), outcome.checkpoint_error)
    if failure is not None:
        return _cli.fail(prog, failure)
    if outcome.signum and options.checkpoint is not None and not options.quiet:
        # A later --resume overrules an earlier one, so the whole line can be kept.
        again = shlex.join([*arguments, "--resume", str(options.checkpoint)])
        _tell(f"to go on: {prog} {again}")
    return _cli.stop_status(outcome.signum)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
