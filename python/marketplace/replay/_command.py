"""``python -m marketplace replay``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .._arrays import refusal
from ._log import Log, read
from ._rebuild import write


def add_to(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = commands.add_parser(
        "replay",
        help="rebuild the weights of any step of a run",
        description="Rebuild the weights that a run had after N steps, bit for bit, from its "
        "replay log and a checkpoint. Without --step and --out, print what the log is.",
        allow_abbrev=False,
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="what --replay-log wrote")
    parser.add_argument("--step", type=int, metavar="N", help="after how many steps")
    parser.add_argument("--out", type=Path, metavar="FILE", help="checkpoint to write or replace")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="any checkpoint of the run up to step N (default: the one the log began from, "
        "LOG.safetensors)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: one per core)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if (options.step is None) != (options.out is None):
        raise refusal(ValueError, "replay", "--step and --out together", "one of them")
    log = read(options.log)
    if log.damage is not None:
        text = f"{log.damage}; steps {log.first_step} to {log.last_step} are whole"
        print(f"marketplace replay: {log.path}: {text}", file=sys.stderr)
    if options.step is None:
        print(json.dumps(_description(log), indent=2))
        return
    write(log.path, options.step, options.out, options.checkpoint, threads=options.threads)


def _description(log: Log) -> dict[str, Any]:
    return {
        "first_step": log.first_step,
        "last_step": log.last_step,
        "damage": log.damage,
        "bytes": log.path.stat().st_size,
        "checkpoint": str(log.checkpoint),
        "seed": log.header.seed,
        "vendors": log.header.vendor_counts,
        "parameters": sum(spec.size for spec in log.header.specs),
        **log.header.rule,
        **log.header.about,
    }
