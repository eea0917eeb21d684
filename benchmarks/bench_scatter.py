"""What learning adds to answering: a scatter's step beside plain inference of the same batch.

    python -m benchmarks.bench_scatter [--batch-size 256] [--vendors 4] [--dtype float32,bfloat16]

On the beautiful-MNIST market, turn by turn: inference of the batch with the base weights; a probe
(every sample on a path of its own, losses included); a whole training step (probe, direction,
update, fresh seeds); with the control variate, a training step, which adds an inference, and an
answer and a lesson of ``marketplace.continual.Learner``, which runs paths for half the samples;
and, for scale, the samples one by one, as the original runs them, each through its own path.
"""

import argparse
import pathlib
import sys
import warnings
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.bench_memory import beautiful_mnist

GOAL = 1.5  # of inference, for the training step
DTYPES = ("float32", "bfloat16")
LEARNING_RATE, PROBE_SCALE, SEED = 0.01, 1.0, 7


class ScatterCost:
    """Optimizers on one market, and the functions that are timed."""

    def __init__(self, dtype: str, options: argparse.Namespace) -> None:
        import marketplace as mp

        rng = np.random.default_rng(SEED)
        shape = (options.batch_size, 1, 28, 28)
        self.x = rng.integers(0, 256, size=shape, dtype=np.uint8)
        self.y = rng.integers(0, 10, size=options.batch_size).astype(np.int32)
        self.market = beautiful_mnist(options.vendors)
        settings: dict[str, Any] = {
            "probe_scale": PROBE_SCALE, "plan": "scatter", "dtype": dtype,
            "threads": options.threads, "seed": SEED,
        }  # fmt: skip
        self.plain = mp.Optimizer(self.market, LEARNING_RATE, **settings)
        self.less_base = mp.Optimizer(self.market, LEARNING_RATE, control_variate=True, **settings)
        self.learner = mp.continual.Learner(self.less_base)
        self.paths = self.plain.probe(self.x, self.y)[1]

    def infer(self) -> Any:
        """Answer the batch with the base weights."""
        return self.plain._market.infer(self.x)

    def lesson(self) -> None:
        """Answer with the base weights, and learn from the samples in doubt."""
        self.learner.learn(self.learner.answer(self.x), self.y)

    def one_by_one(self) -> None:
        """Run every sample through its path as a batch of one."""
        native = self.plain._ready()
        weights = [native.weights(spec) for spec in range(len(self.market))]
        for sample, path in zip(self.x, self.paths, strict=True):
            self.plain._market.forward_paths(weights, sample[None], path[None])

    def runs(self) -> dict[str, harness.Run]:
        """Name what is timed."""
        return {
            "inference": self.infer,
            "probe": lambda: self.plain.probe(self.x, self.y),
            "step": lambda: self.plain.train_step(self.x, self.y),
            "step_control_variate": lambda: self.less_base.train_step(self.x, self.y),
            "answer_and_lesson": self.lesson,
            "one_by_one": self.one_by_one,
        }


def measure(dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time one dtype: medians in milliseconds, and multiples of inference."""
    cost = ScatterCost(dtype, options)
    seconds = harness.interleaved(cost.runs(), options.repeats)
    ms = {name: harness.statistics_ms(times)["median_ms"] for name, times in seconds.items()}
    return {
        "dtype": dtype, "batch": options.batch_size, "vendors": options.vendors,
        "threads": cost.plain.threads, "ms": ms,
        "times_inference": {name: value / ms["inference"] for name, value in ms.items()},
    }  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """Give the figures as lines of text."""
    ratio = found["times_inference"]
    met = "met" if ratio["step"] <= GOAL else "MISSED"
    lines = [
        f"{found['dtype']}, batch {found['batch']}, {found['vendors']} vendors a spec, "
        f"{found['threads']} threads"
    ]
    lines += [
        f"{name.replace('_', ' '):<22} {ms:>9.2f} ms {ratio[name]:>7.2f} x inference"
        for name, ms in found["ms"].items()
    ]
    return "\n".join([*lines, f"step: goal <= {GOAL} x inference: {met}"])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_scatter", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--vendors", type=int, default=4, help="of every spec; default 4")
    parser.add_argument("--dtype", default=",".join(DTYPES), help="default: both")
    parser.add_argument("--threads", type=int, default=harness.usable_cores())
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each; default 15")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="the result's file")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    options = parser.parse_args(arguments)
    options.dtype = options.dtype.split(",")
    if not set(options.dtype) <= set(DTYPES):
        parser.error(f"argument --dtype: expected some of {', '.join(DTYPES)}")
    if options.quick:
        options.repeats, options.batch_size = 2, 16
    return options


def main(arguments: list[str]) -> None:
    """Measure, print, keep the result."""
    options = parse(arguments)
    harness.limit_threads(options.threads)
    made = harness.record("bench_scatter", arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # equal losses would make the step a cheaper one
        rows = [measure(dtype, options) for dtype in options.dtype]
    printed = "\n\n".join([harness.heading(made), *map(text, rows)])
    print(printed)
    path = options.json or (None if options.quick else harness.result_path("scatter", made))
    if path is not None:
        result = {**made, "repeats": options.repeats, "goal": GOAL, "rows": rows}
        harness.write_result(path, result, printed)


if __name__ == "__main__":
    main(sys.argv[1:])
