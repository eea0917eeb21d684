"""From a command line to a finished run, for the examples of continual learning."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import _cli, _plot
from ._continual import count_flops, learn, make_learner, set_up
from ._continual_cli import Defaults, Options, parse
from ._continual_report import Run, opening_lines, summary, write_json, write_plot
from ._interrupt import Interrupt
from ._replay import ReplayFile
from ._stream import Task
from ._watching import Watching

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
        return _run(prog, options, load_task)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _cli.STATUS_INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        return _cli.fail(prog, error)


def _run(prog: str, options: Options, load_task: LoadTask) -> int:
    tell = _say_nothing if options.quiet else _tell
    if options.plot is not None:
        _plot.require_matplotlib()
    task = load_task(options, tell)
    with contextlib.ExitStack() as files:
        replay = None
        if options.replay is not None:
            replay = files.enter_context(ReplayFile(options.replay))
        market, opt = set_up(options, task, tell)
        learner = make_learner(opt, task, options)
        run = Run(options, task, market, opt, count_flops(opt, learner, options.batch_size))
        watching = Watching(opt, options, run.flops_per_step, _settings(run), shown=False)
        tell("\n".join(opening_lines(run)))
        interrupt = files.enter_context(Interrupt())
        with watching:
            outcome = learn(market, learner, task, options, replay, interrupt, tell, watching.watch)
        print(summary(run, outcome), flush=True)
        if options.json is not None:
            write_json(options.json, run, outcome)
        if options.plot is not None:
            write_plot(options.plot, run, outcome)
    failure = next(iter(watching.errors), outcome.checkpoint_error)
    if failure is not None:
        return _cli.fail(prog, failure)
    return _cli.stop_status(outcome.signum)


def _settings(run: Run) -> dict[str, Any]:
    """Collect the settings under the names that the reference logs, and ours."""
    options = run.options
    return {
        "step_count": options.steps,
        "batch_size": options.batch_size,
        "vendor_count": ",".join(map(str, run.vendors)),
        "forward_pass": 1,
        "lr": options.lr,
        "lr_decay_rate": options.lr_decay,
        "target_new_classes": run.task.new_class,
        "balance_labels": options.balance_labels,
        "augment_old": options.augment in ("old", "both"),
        "augment_new": options.augment in ("new", "both"),
        "probe_scale": options.probe_scale,
        "metrics_per_steps": options.eval_every,
        "manual_seed": options.seed,
        "new_per_batch": options.new_per_batch,
        "new_class_weight": options.new_class_weight,
        "control_variate": options.control_variate,
        "device": run.opt.device,
        "dtype": run.opt.dtype,
    }


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_nothing(line: str) -> None:
    del line
