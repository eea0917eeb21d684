"""The network that all methods train: layers, first weights, work, and test accuracy.

Weights go from method to method as ``{"layers.0.weight": ..., ...}``, the keys that a model of all
layers in one spec has. Images enter as raw values from 0 to 255.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.cases import BEAUTIFUL_MNIST, DIGIT, Conv, Layers, Linear, MaxPool
from benchmarks.problem import F32

Weights: TypeAlias = dict[str, F32]
LAYERS: Layers = tuple(layer for spec in BEAUTIFUL_MNIST for layer in spec)
EVALUATION_BATCH = 500

CONVENTION = (
    "FLOP: a multiplication and an addition are 2; of convolutions and products alone, so without "
    "activations, norms, pools, noise and weight updates. Backprop: 3 x forward less the first "
    "layer's input gradient. Ours: Optimizer.flops_per_step, which for plan node adds 8 for every "
    "sum that a probe disturbs. Evolution strategies: every member's forward pass; with low-rank "
    "noise, what the members share counts once."
)


# -- weights ---------------------------------------------------------------------------------------


def first_weights(seed: int) -> Weights:
    """Draw the weights that every method starts from."""
    import marketplace as mp
    from marketplace.examples._markets import digit_structure

    mp.random.manual_seed(seed)
    return join(digit_structure("depth-1").specs("star", (1,)))


def make_market(structure: str, plan: str, vendors: Sequence[int], weights: Weights) -> list[Any]:
    """Cut the network into specs: ``depth-1``, ``depth-3`` or ``depth-5``."""
    from marketplace.examples._markets import digit_structure, load_joined

    specs = digit_structure(structure).specs(plan, tuple(vendors))
    load_joined(specs, weights)
    return specs


def join(specs: Sequence[Any]) -> Weights:
    """Read a market's weights, however it is cut."""
    from marketplace.examples._markets import joined_weights

    return joined_weights(specs)


def layer_of(key: str) -> int:
    """Give the index of the layer that a weight belongs to."""
    return int(key.split(".")[1])


# -- work ------------------------------------------------------------------------------------------


def multiply_adds() -> dict[int, int]:
    """Count the multiplications of one sample's forward pass, by index of the layer."""
    counts = {}
    for index, layer, (height, width) in with_sizes():
        if isinstance(layer, Conv):
            counts[index] = layer.out * layer.channels * layer.kernel**2 * height * width
        elif isinstance(layer, Linear):
            counts[index] = layer.out * layer.inputs
    return counts


def with_sizes() -> list[tuple[int, Any, tuple[int, int]]]:
    """List the layers with their index and the height and width of what they give."""
    rows = []
    size = DIGIT[1]
    for index, layer in enumerate(LAYERS):
        if isinstance(layer, Conv):
            size = (size + 2 * layer.padding - layer.kernel) // layer.stride + 1
        elif isinstance(layer, MaxPool):
            size //= 2
        rows.append((index, layer, (size, size)))
    return rows


def forward_flops(batch: int) -> int:
    """Count a forward pass; see ``CONVENTION``."""
    return 2 * batch * sum(multiply_adds().values())


def backprop_flops(batch: int, first: int = 0) -> int:
    """Count forward and backward pass of the layers that learn, from index ``first`` on.

    Nobody needs the input gradient of the first of them.
    """
    counts = multiply_adds()
    learning = [count for index, count in counts.items() if index >= first]
    return 2 * batch * (sum(counts.values()) + 2 * sum(learning) - learning[0])


# -- accuracy --------------------------------------------------------------------------------------


class Judge:
    """Measures test accuracy, the same way for all methods."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y
        self.specs = make_market("depth-1", "star", (1,), first_weights(0))

    def accuracy(self, weights: Weights) -> float:
        """Give the percentage of right answers; none of a network that is no longer finite."""
        from marketplace.training import straight_forward

        if not all(math.isfinite(float(np.sum(value))) for value in weights.values()):
            return 0.0
        self.specs[0].model.load_state_dict(weights)
        right = 0
        for start in range(0, len(self.x), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            answers = np.asarray(straight_forward(self.specs, self.x[part])).argmax(axis=1)
            right += int(np.count_nonzero(answers == self.y[part]))
        return 100.0 * right / len(self.x)
