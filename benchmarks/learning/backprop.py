"""Backpropagation in PyTorch: SGD with momentum, or Adam with PyTorch's own betas.

Of all layers, or of those from the setting ``first`` on, by their index; the others stay.
"""

from typing import Any

import numpy as np

from benchmarks import forest
from benchmarks.contender_torch import Ops, load
from benchmarks.learning import network
from benchmarks.learning.methods import Settings
from benchmarks.learning.network import Weights

__all__ = ["Backprop", "flops_per_step", "load", "make"]


class Backprop:
    """Parameters and their optimizer."""

    def __init__(self, settings: Settings, weights: Weights) -> None:
        import torch

        self.torch = torch
        self.ops = Ops(torch.contiguous_format)
        self.parameters = {
            key: torch.tensor(value, requires_grad=network.layer_of(key) >= first_of(settings))
            for key, value in weights.items()
        }
        found = [value for value in self.parameters.values() if value.requires_grad]
        if settings["optimizer"] == "sgd":
            self.optimizer: Any = torch.optim.SGD(
                found, lr=settings["lr"], momentum=settings["momentum"]
            )
        else:
            self.optimizer = torch.optim.Adam(found, lr=settings["lr"])

    def step(self, x: Any, y: Any, rate: float) -> float:
        """Forward, backward, update."""
        torch = self.torch
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, labels = torch.from_numpy(x).float(), torch.from_numpy(y).long()
        logits = forest.run_layers(network.LAYERS, images, self.parameters, self.ops)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def weights(self) -> Weights:
        """Copy the parameters."""
        return {
            key: np.array(value.detach().numpy(), np.float32)
            for key, value in self.parameters.items()
        }


def flops_per_step(settings: Settings) -> int:
    """Count forward and backward pass."""
    return network.backprop_flops(settings["batch"], first_of(settings))


def first_of(settings: Settings) -> int:
    """Give the first layer that learns."""
    first: int = settings.get("first", 0)
    return first


def make(settings: Settings, weights: Weights, seed: int, threads: int) -> Backprop:
    """Start a run; nothing in it is random."""
    return Backprop(settings, weights)
