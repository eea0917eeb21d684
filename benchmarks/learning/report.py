"""What the runs say: work, time and steps to each accuracy, mean and spread over the seeds."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.learning.methods import BY_NAME, CONTROL
from benchmarks.learning.network import CONVENTION
from benchmarks.learning.train import GRID, RUN, Record

THRESHOLDS = (94, 96, 97, 98)  # percent
GOALS = {94: 8.0, 96: 17.0, 97: 40.0}  # TFLOP
COST_FORMATS: dict[str, Callable[[float], str]] = {
    "tflop": lambda value: f"{value:.2f}" if value < 10 else f"{value:.1f}",
    "seconds": lambda value: f"{value:.1f}",
    "step": lambda value: f"{value:.0f}",
}
COST_NAMES = {"tflop": "TFLOP", "seconds": "seconds of training", "step": "steps"}
CELL = 21


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of one method with one choice of settings, by seed."""

    method: str
    settings: Record
    steps: int
    runs: list[Record]
    title: str

    def choices(self) -> Record:
        """Give all that may tell it from other runs of the method."""
        first = self.runs[0]
        return {
            **self.settings, "steps": self.steps,
            "eval_every": first["eval_every"], "data": first["data"],
        }  # fmt: skip

    def finals(self) -> list[float]:
        """Give the final accuracies."""
        return [run["final_accuracy"] for run in self.runs]

    def costs_to(self, threshold: float, cost: str) -> list[float]:
        """Give what it took each seed to be measured at or above an accuracy; some may not be."""
        found = (first_at(run, threshold) for run in self.runs)
        return [point[cost] for point in found if point is not None]


def first_at(run: Record, threshold: float) -> Record | None:
    """Find the first evaluation at or above an accuracy."""
    points: list[Record] = run["curve"]
    return next((point for point in points if point["test_accuracy"] >= threshold), None)


def groups(runs: Sequence[Record], kind: str = RUN) -> list[Group]:
    """Group runs that differ in their seed alone; the control first, then as registered."""
    found: dict[str, Group] = {}
    for run in runs:
        if run["kind"] != kind:
            continue
        fields = ("method", "settings", "steps", "eval_every", "data")
        key = json.dumps([run[field] for field in fields], sort_keys=True)
        empty = Group(run["method"], run["settings"], run["steps"], [], _title(run))
        found.setdefault(key, empty).runs.append(run)
    places = {name: place for place, name in enumerate(BY_NAME)}
    ordered = sorted(found.values(), key=lambda group: places.get(group.method, len(places)))
    return [_distinct(group, ordered) for group in ordered]


def shown(value: Any) -> str:
    """Give a setting as text."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _title(run: Record) -> str:
    """Name a method's runs in a table."""
    settings = run["settings"]
    if "vendors" in settings:
        return f"{run['method']} {shown(settings['vendors'])}"
    if "population" in settings:
        return f"{run['method']} {settings['population']} members"
    return f"{run['method']} lr {settings['lr']:g}"


def _distinct(group: Group, others: Sequence[Group]) -> Group:
    """Add to a title what tells its group from others with the same one."""
    alike = [other.choices() for other in others if other.title == group.title]
    own = group.choices()
    differing = [key for key in own if any(other.get(key) != own[key] for other in alike)]
    more = "".join(f", {key} {shown(own[key])}" for key in differing)
    return dataclasses.replace(group, title=group.title + more)


