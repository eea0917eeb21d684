"""Several minibatches with the same vendors add up to one update, against the oracle."""

import numpy as np
import pytest
import reference_market as oracle
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    MODES,
    PLANS,
    VENDORS,
    build,
    close,
    close_parameters,
    conv,
    linear,
    norm,
    optimizer,
    same_bits,
    same_states,
    states,
)
from updates import MASTER, joined, replica_seeds, several

NORMED = [[conv(1, 3, 3), norm(3, "batch_norm"), ("relu", {}), ("flatten", {"dims": (1,)})]]
NORMED += [[linear(108, 3)]]

# -- several minibatches with the same vendors -----------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
def test_forward_pass_against_the_oracle(plan, mode):
    built, minibatches = build(CONV, VENDORS), several(CONV_SHAPE, 3)
    opt = optimizer(built, seed=MASTER, plan=plan)
    deltas, weights = built.deltas(replica_seeds(0), AMPLITUDE), built.weights
    paths = PLANS[plan](VENDORS)
    losses = [oracle.path_losses(built.models, weights, deltas, *b, paths) for b in minibatches]
    expected = np.mean(losses, axis=0)
    direction = oracle.directions(expected, paths, deltas, mode.value, plan)
    loss, rows = opt.train_step(*joined(minibatches), unit_vector_mode=mode, forward_pass=3)
    assert loss.dtype == np.float32 and rows.tolist() == paths.tolist()
    close(loss, expected)
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))
    assert (opt.global_step, opt.generation) == (1, 1)


def test_accumulate_gives_the_mean_so_far():
    opt, minibatches = optimizer(build(MLP, VENDORS), seed=MASTER), several(MLP_SHAPE, 3)
    each = np.array([opt.probe(*b)[0] for b in minibatches], np.float64)
    opt.update_seeds()
    opt = optimizer(build(MLP, VENDORS), seed=MASTER)
    for count, minibatch in enumerate(minibatches, start=1):
        same_bits(opt.accumulate(*minibatch)[0], each[:count].mean(0).astype(np.float32))


def test_a_probe_counts_as_the_first_and_drops_earlier_ones():
    minibatches = several(MLP_SHAPE, 3)
    one, other = (optimizer(build(MLP, VENDORS), seed=MASTER) for _ in range(2))
    one.accumulate(*minibatches[2])
    one.probe(*minibatches[0])
    other.accumulate(*minibatches[0])
    for opt in (one, other):
        opt.accumulate(*minibatches[1])
    same_bits(one.accumulate(*minibatches[2])[0], other.accumulate(*minibatches[2])[0])


@pytest.mark.parametrize("redraw", ["step", "update_seeds", "add_replica", "keep_best"])
def test_new_vendors_start_a_new_mean(redraw):
    minibatches = several(MLP_SHAPE, 2)
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=MASTER)
    scores = opt.accumulate(*minibatches[0])
    getattr(opt, redraw)(*(() if redraw == "update_seeds" else scores))
    mean = opt.accumulate(*minibatches[1])[0]
    same_bits(mean, opt.probe(*minibatches[1])[0])


def test_accumulate_and_step_are_train_step():
    minibatches = several(MLP_SHAPE, 4)
    one, other = build(MLP, VENDORS), build(MLP, VENDORS)
    parts, whole = optimizer(one, seed=MASTER), optimizer(other, seed=MASTER)
    for _ in range(2):
        for minibatch in minibatches:
            scores = parts.accumulate(*minibatch)
        parts.step(*scores)
        whole.train_step(*joined(minibatches), forward_pass=4)
    same_states(states(one), states(other))


def test_a_refused_minibatch_leaves_the_mean():
    opt, minibatches = optimizer(build(MLP, VENDORS), seed=MASTER), several(MLP_SHAPE, 2)
    opt.accumulate(*minibatches[0])
    bad = minibatches[1][0].copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match="sample 1 at element 2"):
        opt.accumulate(bad, minibatches[1][1])
    after = opt.accumulate(*minibatches[1])[0]
    fresh = optimizer(build(MLP, VENDORS), seed=MASTER)
    fresh.accumulate(*minibatches[0])
    same_bits(after, fresh.accumulate(*minibatches[1])[0])


def test_batch_norms_take_over_every_minibatch():
    """Running statistics move once per minibatch, as if each had been probed before a step."""
    minibatches = several((6, 1, 8, 8), 3)
    built = build(NORMED, (3, 4))
    opt = optimizer(built, seed=MASTER)
    for minibatch in minibatches:
        scores = opt.accumulate(*minibatch)
    weights = built.weights[0]
    opt.step(*scores)
    state = built.specs[0].model.state_dict()
    assert int(state["layers.1.num_batches_tracked"]) == 3
    mean = np.zeros(3)
    for x, _ in minibatches:
        y = oracle.reference.conv2d(x, weights["layers.0.weight"], weights["layers.0.bias"])
        mean += 0.1 * (y.mean(axis=(0, 2, 3)) - mean)
    close(state["layers.1.running_mean"], mean)
