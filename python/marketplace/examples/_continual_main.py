"""From a command line to a finished run, for the examples of continual learning."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from . import _cli, _plot
from ._continual import count_flops, learn, make_learner, set_up
from ._continual_cli import Defaults, Options, parse
from ._continual_report import Run, opening_lines, summary, write_json, write_plot
from ._interrupt import Interrupt
from ._replay import ReplayFile
from ._stream import Task
from .mnist import make_market

LoadTask = Callable[[Options, Callable[[str], None]], Task]


def main(
    prog: str,
    description: str,
    defaults: Defaults,
    load_task: LoadTask,
    argv: Sequence[str] | None,
) -> int:
    """Run an example; see its own ``main``."""
    options = parse(prog, description, defaults, argv)
    try:
        return _run(options, load_task)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _cli.STATUS_INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        return _cli.fail(prog, error)


def _run(options: Options, load_task: LoadTask) -> int:
    tell = _say_nothing if options.quiet else _tell
    if options.plot is not None:
        _plot.require_matplotlib()
    task = load_task(options, tell)
    with contextlib.ExitStack() as files:
        replay = None
        if options.replay is not None:
            replay = files.enter_context(ReplayFile(options.replay))
        market, opt = set_up(options, task, make_market, tell)
        learner = make_learner(opt, task, options)
        run = Run(options, task, market, opt, count_flops(opt, learner, options.batch_size))
        tell("\n".join(opening_lines(run)))
        with Interrupt() as interrupt:
            outcome = learn(market, learner, task, options, replay, interrupt, tell)
    print(summary(run, outcome), flush=True)
    if options.checkpoint is not None:
        opt.save(options.checkpoint)
    if options.json is not None:
        write_json(options.json, run, outcome)
    if options.plot is not None:
        write_plot(options.plot, run, outcome)
    return _cli.STATUS_INTERRUPTED if outcome.interrupted else _cli.STATUS_OK


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_nothing(line: str) -> None:
    del line
