"""How well node perturbation meets the gradient: cosines by layer, beside PyTorch's own.

    python -m benchmarks.node_gradient [--vendors 1,2,5,17,1 ...] [--probe-scale X] [--draws 4]
        [--json FILE]

On a freshly drawn beautiful-MNIST network and one batch of 64 bundled digits; the mean over
independent draws of the noise. Needs PyTorch (the extra ``[bench]``).
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks import forest, harness
from benchmarks.contender_torch import Ops
from benchmarks.learning import network
from benchmarks.learning.network import Weights
from benchmarks.problem import F32

BATCH, SEED = 64, 42
DEFAULT = ("1,2,5,17,1", "1,1,17,33,1", "1,1,65,65,1")
Vendors = tuple[int, ...]


def exact_gradient(weights: Weights, x: F32, y: F32) -> Weights:
    """Differentiate the mean loss of the batch."""
    import torch

    parameters = {key: torch.tensor(value, requires_grad=True) for key, value in weights.items()}
    logits = forest.run_layers(
        network.LAYERS, torch.from_numpy(x).float(), parameters, Ops(torch.contiguous_format)
    )
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).long()).backward()
    return {key: value.grad.numpy() for key, value in parameters.items()}


def estimate(
    weights: Weights, vendors: Vendors, scale: float | None, x: F32, y: F32, seed: int
) -> Weights:
    """Give the direction that one draw of noise finds, uphill, at its own length per spec."""
    import marketplace as mp

    market = network.make_market("depth-5", "node", vendors, weights)
    optimizer = mp.Optimizer(market, 1.0, plan="node", probe_scale=scale, seed=seed)
    directions = optimizer.compute_direction_vectors(*optimizer.probe(x, y))
    for spec, direction in zip(market, directions, strict=True):
        spec.model.load_state_dict({key: -value for key, value in direction.items()})
    return network.join(market)


def cosines(
    weights: Weights, vendors: Vendors, scale: float | None, draws: int
) -> dict[str, float]:
    """Compare by parameter; those that nothing teaches are left out."""
    from marketplace.data import load

    data = load("mnist", "bundled")
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]
    exact = exact_gradient(weights, x, y)
    found = [estimate(weights, vendors, scale, x, y, seed) for seed in range(draws)]
    return {
        key: float(np.mean([cosine(one[key], exact[key]) for one in found]))
        for key in exact
        if np.any(found[0][key])
    }


def cosine(a: F32, b: F32) -> float:
    """Give the cosine of the angle between two arrays."""
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def main(argv: Sequence[str]) -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.node_gradient")
    parser.add_argument("--vendors", nargs="+", default=list(DEFAULT), metavar="N,N,N,N,N")
    parser.add_argument("--probe-scale", type=float, help="default: the optimizer's")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args(argv)
    weights = network.first_weights(SEED)
    made = harness.record("node_gradient", list(argv))
    rows = {}
    lines = [harness.heading(made)]
    for text in options.vendors:
        vendors = tuple(int(count) for count in text.split(","))
        rows[text] = cosines(weights, vendors, options.probe_scale, options.draws)
        lines.append(f"\nvendors {text}, mean cosine of {options.draws} draws")
        lines += [f"{key:20s} {value:6.3f}" for key, value in rows[text].items()]
    print("\n".join(lines))
    if options.json is not None:
        harness.write_result(options.json, {**made, "cosines": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
