"""What a training step costs beyond its forward passes: packing, deltas, direction, update.

    python -m benchmarks.step_cost [--case tree-8] [--dtype float32]

Times probe and step turn by turn; on a GPU with a batch that lies there, and with one that comes
from the host as uint8. Within the probe:

- *deltas* is the time to generate all vendors' numbers and add them to the weights, from the
  kernel's own throughput, measured here;
- *packing* is what a probe costs before it has seen a sample (deltas included): the same vendors on
  the few paths of a star, extrapolated from small batches to none.
"""

import argparse
import pathlib
import sys
import warnings
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.cases import CASES, Case
from benchmarks.contender_ours import give_batch, make_specs, whereabouts
from benchmarks.problem import LEARNING_RATE, PROBE_SCALE, SEED

GOAL = 0.03  # of a step, for deltas, direction and update together
FIRST_STEP = 1.2
SMALL_BATCHES = (1, 9)
WHOLE = {
    "train_step": "training step",
    "probe": "probe",
    "host_train_step": "training step, uint8 batch from the host",
    "host_probe": "probe, uint8 batch from the host",
}


class StepCost:
    """An optimizer on one case, and the functions that are timed.

    ``from_host``: its batch is the host's on a GPU too.
    """

    def __init__(self, case: Case, options: argparse.Namespace, from_host: bool = False) -> None:
        import marketplace as mp

        self.case = case
        self.threads = options.threads
        mp.random.manual_seed(SEED)
        rng = np.random.default_rng(SEED)
        x = rng.integers(0, 256, size=(case.batch, *case.sample)).astype(np.float32)
        y = rng.integers(0, case.classes, size=case.batch).astype(np.int32)
        self.one = x[:1], y[:1]
        self.x, self.y = give_batch(x, y, options.device, from_host)
        self.optimizer = mp.Optimizer(
            make_specs(case), LEARNING_RATE, probe_scale=PROBE_SCALE, plan=case.plan,
            dtype=options.dtype, threads=options.threads, seed=SEED, device=options.device,
        )  # fmt: skip
        self.first_seconds = harness.timed(self.train)[0]
        self.loss, self.paths = self.optimizer.probe(self.x, self.y)

    def probe(self) -> None:
        """Compute all losses."""
        self.optimizer.probe(self.x, self.y)

    def train(self) -> None:
        """Take one training step."""
        self.optimizer.train_step(self.x, self.y)

    def step(self) -> None:
        """Direction, update and fresh seeds, from losses that are known."""
        self.optimizer.step(self.loss, self.paths)

    def star(self, batch: int) -> harness.Run:
        """Give a probe of a star with the same vendors, on copies of one sample."""
        from marketplace._core import Plan

        native, specs = self.optimizer._native, range(len(self.case.specs))
        plan = Plan.star(list(self.case.vendors))
        weights = [native.weights(spec) for spec in specs]
        x, y = np.repeat(self.one[0], batch, axis=0), np.repeat(self.one[1], batch)
        return lambda: self.optimizer._market.losses(plan, weights, x, y, None)

    @property
    def numbers(self) -> int:
        """Random numbers that one probe needs: all vendors' but the leaders'."""
        models = [spec.model for spec in self.optimizer.marketplace]
        pairs = zip(models, self.case.vendors, strict=True)
        return sum(model.parameter_count * (count - 1) for model, count in pairs)


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Time the parts of a step; milliseconds, and shares of the whole step."""
    cost = StepCost(case, options)
    rates: list[float] = []
    engine = cost.optimizer._market.engine
    few, more = SMALL_BATCHES
    runs: dict[str, harness.Run] = {
        "train_step": cost.train,
        "probe": cost.probe,
        "step": cost.step,
        "few": cost.star(few),
        "more": cost.star(more),
        "random": lambda: rates.append(engine.measure_random(0.01 if options.quick else 0.1)),
    }
    if options.device != "cpu":
        host = StepCost(case, options, from_host=True)
        runs |= {"host_train_step": host.train, "host_probe": host.probe}
    seconds = harness.interleaved(runs, options.repeats)
    ms = {name: harness.statistics_ms(times)["median_ms"] for name, times in seconds.items()}
    workers = cost.threads if options.device == "cpu" else 1  # a GPU's rate is all of it
    deltas = cost.numbers / (max(rates) * workers) * 1e3
    # so short that other programs lengthen many of them: their fastest runs are the ones to trust
    fast = {name: min(seconds[name]) * 1e3 for name in ("few", "more")}
    packing = fast["few"] - few * (fast["more"] - fast["few"]) / (more - few)
    whole = ms["probe"] + ms["step"]
    return {
        "case": case.name, "dtype": options.dtype, "device": options.device,
        "threads": cost.threads, "batch": whereabouts(options.device),
        "random_numbers": cost.numbers, "random_numbers_per_second_per_core": max(rates),
        "train_step_ms": ms["train_step"], "probe_ms": ms["probe"], "step_ms": ms["step"],
        "deltas_ms": deltas, "packing_ms": packing,
        "step_share": ms["step"] / whole, "deltas_share": deltas / whole,
        "packing_share": packing / whole, "share": (deltas + ms["step"]) / whole,
        "first_step_ms": cost.first_seconds * 1e3,
        "first_step_ratio": cost.first_seconds * 1e3 / ms["train_step"],
        **{f"{name}_ms": value for name, value in ms.items() if name.startswith("host")},
    }  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """Give the figures as lines of text."""
    met = {True: "met", False: "MISSED"}
    rate = found["random_numbers_per_second_per_core"]
    batch = "" if found["device"] == "cpu" else f"; batch {found['batch']}"
    parts = [
        f"{label:<44} {found[f'{key}_ms']:>9.3f} ms {found[f'{key}_share']:>7.2%} of a step"
        for label, key in (
            ("direction, update, seeds (Optimizer.step)", "step"),
            ("deltas, within the probe", "deltas"),
            ("packing, within the probe, deltas included", "packing"),
        )
    ]
    return "\n".join(
        (
            f"{found['case']} {found['dtype']}, {found['device']}, {found['threads']} threads"
            f"{batch}",
            *(
                f"{label:<44} {found[f'{key}_ms']:>9.3f} ms"
                for key, label in WHOLE.items()
                if f"{key}_ms" in found
            ),
            *parts,
            f"deltas, direction and update: {found['share']:.2%} "
            f"(goal <= {GOAL:.0%}: {met[found['share'] <= GOAL]})",
            f"random numbers: {found['random_numbers']} a probe, {rate / 1e9:.2f}e9 per second and "
            "core (of a GPU: in all), added to the weights",
            f"first step {found['first_step_ms']:.1f} ms, {found['first_step_ratio']:.2f} of later "
            f"ones (goal <= {FIRST_STEP}: {met[found['first_step_ratio'] <= FIRST_STEP]})",
        )
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--case", choices=list(CASES), default="tree-8")
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, hip:0; default cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=harness.usable_cores())
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each; default 15")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="the result's file")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    options = parser.parse_args(arguments)
    if options.quick:
        options.repeats = 2
    return options


def main(arguments: list[str]) -> None:
    """Measure, print, keep the result."""
    options = parse(arguments)
    harness.limit_threads(options.threads)
    made = harness.record("step_cost", arguments)
    case = CASES[options.case]
    with warnings.catch_warnings():
        # such a step would be a cheaper one
        warnings.filterwarnings("error", message=".*all losses are equal")
        found = measure(case.small() if options.quick else case, options)
    printed = f"{harness.heading(made)}\n\n{text(found)}"
    print(printed)
    stem = f"step_cost-{options.case}-{options.dtype}"
    path = options.json or (None if options.quick else harness.result_path(stem, made))
    if path is not None:
        result = {**made, "repeats": options.repeats, **found}
        harness.write_result(path, result, printed)


if __name__ == "__main__":
    main(sys.argv[1:])
