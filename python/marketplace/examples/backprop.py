"""The beautiful-MNIST network trained with backpropagation, to compare with. Needs PyTorch.

Run as ``python -m marketplace.examples.backprop``. Initial weights and minibatches are those of
``marketplace.examples.mnist`` with the same seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import random
from ..data import DATASETS, SOURCES, Dataset, load
from . import _cli
from ._arguments import DEFAULT_SEED
from ._batches import batch_indices
from ._digits import IMAGE_SHAPE
from ._markets import NORMS, digit_structure
from ._values import find_path_problem, number, whole

PROG = "python -m marketplace.examples.backprop"
OPTIMIZERS = ("adam", "sgd", "momentum", "muon")
_EVALUATION_BATCH = 500
_BACKWARD = 2  # the backward pass costs two forward passes


@dataclasses.dataclass(frozen=True)
class BackpropOptions:
    """What the command line asks for."""

    optimizer: str
    lr: float
    steps: int
    batch_size: int
    norm: str
    seed: int
    threads: int | None
    data: str
    dataset: str
    eval_every: int
    json: Path | None
    quiet: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 after a bad option, with 0 after ``--help``.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _cli.STATUS_INTERRUPTED
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return _cli.fail(PROG, error)


def parse(argv: Sequence[str]) -> BackpropOptions:
    """Parse and check a command line; exits with status 2 after a bad option."""
    parser = argparse.ArgumentParser(
        prog=PROG, description="Train the beautiful-MNIST network with backpropagation."
    )
    _add_training(parser)
    parser.add_argument("--threads", type=whole(1), metavar="N", help="PyTorch's threads")
    parser.add_argument("--data", choices=SOURCES, default="auto", help="as for examples.mnist")
    parser.add_argument("--dataset", choices=DATASETS, default="mnist", help="digits or clothes")
    parser.add_argument(
        "--eval-every", type=whole(1), default=25, metavar="N", help="steps between measurements"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--quiet", action="store_true", help="only the summary line")
    options = BackpropOptions(**vars(parser.parse_args(argv)))
    problem = None if options.json is None else find_path_problem(options.json)
    if problem is not None:
        parser.error(f"argument --json: {problem}")
    return options


def require_torch() -> Any:
    """Import PyTorch.

    Raises
    ------
    RuntimeError
        It is not installed, or broken.
    """
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(
            f"backpropagation needs PyTorch ({error}): install it with pip install torch"
        ) from error
    return torch


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="what steps")
    parser.add_argument("--lr", type=number(low=0.0), default=1e-3, metavar="X", help="step size")
    parser.add_argument("--steps", type=whole(0), default=400, metavar="N", help="how many steps")
    parser.add_argument(
        "--batch-size", type=whole(1), default=64, metavar="N", help="images per step"
    )
    parser.add_argument("--norm", choices=NORMS, default="instance", help="kind of norms")
    parser.add_argument(
        "--seed", type=whole(0, 2**64 - 1), default=DEFAULT_SEED, metavar="N", help="master seed"
    )


def _run(options: BackpropOptions) -> int:
    torch = require_torch()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    dataset = load(options.dataset, options.data)
    network, flops = _make_network(torch, options)
    report = _train(torch, network, dataset, options)
    report["flops_per_step"] = (1 + _BACKWARD) * flops * options.batch_size
    accuracy = report["test_accuracy"]
    print(
        f"test accuracy {accuracy:.2f} % on {len(dataset.x_test):,} images after "
        f"{options.steps} steps of {options.optimizer}; {report['seconds']:.1f} s"
    )
    if options.json is not None:
        text = json.dumps(report, indent=2, allow_nan=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return _cli.STATUS_OK


def _make_network(torch: Any, options: BackpropOptions) -> tuple[Any, int]:
    """Build the network with the market's initial weights; count a forward pass's operations."""
    random.manual_seed(options.seed)
    model = digit_structure("depth-1", options.norm).specs("star")[0].model
    nn = torch.nn

    def norm(channels: int) -> Any:
        if options.norm == "batch":
            return nn.BatchNorm2d(channels)
        return nn.InstanceNorm2d(channels, affine=True)

    network = nn.Sequential(
        nn.Conv2d(1, 32, 5), nn.ReLU(), nn.Conv2d(32, 32, 5), nn.ReLU(),
        norm(32), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        norm(64), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(576, 10),
    )  # fmt: skip
    state = {
        key.removeprefix("layers."): torch.from_numpy(np.array(value))
        for key, value in model.state_dict().items()
    }
    network.load_state_dict(state)
    return network, model._core.flops(IMAGE_SHAPE)


def _train(torch: Any, network: Any, dataset: Dataset, options: BackpropOptions) -> dict[str, Any]:
    stepper = _make_stepper(torch, network.parameters(), options)
    x_train, y_train = torch.from_numpy(np.asarray(dataset.x_train)), dataset.y_train
    labels = torch.from_numpy(y_train).long()
    history, losses = [], []
    started = time.perf_counter()
    for step in range(options.steps):
        indices = batch_indices(options.seed, step, options.batch_size, len(y_train))
        logits = network(x_train[indices].float())
        loss = torch.nn.functional.cross_entropy(logits, labels[indices])
        network.zero_grad()
        loss.backward()
        stepper.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise ValueError(f"step {step + 1}: expected a finite loss, received {losses[-1]}")
        if (step + 1) % options.eval_every == 0 and step + 1 < options.steps:
            history.append(_point(torch, network, dataset, step + 1, losses, 1_000))
            losses.clear()
            if not options.quiet:
                print(f"step {step + 1}: {history[-1]}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    history.append(_point(torch, network, dataset, options.steps, losses, len(dataset.x_test)))
    return {
        "test_accuracy": history[-1]["test_accuracy"],
        "test_images": len(dataset.x_test),
        "train_images": len(y_train),
        "steps": options.steps,
        "seconds": seconds,
        "device": "cpu",
        "dtype": "float32",
        "history": history,
        "options": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(options).items()
        },
    }


def _point(
    torch: Any, network: Any, dataset: Dataset, step: int, losses: list[float], most: int
) -> dict[str, Any]:
    """Measure the accuracy on so many test images at most, evenly spread."""
    stride = -(-len(dataset.x_test) // most)
    x, y = np.asarray(dataset.x_test[::stride]), dataset.y_test[::stride]
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(x), _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            chosen = network(torch.from_numpy(x[part]).float()).argmax(dim=1).numpy()
            right += int(np.count_nonzero(chosen == y[part]))
    network.train()
    loss = float(np.mean(losses)) if losses else None
    return {"step": step, "loss": loss, "test_accuracy": 100.0 * right / len(x)}


# -- what steps ------------------------------------------------------------------------------------


def _make_stepper(torch: Any, parameters: Iterable[Any], options: BackpropOptions) -> Any:
    every = list(parameters)
    if options.optimizer == "adam":
        return torch.optim.Adam(every, lr=options.lr)
    if options.optimizer == "sgd":
        return torch.optim.SGD(every, lr=options.lr)
    if options.optimizer == "momentum":
        return torch.optim.SGD(every, lr=options.lr, momentum=0.9)
    return Muon(torch, every, options.lr)


class Muon:
    """Muon for matrices and kernels, Adam for everything else.

    ``m = 0.95 m + g``, then ``W -= lr sqrt(max(1, rows / columns)) orth(g + 0.95 m)``, ``orth``
    being five Newton-Schulz steps towards the nearest matrix with orthonormal rows or columns (K.
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). Kernels count
    as matrices (O, C kh kw).
    """

    def __init__(self, torch: Any, parameters: Sequence[Any], lr: float) -> None:
        self._torch = torch
        self._lr = lr
        self._matrices = [p for p in parameters if p.ndim >= 2]
        self._momenta = [torch.zeros_like(p) for p in self._matrices]
        self._adam = torch.optim.Adam([p for p in parameters if p.ndim < 2], lr=lr)

    def step(self) -> None:
        """Take a step along the present gradients."""
        self._adam.step()
        with self._torch.no_grad():
            for parameter, momentum in zip(self._matrices, self._momenta, strict=True):
                momentum.mul_(0.95).add_(parameter.grad)
                matrix = (parameter.grad + 0.95 * momentum).flatten(1)
                rows, columns = matrix.shape
                step = self._lr * max(1.0, rows / columns) ** 0.5
                parameter -= step * orthogonalise(matrix).view_as(parameter)


def orthogonalise(matrix: Any) -> Any:
    """Move a matrix's singular values towards 1 by five Newton-Schulz steps of fifth order."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


if __name__ == "__main__":
    sys.exit(main())
