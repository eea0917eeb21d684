"""What kinds of deltas find of the gradient: cosines by spec, beside PyTorch's backpropagation.

    python -m benchmarks.delta_gradient [--vendors 8,40,512] [--steps 100] [--draws 8] [--json FILE]

The specs of the beautiful-MNIST market after some steps of the star plan, and one batch of 64
bundled digits. A spec's direction is ``sum over v of z(loss[v]) delta[v]``, all other specs at
their base weights. Mean and standard deviation over independent draws. Needs PyTorch (``[bench]``).

``independent``: uniform numbers, as the engine draws them. ``antithetic``: pairs of opposites.
``orthogonal``: as many normal vectors as fit, made orthogonal (QR), all of one length. ``guided``:
half of the variance in the span of the last steps' directions (Maheswaranathan et al. 2019,
"Guided evolutionary strategies", with alpha = 1/2). ``size``: the deltas' root mean square.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks import forest, harness
from benchmarks.cases import BEAUTIFUL_MNIST
from benchmarks.contender_torch import Ops
from benchmarks.learning import network
from benchmarks.learning.methods import BY_NAME
from benchmarks.learning.ours import Ours
from benchmarks.learning.train import batch_of
from benchmarks.node_gradient import BATCH, SEED, cosine, exact_gradient
from benchmarks.problem import F32

SIZE = 0.01 / np.sqrt(
    3
)  # what learning rate 0.1 and probe scale 0.1 give: uniform from -0.01 to 0.01
SIZES = (SIZE / 10, SIZE, SIZE * 10)
PAST = 16  # steps whose directions guide
F64: TypeAlias = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, F64], F64]  # (.., vendors, past (k, n)) -> (V, n), rms 1


def independent(rng: np.random.Generator, vendors: int, past: F64) -> F64:
    """Draw what the engine draws."""
    return rng.uniform(-np.sqrt(3), np.sqrt(3), (vendors, past.shape[1]))


def antithetic(rng: np.random.Generator, vendors: int, past: F64) -> F64:
    """Draw half as many, and their opposites."""
    half = independent(rng, vendors // 2, past)
    return np.concatenate([half, -half])


def orthogonal(rng: np.random.Generator, vendors: int, past: F64) -> F64:
    """Draw vectors at right angles, no more than there are dimensions."""
    n = past.shape[1]
    normal = rng.standard_normal((n, min(vendors, n)))
    return np.linalg.qr(normal)[0].T * np.sqrt(n)


def guided(rng: np.random.Generator, vendors: int, past: F64) -> F64:
    """Draw half of the variance in the span of the past."""
    basis = np.linalg.qr(past.T)[0]  # (n, k)
    n, k = basis.shape
    inside = rng.standard_normal((vendors, k)) @ basis.T * np.sqrt(n / k)
    return np.asarray(np.sqrt(0.5) * inside + np.sqrt(0.5) * rng.standard_normal((vendors, n)))


KINDS: dict[str, Draw] = {
    "independent": independent,
    "antithetic": antithetic,
    "orthogonal": orthogonal,
    "guided": guided,
}


class Trained:
    """The market after some steps, with its last directions and the gradient there."""

    def __init__(self, vendors: tuple[int, ...], steps: int) -> None:
        from marketplace.data import load

        data = load("mnist", "bundled")
        settings = {**BY_NAME["star"].settings, "vendors": vendors}
        trainer = Ours(settings, network.first_weights(SEED), SEED, harness.usable_cores())
        kept = []
        for step in range(steps):
            if step >= steps - PAST:
                kept.append(trainer.weights())
            trainer.step(*batch_of(data, SEED, step, BATCH), settings["lr"])
        self.weights = trainer.weights()
        self.x, self.y = data.x_train[:BATCH], data.y_train[:BATCH]
        self.gradient = exact_gradient(self.weights, self.x, self.y)
        pairs = zip(kept, [*kept[1:], self.weights], strict=True)
        self.moves = [{key: new[key] - old[key] for key in new} for old, new in pairs]


class SpecProbe:
    """One spec's weights as a vector, and the loss as a function of it."""

    def __init__(self, trained: Trained, spec: int) -> None:
        import torch

        self.torch, self.ops = torch, Ops(torch.contiguous_format)
        self.first = sum(len(layers) for layers in BEAUTIFUL_MNIST[:spec])
        last = self.first + len(BEAUTIFUL_MNIST[spec])
        self.keys = [key for key in trained.weights if self.first <= int(key.split(".")[1]) < last]
        self.weights = {key: torch.from_numpy(value) for key, value in trained.weights.items()}
        self.base = self.flat(trained.weights)
        self.gradient = self.flat(trained.gradient)
        self.past = np.stack([self.flat(move) for move in trained.moves]).astype(np.float64)
        self.y = torch.from_numpy(trained.y).long()
        self.input = self._run(torch.from_numpy(trained.x).float(), 0, self.first, self.weights)

    def flat(self, weights: network.Weights) -> F32:
        """Join this spec's arrays."""
        return np.concatenate([weights[key].ravel() for key in self.keys])

    def _run(self, x: Any, first: int, last: int, weights: dict[str, Any]) -> Any:
        moved = {
            f"layers.{int(key.split('.')[1]) - first}.{key.split('.')[2]}": value
            for key, value in weights.items()
        }
        with self.torch.no_grad():
            return forest.run_layers(network.LAYERS[first:last], x, moved, self.ops)

    def loss(self, delta: F32) -> float:
        """Give the mean loss with this delta on the spec."""
        torch = self.torch
        parts = torch.from_numpy(self.base + delta).split(
            [self.weights[key].numel() for key in self.keys]
        )
        changed = {
            key: part.view(self.weights[key].shape)
            for key, part in zip(self.keys, parts, strict=True)
        }
        logits = self._run(self.input, self.first, len(network.LAYERS), self.weights | changed)
        return float(torch.nn.functional.cross_entropy(logits, self.y))

    def cosine(self, deltas: F64) -> float:
        """Compare what these deltas find with the gradient."""
        losses = np.array([self.loss(delta.astype(np.float32)) for delta in deltas])
        scores = (losses - losses.mean()) / losses.std()
        return cosine((scores @ deltas).astype(np.float32), self.gradient)


