"""Open-ES written here in PyTorch (Salimans et al. 2017), for where evosax is not installed.

Pairs of members ``theta + sigma e`` and ``theta - sigma e``, e standard normal over all weights;
losses become centred ranks r from -1/2 to 1/2; ``g = sum r_m e_m / (P sigma)`` goes to Adam. No
weight decay, no virtual batch normalisation; every member sees the same batch.
"""

from typing import Any

import numpy as np

from benchmarks import forest
from benchmarks.contender_torch import Ops, load
from benchmarks.learning import network
from benchmarks.learning.methods import Settings
from benchmarks.learning.network import Weights

__all__ = ["OpenES", "centred_ranks", "flops_per_step", "load", "make"]


def centred_ranks(losses: Any) -> Any:
    """Give each loss its rank, scaled to -1/2 for the lowest and 1/2 for the highest."""
    ranks = losses.argsort(stable=True).argsort(stable=True)
    return ranks.float() / (len(losses) - 1) - 0.5


class OpenES:
    """The weights as one vector, and what moves it."""

    def __init__(self, settings: Settings, weights: Weights, seed: int) -> None:
        import torch

        self.torch, self.settings = torch, settings
        self.ops = Ops(torch.contiguous_format)
        self.shapes = {key: value.shape for key, value in weights.items()}
        flat = np.concatenate([value.ravel() for value in weights.values()])
        self.mean = torch.from_numpy(flat).requires_grad_()
        self.optimizer = torch.optim.Adam([self.mean], lr=settings["lr"])
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, x: Any, y: Any, rate: float) -> float:
        """Draw, evaluate, update; the population's mean loss."""
        torch, sigma = self.torch, self.settings["sigma"]
        self.optimizer.param_groups[0]["lr"] = rate
        images, labels = torch.from_numpy(x).float(), torch.from_numpy(y).long()
        count = self.settings["population"]
        with torch.no_grad():
            half = torch.randn(count // 2, len(self.mean), generator=self.generator)
            noise = torch.cat([half, -half])
            losses = torch.stack([self._loss(self.mean + sigma * e, images, labels) for e in noise])
            self.mean.grad = centred_ranks(losses) @ noise / (count * sigma)
        self.optimizer.step()
        return float(losses.mean())

    def _loss(self, flat: Any, images: Any, labels: Any) -> Any:
        logits = forest.run_layers(network.LAYERS, images, self._named(flat), self.ops)
        return self.torch.nn.functional.cross_entropy(logits, labels)

    def _named(self, flat: Any) -> dict[str, Any]:
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes.values()])
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {key: part.view(*shape) for (key, shape), part in pairs}

    def weights(self) -> Weights:
        """Copy the mean."""
        named = self._named(self.mean.detach())
        return {key: np.array(value.numpy(), np.float32) for key, value in named.items()}


def flops_per_step(settings: Settings) -> int:
    """Count every member's forward pass."""
    return int(settings["population"]) * network.forward_flops(settings["batch"])


def make(settings: Settings, weights: Weights, seed: int, threads: int) -> OpenES:
    """Start a run."""
    return OpenES(settings, weights, seed)
