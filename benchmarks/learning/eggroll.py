"""Low-rank evolution strategy after EGGROLL, in PyTorch.

Sarkar et al., "Evolution Strategies at the Hyperscale", 2025, arXiv 2511.16652: low-rank noise in
pairs of opposite sign, standardised scores, full noise for what is no matrix.

Member m of a population runs with ``W + s sigma A B^T / sqrt(r)`` for every weight matrix, A
``(O, r)`` and B ``(I, r)`` standard normal, s = 1 and -1 for the two members of a pair; a
convolution's matrix is ``(O, C k k)``. Biases and the norms' weights get full normal noise. The
perturbed matrix is never built: ``x W^T`` runs for all members as one batch, and ``(x B) A^T`` adds
to it. Losses are standardised over the population, ``z``, and the gradient
``sum z s A B^T / sqrt(r) / (P sigma)`` goes to Adam. Every member sees the same batch. A
convolution as one matrix, and Adam, are choices made here.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Conv, Linear, Norm
from benchmarks.contender_torch import load
from benchmarks.learning import network
from benchmarks.learning.methods import Settings
from benchmarks.learning.network import LAYERS, Weights

__all__ = ["Eggroll", "Noise", "draw", "flops_per_step", "gradients", "load", "logits", "make"]

CHUNK = 8  # members at a time: their activations stay in the cache
EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Noise:
    """What a pair of members share, stacked over pairs H.

    Of a matrix ``(O, I)``: ``a (H, O, r)`` and ``b (H, I, r)``; of a vector ``(n,)``: ``b (H, n)``.
    """

    a: Any
    b: Any


def draw(weights: dict[str, Any], pairs: int, rank: int, generator: Any) -> dict[str, Noise]:
    """Draw the noise of a generation."""
    import torch

    noise = {}
    for key, value in weights.items():
        if value.ndim == 1:
            noise[key] = Noise(None, torch.randn(pairs, len(value), generator=generator))
        else:
            inputs = value[0].numel()
            a = torch.randn(pairs, len(value), rank, generator=generator)
            noise[key] = Noise(a, torch.randn(pairs, inputs, rank, generator=generator))
    return noise


# -- forward ---------------------------------------------------------------------------------------


class Members:
    """Some members of a population: their noise with sign and size, ready for the layers.

    Activations are ``(B, M, ...)``; those that all members share, ``(B, 1, ...)``.
    """

    def __init__(
        self, weights: dict[str, Any], noise: dict[str, Noise], pairs: Any, signs: Any, sigma: float
    ) -> None:
        self.weights, self.count = weights, len(pairs)
        self.a, self.b = {}, {}
        for key, own in noise.items():
            size = signs * sigma
            if own.a is None:
                self.b[key] = weights[key] + size[:, None] * own.b[pairs]  # (M, n), whole
            else:
                rank = own.a.shape[-1]
                self.a[key] = size[:, None, None] / math.sqrt(rank) * own.a[pairs]
                self.b[key] = own.b[pairs]

    def conv(self, x: Any, key: str) -> Any:
        """``conv(x, W)`` as one batch, and ``conv(x, B) A``, the members as groups."""
        from torch.nn.functional import conv2d

        weight, a, b = self.weights[f"{key}weight"], self.a[f"{key}weight"], self.b[f"{key}weight"]
        batch, given = x.shape[:2]
        base = conv2d(x.flatten(0, 1), weight)
        rank = b.shape[-1]
        filters = b.transpose(1, 2).reshape(self.count * rank, *weight.shape[1:])
        low = conv2d(x.flatten(1, 2), filters, groups=given)
        low = low.view(batch, self.count, rank, *low.shape[2:])
        out = base.view(batch, given, *base.shape[1:]) + self.b[f"{key}bias"][..., None, None]
        for r in range(rank):
            out.addcmul_(low[:, :, r : r + 1], a[:, :, r, None, None])
        return out

    def linear(self, x: Any, key: str) -> Any:
        """``x W^T + (x B) A^T``."""
        import torch

        weight, a, b = self.weights[f"{key}weight"], self.a[f"{key}weight"], self.b[f"{key}weight"]
        low = torch.einsum("bmi,mir->bmr", x, b)
        return x @ weight.T + torch.einsum("bmr,mor->bmo", low, a) + self.b[f"{key}bias"]

    def norm(self, x: Any, key: str) -> Any:
        """Normalise every channel of every image."""
        centred = x - x.mean((3, 4), keepdim=True)
        scaled = centred * (centred.square().mean((3, 4), keepdim=True) + EPS).rsqrt()
        weight, bias = self.b[f"{key}weight"], self.b[f"{key}bias"]
        return scaled * weight[..., None, None] + bias[..., None, None]


def logits(members: Members, images: Any) -> Any:
    """Run members on the same images ``(B, 1, 28, 28)``; ``(B, M, 10)``."""
    from torch.nn.functional import max_pool2d, relu

    x = images[:, None]
    plain: dict[str, Callable[[Any], Any]] = {
        "Relu": relu,
        "MaxPool": lambda x: max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2]),
        "Flatten": lambda x: x.flatten(2),
    }
    for index, layer in enumerate(LAYERS):
        if isinstance(layer, Conv | Linear | Norm):
            x = getattr(members, type(layer).__name__.lower())(x, f"layers.{index}.")
        else:
            x = plain[type(layer).__name__](x)
    return x


def gradients(
    weights: dict[str, Any], noise: dict[str, Noise], strengths: Any, sigma: float
) -> dict[str, Any]:
    """Combine the noise: ``sum_h strength_h E_h / (P sigma)``.

    ``strengths (H,)`` are the differences of the standardised losses within the pairs.
    """
    import torch

    scaled = strengths / (2 * len(strengths) * sigma)
    found = {}
    for key, own in noise.items():
        if own.a is None:
            found[key] = scaled @ own.b
        else:
            shares = scaled / math.sqrt(own.a.shape[-1])
            matrix = torch.einsum("h,hor,hir->oi", shares, own.a, own.b)
            found[key] = matrix.view(weights[key].shape)
    return found


# -- training --------------------------------------------------------------------------------------


class Eggroll:
    """The weights, and what moves them."""

    def __init__(self, settings: Settings, weights: Weights, seed: int) -> None:
        import torch

        self.torch, self.settings = torch, settings
        self.parameters = {key: torch.tensor(value) for key, value in weights.items()}
        self.optimizer = torch.optim.Adam(list(self.parameters.values()), lr=settings["lr"])
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, x: Any, y: Any, rate: float) -> float:
        """Draw, evaluate, update; the population's mean loss."""
        torch, sigma = self.torch, self.settings["sigma"]
        self.optimizer.param_groups[0]["lr"] = rate
        images, labels = torch.from_numpy(x).float(), torch.from_numpy(y).long()
        pairs = self.settings["population"] // 2
        with torch.no_grad():
            noise = draw(self.parameters, pairs, self.settings["rank"], self.generator)
            losses = self._losses(noise, images, labels)  # (2, H)
            scores = (losses - losses.mean()) / losses.std(correction=0).clamp_min(1e-12)
            found = gradients(self.parameters, noise, scores[0] - scores[1], sigma)
            for key, parameter in self.parameters.items():
                parameter.grad = found[key]
            self.optimizer.step()
        return float(losses.mean())

    def _losses(self, noise: dict[str, Noise], images: Any, labels: Any) -> Any:
        """Evaluate the population, ``(2, H)``: the members with plus, and those with minus."""
        torch = self.torch
        half = self.settings["population"] // 2
        pairs = torch.arange(half).repeat(2)
        signs = torch.ones(2 * half)
        signs[half:] = -1.0
        losses = []
        for own, sign in zip(pairs.split(CHUNK), signs.split(CHUNK), strict=True):
            members = Members(self.parameters, noise, own, sign, self.settings["sigma"])
            scores = logits(members, images).log_softmax(-1)
            losses.append(-scores[torch.arange(len(labels)), :, labels].mean(0))
        return torch.cat(losses).view(2, half)

    def weights(self) -> Weights:
        """Copy the parameters."""
        return {key: np.array(value.numpy(), np.float32) for key, value in self.parameters.items()}


def flops_per_step(settings: Settings) -> int:
    """Count what the members share once: ``x W^T`` of the first layer; and all else per member."""
    rank, population = settings["rank"], settings["population"]
    counts = network.multiply_adds()
    low = 0
    for _, layer, (height, width) in network.with_sizes():
        if isinstance(layer, Conv):
            low += rank * (layer.channels * layer.kernel**2 + layer.out) * height * width
        elif isinstance(layer, Linear):
            low += rank * (layer.inputs + layer.out)
    shared = counts[0]
    each = sum(counts.values()) - shared + low
    return int(2 * settings["batch"] * (shared + population * each))


def make(settings: Settings, weights: Weights, seed: int, threads: int) -> Eggroll:
    """Start a run."""
    return Eggroll(settings, weights, seed)
