"""The beautiful-MNIST market learns digits (or clothes) with forward passes only.

Run as ``python -m marketplace.examples.mnist``. Images enter as raw values from 0 to 255, as
in the reference; the instance norms make up for it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from ..training import Spec
from . import _cli, _digits, _plot, _report
from ._arguments import Defaults
from ._digits import IMAGE_SHAPE, DigitOptions, load_digits
from ._interrupt import Interrupt
from ._markets import digit_structure
from ._progress import Progress
from ._run import Outcome, train
from ._setup import set_up

PROG = "python -m marketplace.examples.mnist"
DEFAULTS = Defaults(
    steps=400, batch_size=64, lr=0.1, lr_decay=0.001, probe_scale=0.01, jitter=0.005
)


def make_market(vendors: Sequence[int]) -> list[Spec]:
    """Build the beautiful-MNIST market, its initial weights drawn from `marketplace.random`.

    Parameters
    ----------
    vendors : sequence of int
        Vendors of each of the three specs.

    Returns
    -------
    list of Spec
        Images (B, 1, 28, 28) to logits (B, 10); 87,850 parameters.
    """
    return digit_structure().specs("star", tuple(vendors))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 after a bad option, with 0 after ``--help``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _digits.parse(PROG, "Train the beautiful-MNIST market.", DEFAULTS, arguments)
    try:
        return _run(options, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _cli.STATUS_INTERRUPTED
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        return _cli.fail(PROG, error)


def _run(options: DigitOptions, arguments: Sequence[str]) -> int:
    run = _prepare(options)
    if not options.quiet:
        _tell("\n".join(_report.opening_lines(run)))
    with Interrupt() as interrupt:
        progress = Progress(run.opt.global_step, options.steps, options.quiet)
        try:
            outcome = train(run.market, run.opt, run.dataset, options, progress, interrupt)
        finally:
            progress.close()
    print(_report.summary(run, outcome), flush=True)
    _write_results(run, outcome)
    return _status(options, outcome, arguments)


def _prepare(options: DigitOptions) -> _report.Run:
    """Find out whatever can fail before the training starts."""
    if options.plot is not None:
        _plot.require_matplotlib()
    dataset = load_digits(options, None if options.quiet else _tell)
    market, opt = set_up(options, DEFAULTS, options.structure)
    flops = opt.flops_per_step(
        IMAGE_SHAPE,
        options.batch_size,
        forward_pass=options.forward_pass,
        marketplace_replica=options.marketplace_replica,
    )
    return _report.Run(options, dataset, market, opt, flops)


def _write_results(run: _report.Run, outcome: Outcome) -> None:
    if run.options.json is not None:
        _report.write_json(run.options.json, run, outcome)
    if run.options.plot is not None:
        _report.write_plot(run.options.plot, run, outcome)


def _status(options: DigitOptions, outcome: Outcome, arguments: Sequence[str]) -> int:
    if outcome.checkpoint_error is not None:
        return _cli.fail(PROG, outcome.checkpoint_error)
    if not outcome.interrupted:
        return _cli.STATUS_OK
    if options.checkpoint is not None and not options.quiet:
        # A later --resume overrules an earlier one, so the whole line can be kept.
        again = shlex.join([*arguments, "--resume", str(options.checkpoint)])
        _tell(f"to go on: {PROG} {again}")
    return _cli.STATUS_INTERRUPTED


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