# -- text ------------------------------------------------------------------------------------------


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Give mean and sample standard deviation."""
    if not values:
        return "-"
    mean = show(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {show(statistics.stdev(values))}"


def _cell(group: Group, threshold: float, cost: str) -> str:
    values = group.costs_to(threshold, cost)
    some = f" ({len(values)}/{len(group.runs)})" if 0 < len(values) < len(group.runs) else ""
    return spread(values, COST_FORMATS[cost]) + some


def _goal(threshold: int) -> str:
    return f"goal <= {GOALS[threshold]:g}" if threshold in GOALS else "-"


def _name_width(found: Sequence[Group]) -> int:
    return 2 + max(36, *(len(group.title) for group in found))


def cost_table(found: Sequence[Group], cost: str) -> list[str]:
    """Give what each method took to each accuracy."""
    width = _name_width(found)
    heads = "".join(f"{f'{threshold} %':>{CELL}}" for threshold in THRESHOLDS)
    lines = [f"{COST_NAMES[cost]} to test accuracy".ljust(width) + heads]
    if cost == "tflop":
        goals = "".join(f"{_goal(threshold):>{CELL}}" for threshold in THRESHOLDS)
        lines.append("goal of ours".ljust(width) + goals)
    for group in found:
        cells = "".join(f"{_cell(group, level, cost):>{CELL}}" for level in THRESHOLDS)
        lines.append(group.title.ljust(width) + cells)
    return lines


def final_table(found: Sequence[Group]) -> list[str]:
    """Give where each method ended, and how far above the control."""
    control = [value for group in found if group.method == CONTROL for value in group.finals()]
    base = statistics.fmean(control) if control else None
    width = _name_width(found)
    lines = [
        "at the end".ljust(width) + f"{'test accuracy, %':>{CELL}}{'above control':>15}{'seeds':>7}"
        f"{'steps':>8}{'GFLOP/step':>12}{'TFLOP':>9}{'seconds':>18}{'load':>7}"
    ]
    for group in found:
        finals, first = group.finals(), group.runs[0]
        above = "-" if base is None else f"{statistics.fmean(finals) - base:+.2f}"
        seconds = spread([r["curve"][-1]["seconds"] for r in group.runs], COST_FORMATS["seconds"])
        load = max(max(r["load_average_before"][0], r["load_average_after"][0]) for r in group.runs)
        lines.append(
            group.title.ljust(width) + f"{spread(finals, '{:.2f}'.format):>{CELL}}{above:>15}"
            f"{len(finals):>7}{group.steps:>8}{first['flops_per_step'] / 1e9:>12.2f}"
            f"{group.steps * first['flops_per_step'] / 1e12:>9.2f}{seconds:>18}{load:>7.1f}"
        )
    return lines


def grid_lines(runs: Sequence[Record]) -> list[str]:
    """Give every grid's outcome, the best first."""
    lines = []
    found = groups(runs, GRID)
    for name in dict.fromkeys(group.method for group in found):
        mine = [group for group in found if group.method == name]
        varied = [k for k in mine[0].settings if len({str(g.settings[k]) for g in mine}) > 1]
        mine.sort(key=lambda group: -statistics.fmean(group.finals()))
        outcomes = "; ".join(
            ", ".join(f"{key} {group.settings[key]:g}" for key in varied)
            + f": {statistics.fmean(group.finals()):.2f} %"
            for group in mine
        )
        seeds = sorted({run["seed"] for group in mine for run in group.runs})
        about = f"{mine[0].steps} steps, seed {','.join(map(str, seeds))}"
        lines.append(f"grid of {name} ({about}), final test accuracy: {outcomes}")
    return lines


def about_settings(found: Sequence[Group]) -> list[str]:
    """Spell out every row's settings."""
    lines = []
    for group in found:
        every = ", ".join(f"{key} {shown(value)}" for key, value in group.settings.items())
        lines.append(f"{group.title}: {group.runs[0]['label']}; {every}")
    return lines


def text(runs: Sequence[Record]) -> str:
    """Give all tables."""
    found = groups(runs)
    if not found:
        return "no runs yet"
    blocks = [cost_table(found, cost) for cost in COST_NAMES]
    data = "; ".join(dict.fromkeys(f"{r['data']}, {r['test_images']} test images" for r in runs))
    notes = [
        f"data: {data}. Mean ± sample standard deviation over the seeds; (n/m): n of m seeds got "
        "there. A threshold counts as met at the first evaluation at or above it.",
        CONVENTION,
        "Seconds: training steps alone, without evaluations: steps times the median of one where "
        "--pace measured it, else as they passed. Load: the highest 1-minute load average of the "
        "machine around what was timed; seconds mean little above its cores' share.",
        "A grid is judged on the same test images as the runs, with a seed of its own.",
    ]
    parts = [final_table(found), *blocks, grid_lines(runs), about_settings(found), notes]
    return "\n\n".join("\n".join(part) for part in parts if part)
