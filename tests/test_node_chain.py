"""Plan "node": markets whose layers it cannot follow are refused by name, others are not."""

import marketplace as mp
import pytest
from marketplace import nn
from markets import batch, same_states
from refusals import refusal


def skip(value):
    return value + value.relu()


CHAINS = [
    ([[nn.Linear(6, 5), skip], [nn.Linear(5, 3)]], (6,), "no branches", "add in layers.1"),
    (
        [[nn.Conv2d(1, 4, 3), nn.BatchNorm(4), nn.flatten], [nn.Linear(64, 3)]],
        (1, 6, 6),
        "apart",
        "batch_norm in layers.1 (BatchNorm)",
    ),
    (
        [[nn.Linear(6, 5), nn.LayerNorm(5)], [nn.Linear(5, 3)]],
        (6,),
        "apart",
        "layer_norm in layers.1 (LayerNorm)",
    ),
    (
        [[nn.Conv2d(2, 4, 3, groups=2), nn.flatten], [nn.Linear(64, 3)]],
        (2, 6, 6),
        "groups",
        "conv2d in layers.0 (Conv2d)",
    ),
    ([[nn.Linear(6, 5)], [nn.Linear(5, 3), nn.relu]], (6,), "at the end", "unary in layers.1"),
    (
        [[nn.Conv2d(1, 4, 3), nn.relu], [nn.Conv2d(4, 3, 4), nn.flatten]],
        (1, 6, 6),
        "a linear layer at the end",
        "flatten in layers.1",
    ),
    (
        [[nn.Linear(6, 4), nn.tanh, nn.flatten], [nn.Linear(8, 3)]],
        (2, 6),
        "linear layers on (B, C)",
        "linear in layers.0",
    ),
    (
        [[nn.Conv2d(1, 4, 3), lambda v: v.mean(1), nn.flatten], [nn.Linear(16, 3)]],
        (1, 6, 6),
        "a mean over pixels",
        "mean in layers.1",
    ),
    (
        [[nn.Conv2d(1, 4, 3), lambda v: v.reshape(v.shape[0], 2, 32), nn.flatten]]
        + [[nn.Linear(64, 3)]],
        (1, 6, 6),
        "flattened",
        "reshape in layers.1",
    ),
]


@pytest.mark.parametrize("layers, shape, expected, layer", CHAINS)
def test_what_breaks_the_chain_is_named(layers, shape, expected, layer):
    counts = [3] * (len(layers) - 1) + [1]
    market = [
        mp.Spec(nn.Model(*row), vendor_count=count)
        for row, count in zip(layers, counts, strict=True)
    ]
    opt = mp.Optimizer(market, 0.1, plan="node", seed=1)
    x, y = batch((4, *shape))
    with refusal(ValueError, "plan 'node'", expected, layer):
        opt.probe(x, y)
    with refusal(ValueError, "plan 'node'", expected, layer):
        opt.flops_per_step(shape, 4)


def test_no_layer_at_all():
    opt = mp.Optimizer([mp.Spec(nn.Model(nn.relu), vendor_count=1)], 0.1, plan="node", seed=1)
    with refusal(ValueError, "plan 'node'", "a linear layer at the end"):
        opt.probe(*batch((4, 3)))


def test_frozen_specs_may_hold_anything():
    frozen = [
        [nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.BatchNorm(4), skip],
        [nn.LayerNorm((4, 6, 6)), lambda v: v.mean(1), nn.flatten],
    ]
    market = [mp.Spec(nn.Model(*row), vendor_count=1) for row in frozen]
    market += [mp.Spec(nn.Model(nn.Linear(36, 8), nn.tanh), vendor_count=5)]
    market += [mp.Spec(nn.Model(nn.Linear(8, 3)), vendor_count=1)]
    before = [{k: v.copy() for k, v in spec.model.state_dict().items()} for spec in market]
    opt = mp.Optimizer(market, 0.05, plan="node", seed=1)
    x, y = batch((40, 2, 6, 6))
    first = opt.probe(x, y)[0][0]
    for _ in range(40):
        opt.train_step(x, y)
    assert opt.probe(x, y)[0][0] < 0.5 * first
    same_states(before[:2], [spec.model.state_dict() for spec in market[:2]])
