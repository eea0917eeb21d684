"""One run: a method, a seed, so many steps; what it learned, what that took."""

import dataclasses
import json
import math
import os
import time
from typing import Any

import numpy as np

from benchmarks.learning.methods import Method, Trainer
from benchmarks.learning.network import Judge, first_weights

RUN, GRID = "run", "grid"
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a run is; two that are equal give the same curve, but for the seconds."""

    method: Method
    seed: int
    steps: int
    eval_every: int
    data: str
    kind: str = RUN

    def key(self) -> Record:
        """Give the fields of its record that tell it from other runs, as JSON keeps them."""
        fields = {
            "method": self.method.name,
            "kind": self.kind,
            "settings": dict(self.method.settings),
            "seed": self.seed,
            "steps": self.steps,
            "eval_every": self.eval_every,
            "data": self.data,
        }
        kept: Record = json.loads(json.dumps(fields))
        return kept


class Curve:
    """Test accuracy over steps, work and time; evaluations are not timed."""

    def __init__(self, judge: Judge, flops_per_step: int) -> None:
        self.judge, self.flops_per_step = judge, flops_per_step
        self.seconds = 0.0
        self.losses: list[float] = []
        self.points: list[Record] = []

    def add(self, step: int, trainer: Trainer) -> None:
        """Measure after so many steps."""
        self.points.append(
            {
                "step": step,
                "tflop": step * self.flops_per_step / 1e12,
                "seconds": self.seconds,
                "loss": float(np.mean(self.losses)) if self.losses else None,
                "test_accuracy": self.judge.accuracy(trainer.weights()),
            }
        )
        self.losses.clear()


def learning_rate(task: Task, step: int) -> float:
    """Give a step's rate: half a cosine wave from the settings' own to 0, or that one."""
    from marketplace import schedules

    rate = float(task.method.settings["lr"])
    if task.method.settings["schedule"] != "cosine":
        return rate
    return schedules.cosine(rate, task.steps)(step)


def batch_of(data: Any, seed: int, step: int, size: int) -> tuple[Any, Any]:
    """Give a step's images and labels, the same for all methods with this batch size."""
    from marketplace.examples._batches import batch_indices

    indices = batch_indices(seed, step, size, len(data.x_train))
    return data.x_train[indices], data.y_train[indices]


def run(task: Task, data: Any, judge: Judge, threads: int) -> Record:
    """Train and measure; a run whose loss is no longer finite ends there."""
    method = task.method
    load_before = list(os.getloadavg())
    trainer = method.module.make(method.settings, first_weights(task.seed), task.seed, threads)
    curve = Curve(judge, method.module.flops_per_step(method.settings))
    curve.add(0, trainer)
    diverged = None
    for step in range(task.steps):
        x, y = batch_of(data, task.seed, step, method.settings["batch"])
        rate = learning_rate(task, step)
        start = time.perf_counter()
        loss = trainer.step(x, y, rate)
        curve.seconds += time.perf_counter() - start
        if not math.isfinite(loss):
            diverged = step
            break
        curve.losses.append(loss)
        if (step + 1) % task.eval_every == 0 or step + 1 == task.steps:
            curve.add(step + 1, trainer)
    return {
        **task.key(),
        "label": method.label,
        "train_images": len(data.x_train),
        "test_images": len(judge.x),
        "flops_per_step": curve.flops_per_step,
        "threads": threads,
        "load_average_before": load_before,
        "load_average_after": list(os.getloadavg()),
        "diverged_at_step": diverged,
        "final_accuracy": 0.0 if diverged is not None else curve.points[-1]["test_accuracy"],
        "curve": curve.points,
    }
