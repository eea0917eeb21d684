"""Node perturbation on the network of the MNIST example: it learns, and costs what docs say."""

import pathlib
import re

import marketplace as mp
import numpy as np
import pytest
from marketplace import data, nn

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "node.md"


def market(counts, seed=1):
    """The network of the MNIST example, a spec per layer with weights."""
    mp.random.manual_seed(seed)
    layers = [
        (nn.Conv2d(1, 32, 5), nn.relu),
        (nn.Conv2d(32, 32, 5), nn.relu, nn.InstanceNorm(32), nn.max_pool2d),
        (nn.Conv2d(32, 64, 3), nn.relu),
        (nn.Conv2d(64, 64, 3), nn.relu, nn.InstanceNorm(64), nn.max_pool2d, nn.flatten),
        (nn.Linear(576, 10),),
    ]
    return [
        mp.Spec(nn.Model(*row), vendor_count=count)
        for row, count in zip(layers, counts, strict=True)
    ]


def accuracy(counts):
    """Of 500 test digits, after 80 steps; which specs have changed."""
    digits, rng = data.load("mnist", "bundled"), np.random.default_rng(1)
    specs = market(counts)
    first = [{k: v.copy() for k, v in spec.model.state_dict().items()} for spec in specs]
    opt = mp.Optimizer(specs, 3e-3, plan="node", seed=1)
    for _ in range(80):
        chosen = rng.choice(len(digits.x_train), 64, replace=False)
        opt.train_step(digits.x_train[chosen], digits.y_train[chosen])
    right = np.asarray(mp.straight_forward(specs, digits.x_test[:500])).argmax(axis=1)
    moved = [
        any((before[k] != v).any() for k, v in spec.model.state_dict().items())
        for before, spec in zip(first, specs, strict=True)
    ]
    return (right == digits.y_test[:500]).mean(), moved


@pytest.mark.slow
def test_digits():
    """More than the output layer alone makes of random features."""
    learnt, moved = accuracy((1, 1, 1, 17, 1))
    control, moved_alone = accuracy((1, 1, 1, 1, 1))
    assert moved == [False] * 3 + [True] * 2 and moved_alone == [False] * 4 + [True]
    assert learnt > 0.88
    assert learnt > control + 0.01


def numbers(cell):
    """Every number of a table's cell."""
    return [float(part.replace(",", "")) for part in re.findall(r"[\d.,]+", cell)]


def probe_flops(spec):
    """What one more probe of a spec costs, and what the first costs beside the forward pass."""

    def flops(vendors):
        counts = [vendors if i == spec else 1 for i in range(5)]
        return mp.Optimizer(market(counts), 0.1, plan="node").flops_per_step((1, 28, 28), 1)

    return flops(3) - flops(2), flops(2) - flops(1)


def test_the_costs_in_the_docs():
    text = DOCS.read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line[:6] in ("| conv", "| line")]
    products = [int(numbers(row[2])[0]) for row in rows]
    assert len(rows) == 5 and f"One forward pass is {sum(products):,}." in text
    for spec, row in enumerate(rows[:-1]):
        shape, (channels, behind) = numbers(row[1]), numbers(row[3])
        (probe,), (scratch,), (ratio,) = (numbers(cell) for cell in row[4:])
        elementwise = 8 * np.prod(shape)
        assert probe_flops(spec) == (probe, products[spec] + probe)
        assert channels == shape[0]
        assert probe == elementwise + products[spec + 1] + channels * behind
        assert scratch == channels * (elementwise + products[spec + 1] + behind)
        assert ratio == float(f"{scratch / probe:.2g}")
