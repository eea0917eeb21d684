"""Run the comparison; see ``options.DESCRIPTION``."""

import argparse
import dataclasses
import sys
from typing import Any

from benchmarks import contenders, harness
from benchmarks.learning import options as command_line
from benchmarks.learning import pace, picture, report
from benchmarks.learning.methods import Method, without_stand_ins
from benchmarks.learning.network import Judge
from benchmarks.learning.store import Store
from benchmarks.learning.train import GRID, RUN, Record, Task, run

GRID_SEED = 1_000_003  # apart from the runs' own
POINTS = 25  # evaluations of a run unless told otherwise; each answers all test images
QUICK_TEST_IMAGES = 200


class Comparison:
    """The runs of one invocation."""

    def __init__(self, options: argparse.Namespace, store: Store) -> None:
        from marketplace import data

        self.options, self.store = options, store
        try:
            self.data = data.load("mnist", options.data)
        except (ValueError, OSError) as error:
            raise SystemExit(f"--data: {error}") from error
        few = slice(QUICK_TEST_IMAGES) if options.quick else slice(None)
        self.judge = Judge(self.data.x_test[few], self.data.y_test[few])

    def run_all(self, methods: list[Method]) -> None:
        """Find every grid's best settings, then run all methods, seed by seed."""
        tuned = [self.tune(method) for method in methods]
        for seed in range(self.options.seeds):
            for method in tuned:
                self.do(self.task(method, self.options.first_seed + seed))

    def measure_paces(self, methods: list[Method]) -> None:
        """Time some steps of all that the file has of these methods."""
        names = {method.name for method in methods}
        runs = [r for r in self.store.runs if r["kind"] == RUN and r["method"] in names]
        for method in pace.methods_of(runs):
            found = pace.measure(method, self.data, self.options.threads)
            self.store.replace(found)
            print(f"{method.name:<14} {found['seconds_per_step'] * 1e3:9.2f} ms a step", flush=True)

    def tune(self, method: Method) -> Method:
        """Run a method's grid; give it with the settings that ended best."""
        if self.options.no_grid or not method.grid:
            return method
        best: tuple[float, Method] | None = None
        for point in method.grid:
            candidate = dataclasses.replace(method, settings={**method.settings, **point})
            result = self.do(self.task(candidate, GRID_SEED, GRID))
            if best is None or result["final_accuracy"] > best[0]:
                best = result["final_accuracy"], candidate
        assert best is not None
        return best[1]

    def task(self, method: Method, seed: int, kind: str = "run") -> Task:
        """Say how long a method runs and how often it is measured."""
        try:
            flops = method.module.flops_per_step(method.settings)
        except ValueError as error:  # before anything has run
            raise SystemExit(f"--set: {method.name}: {error}") from error
        steps = self.options.steps_of.get(method.name, method.steps)
        if self.options.tflop and method.name not in self.options.steps_of:
            steps = max(1, round(self.options.tflop * 1e12 / flops))
        every = self.options.eval_every or max(1, steps // POINTS)
        if kind == GRID:
            steps = min(steps, max(1, int(self.options.grid_tflop * 1e12 / flops)))
            every = steps  # only the end counts
        return Task(method, seed, steps, every, self.data.name, kind)

    def do(self, task: Task) -> Record:
        """Give a run's record, from the file if it was done before."""
        done = self.store.find(task)
        if done is None:
            done = run(task, self.data, self.judge, self.options.threads)
            self.store.add(done)
            _say(task, done, "")
        else:
            _say(task, done, " (kept)")
        return done


def _say(task: Task, done: Record, how: str) -> None:
    last = done["curve"][-1]
    settings = task.method.settings
    setting = " ".join(f"{key} {settings[key]:g}" for key in ("lr", "sigma") if key in settings)
    print(
        f"{task.method.name:<14} {task.kind:<5} {setting:<20} seed {task.seed:<8} "
        f"{done['final_accuracy']:6.2f} % after {last['step']} steps, {last['tflop']:.2f} TFLOP, "
        f"{last['seconds']:.1f} s{how}",
        flush=True,
    )


def finish(options: argparse.Namespace, store: Store, heading: str, notes: dict[str, str]) -> None:
    """Print the tables; keep them and the picture."""
    absent = [f"left out: {name}: {why}" for name, why in notes.items()]
    runs = pace.apply(store.runs)
    printed = "\n\n".join(filter(None, [heading, report.text(runs), "\n".join(absent)]))
    print(f"\n{printed}")
    if options.out is not None:
        store.write({"notes": notes, "goals_tflop": report.GOALS})
        options.out.with_name(options.out.name + ".txt").write_text(printed.rstrip() + "\n")
        picture.plot(runs, options.out.with_name(options.out.name + ".png"))


def main(arguments: list[str]) -> int:
    """Run what is missing, then report on all that the file holds; 130 after Ctrl-C."""
    options = command_line.parse(arguments)
    asked = command_line.chosen(options)
    harness.limit_threads(options.threads)
    made: dict[str, Any] = harness.record("learning", arguments)
    path = options.out and options.out.with_name(options.out.name + ".json")
    store = Store(path, made)
    notes: dict[str, str] = {}
    status = 0
    if not options.report:
        here, notes = contenders.load(asked, options.threads)  # type: ignore[type-var, arg-type]
        try:
            comparison = Comparison(options, store)
            methods = without_stand_ins(here, options.methods)
            (comparison.measure_paces if options.pace else comparison.run_all)(methods)
        except KeyboardInterrupt:
            status = 130
            print("interrupted; finished runs are kept", file=sys.stderr)
    finish(options, store, harness.heading(made), notes)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
