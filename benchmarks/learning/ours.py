"""Ours: the package's optimizer, with the plan, vendors and update that the settings name."""

from typing import Any

from benchmarks.cases import DIGIT
from benchmarks.learning import network
from benchmarks.learning.methods import Settings
from benchmarks.learning.network import Weights


def load(threads: int, device: str = "cpu") -> None:
    """Import the library."""
    import marketplace  # noqa: F401


class Ours:
    """A market and its optimizer."""

    def __init__(self, settings: Settings, weights: Weights, seed: int, threads: int) -> None:
        import marketplace as mp

        self.market = network.make_market(
            settings["market"], settings["plan"], settings["vendors"], weights
        )
        self.optimizer = mp.Optimizer(
            self.market,
            settings["lr"],
            probe_scale=settings["probe_scale"],
            plan=settings["plan"],
            update=settings["update"],
            dtype=settings["dtype"],
            seed=seed,
            threads=threads,
        )
        self.amplitude = settings["lr"] * settings["probe_scale"]
        self.distance = None
        if settings["schedule"] == "distance":
            self.distance = mp.schedules.distance(self.market)

    def step(self, x: Any, y: Any, rate: float) -> float:
        """Probe and step; the loss of the weights before it, the leader's."""
        if self.distance is not None:  # deltas keep the size that the first would have
            rate = self.distance(self.optimizer.global_step)
            self.optimizer.probe_scale = self.amplitude / rate
        self.optimizer.learning_rate = rate
        return float(self.optimizer.train_step(x, y)[0][0])

    def weights(self) -> Weights:
        """Read the market's base weights."""
        return network.join(self.market)


def flops_per_step(settings: Settings) -> int:
    """Ask the optimizer."""
    trainer = Ours(settings, network.first_weights(0), 0, 1)
    return int(trainer.optimizer.flops_per_step(DIGIT, settings["batch"]))


def make(settings: Settings, weights: Weights, seed: int, threads: int) -> Ours:
    """Start a run."""
    return Ours(settings, weights, seed, threads)