def cases() -> list[tuple[str, float]]:
    """List the kinds, and the sizes of the engine's own."""
    others = [(kind, SIZE) for kind in KINDS if kind != "independent"]
    return [("independent", size) for size in SIZES] + others


def study(probe: SpecProbe, kind: str, vendors: int, size: float, draws: int) -> list[float]:
    """Give the cosines of independent draws."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng([SEED, seed])
        found.append(probe.cosine(size * KINDS[kind](rng, vendors, probe.past)))
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Give a line a row."""
    lines = [f"{'spec':>4} {'vendors':>7} {'deltas':<12} {'size':>8}  cosine"]
    for row in rows:
        mean, spread = np.mean(row["cosines"]), np.std(row["cosines"], ddof=1)
        place = f"{row['spec']:4} {row['vendors']:7} {row['deltas']:<12} {row['size']:8.5f}"
        lines.append(f"{place}  {mean:.4f} ± {spread:.4f}")
    return lines


def main(argv: Sequence[str]) -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delta_gradient")
    parser.add_argument("--vendors", default="8,40,512", metavar="N,N,N")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args(argv)
    vendors = tuple(int(count) for count in options.vendors.split(","))
    made = harness.record("delta_gradient", list(argv))
    trained = Trained(vendors, options.steps)
    rows: list[dict[str, Any]] = []
    for spec, count in enumerate(vendors):
        probe = SpecProbe(trained, spec)
        for kind, size in cases():
            found = study(probe, kind, count, size, options.draws)
            place = {"spec": spec, "vendors": count, "deltas": kind, "size": size}
            rows.append({**place, "cosines": found})
    lines = [harness.heading(made), "", *table(rows)]
    print("\n".join(lines))
    if options.json is not None:
        harness.write_result(options.json, {**made, "rows": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
