"""The command line of ``python -m benchmarks.learning``."""

import argparse
import pathlib
from typing import Any

from benchmarks import harness
from benchmarks.learning.methods import BY_NAME, Method, choose

DEFAULT_OUT = harness.RESULTS / "learning"
SCHEDULES = ("cosine", "constant", "distance")  # distance: of ours, with the update "unit"
QUICK = {"batch": 8, "population": 4}

DESCRIPTION = """\
Train one network with several methods from the same first weights, on the same batches.

Every finished run is kept in PREFIX.json at once; the same command goes on where it stopped, and
other commands with the same --out add their runs. PREFIX.txt and PREFIX.png are drawn from all of
them. The directory that MARKETPLACE_DATA names holds the full data."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_runs(parser)
    _add_output(parser)
    options = parser.parse_args(arguments)
    for name in ("seeds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected at least 1, received {getattr(options, name)}")
    if options.eval_every is not None and options.eval_every < 1:
        parser.error(f"--eval-every: expected at least 1, received {options.eval_every}")
    try:
        options.steps_of = _steps(options.steps)
        options.changes = _changes(options.changes)
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        _make_quick(options)
    options.out = options.out or (None if options.quick else DEFAULT_OUT)
    return options


def _add_runs(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(BY_NAME)
    parser.add_argument(
        "--methods", metavar="NAMES", help=f"with commas; default all; of {names}; the control "
        "always runs beside",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--first-seed", type=int, default=42, metavar="N", help="default 42")
    parser.add_argument(
        "--steps", metavar="N|NAME=N,...", help="of all methods, or of some; default: their own"
    )
    parser.add_argument(
        "--tflop", type=_positive, metavar="X", help="as many steps as this work allows; --steps "
        "goes before it",
    )  # fmt: skip
    parser.add_argument("--data", choices=("full", "bundled"), default="full")
    parser.add_argument(
        "--eval-every", type=int, metavar="N", help="steps between evaluations on all test "
        "images; default a 25th of the run",
    )  # fmt: skip
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="NAME.KEY=VALUE",
        help="change a method's setting, such as star.vendors=8,40,512 or sgd.lr=0.02",
    )  # fmt: skip
    parser.add_argument(
        "--grid-tflop", type=_positive, default=5.0, metavar="X",
        help="the most work of one run of a grid that chooses settings; default %(default)g",
    )  # fmt: skip
    parser.add_argument("--no-grid", action="store_true", help="keep the settings as registered")
    parser.add_argument("--threads", type=int, default=harness.usable_cores(), metavar="N")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="PREFIX", help="default benchmarks/results/learning"
    )
    parser.add_argument(
        "--pace", action="store_true", help="no runs: time some steps of each method and setting "
        "that PREFIX.json has runs of; their seconds follow from it. For an idle machine",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="only draw what is kept; no runs")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")


def _make_quick(options: argparse.Namespace) -> None:
    options.data, options.seeds, options.eval_every = "bundled", 1, 1
    options.steps_of = {name: 2 for name in BY_NAME}


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, received {text}")
    return value


def _steps(text: str | None) -> dict[str, int]:
    """Read steps by method."""
    if text is None:
        return {}
    items = [item.partition("=") for item in text.split(",")]
    if len(items) == 1 and not items[0][1]:
        return {name: _whole("--steps", text) for name in BY_NAME}
    for name, _, _ in items:
        _method("--steps", name)
    return {name: _whole("--steps", count) for name, _, count in items}


def _whole(option: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{option}: expected a whole number of at least 1, received {text!r}")
    return int(text)


def _method(option: str, name: str) -> Method:
    if name not in BY_NAME:
        raise ValueError(f"{option}: expected one of {', '.join(BY_NAME)}, received {name!r}")
    return BY_NAME[name]


# -- settings --------------------------------------------------------------------------------------


def _changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    """Read changed settings by method."""
    changed: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        name, _, key = place.partition(".")
        if not equals or not key:
            raise ValueError(f"--set: expected NAME.KEY=VALUE, received {text!r}")
        method = _method("--set", name)
        if key not in method.settings:
            known = ", ".join(method.settings)
            raise ValueError(f"--set: expected a setting of {name} ({known}), received {key!r}")
        if value == "distance" and method.settings.get("update") != "unit":
            raise ValueError(f"--set: expected a method with update unit, received {text!r}")
        changed.setdefault(name, {})[key] = _like(method.settings[key], text, value)
    return changed


def _like(default: Any, text: str, value: str) -> Any:
    """Read a value as one of the default's type."""
    try:
        if isinstance(default, tuple):
            return tuple(int(item) for item in value.split(","))
        parsed = type(default)(value)
    except ValueError as error:
        raise ValueError(f"--set: expected a value like {default}, received {text!r}") from error
    if default in SCHEDULES and value not in SCHEDULES:
        raise ValueError(f"--set: expected one of {', '.join(SCHEDULES)}, received {text!r}")
    if isinstance(parsed, int | float) and not 0 < parsed < float("inf"):
        raise ValueError(f"--set: expected a number above 0, received {text!r}")
    if ".population=" in text and parsed % 2:
        raise ValueError(f"--set: expected an even population, of pairs, received {text!r}")
    return parsed


def chosen(options: argparse.Namespace) -> list[Method]:
    """Give the methods that were asked for, with their changed settings."""
    found = [m.with_settings(options.changes.get(m.name, {})) for m in choose(options.methods)]
    if not options.quick:
        return found
    return [
        m.with_settings({key: value for key, value in QUICK.items() if key in m.settings})
        for m in found
    ]
