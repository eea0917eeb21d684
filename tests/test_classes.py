"""Losses over some of the classes, against the oracle."""

import numpy as np
import pytest
import reference_market as oracle
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    PLANS,
    VENDORS,
    build,
    close,
    close_parameters,
    optimizer,
    same_bits,
    same_states,
    states,
)
from updates import MASTER, replica_seeds

CLASSES = [0, 2]


def batch(shape, seed=1):
    """Samples with labels among the chosen classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    return x, rng.choice(CLASSES, size=shape[0]).astype(np.int32)


def path_losses(built, deltas, x, y, paths):
    logits = oracle.forward(built.models, built.weights, deltas, x, paths)[:, :, CLASSES]
    places = np.searchsorted(CLASSES, y)
    return np.array([oracle.reference.cross_entropy(row, places) for row in logits])


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("description, shape", [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)])
def test_a_step_over_some_classes(description, shape, plan):
    built, (x, y) = build(description, VENDORS), batch(shape)
    opt = optimizer(built, seed=MASTER, plan=plan)
    opt.classes = CLASSES
    paths, weights = PLANS[plan](VENDORS), built.weights
    deltas = built.deltas(replica_seeds(0), AMPLITUDE)
    expected = path_losses(built, deltas, x, y, paths)
    loss, rows = opt.train_step(x, y)
    close(loss, expected)
    assert rows.tolist() == paths.tolist()
    direction = oracle.directions(expected, paths, deltas, plan=plan)
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))


def test_minibatches_replicas_and_a_line_search():
    """Together they are the same as one after another."""
    (x, y), results = batch((8, 6)), []
    for together in (True, False):
        built = build(MLP, VENDORS)
        opt = optimizer(built, seed=MASTER, meta_learning_rate=0.3)
        opt.classes = CLASSES
        if together:
            opt.train_step(x, y, forward_pass=2, marketplace_replica=2)
        else:
            for replica in range(2):
                for part in (slice(0, 4), slice(4, 8)):
                    scores = opt.accumulate(x[part], y[part])
                if replica == 0:
                    opt.add_replica(*scores)
            opt.step(*scores)
        results.append(states(built))
    same_states(*results)


def test_all_classes_are_the_same_as_none_chosen():
    x, y = batch(MLP_SHAPE)
    plain, chosen = (optimizer(build(MLP, VENDORS), seed=MASTER) for _ in range(2))
    chosen.classes = range(3)
    close(chosen.probe(x, y)[0], plain.probe(x, y)[0], relative=1e-6)


def test_ignored_labels_count_for_nothing():
    x, y = batch(MLP_SHAPE)
    y[[1, 4]] = 1
    opt = optimizer(build(MLP, VENDORS), seed=MASTER)
    opt.classes = CLASSES
    kept = y != 1
    same_bits(opt.probe(x, y, ignore_index=1)[0], opt.probe(x[kept], y[kept])[0])


def test_the_missing_class_learns_nothing_from_the_loss():
    """Its logits may be anything: the losses stay."""
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    opt.classes = CLASSES
    before = opt.probe(x, y)[0]
    state = built.specs[2].model.state_dict()
    state["layers.0.bias"][1] += 50
    built.specs[2].model.load_state_dict(state)
    close(opt.probe(x, y)[0], before, relative=1e-6)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], "different classes, at least one"),
        ([1, 1], "different classes, at least one"),
        ([0, 2, 3], "logits of more than 3 classes"),
        ([-1, 0], "a class of at least 0"),
        ([0, 1], r"labels among the classes \[0, 1\], received 2 at sample"),
    ],
)
def test_refusals(classes, words):
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    y[3] = 2
    opt = optimizer(built, seed=MASTER)
    opt.classes = classes
    before = states(built)
    with pytest.raises(ValueError, match=f"probe: expected {words}"):
        opt.train_step(x, y)
    same_states(before, states(built))


@pytest.mark.parametrize("plan", ["scatter", "node"])
def test_only_over_whole_paths(plan):
    opt, (x, y) = optimizer(build(MLP, VENDORS), seed=MASTER, plan=plan), batch(MLP_SHAPE)
    opt.classes = CLASSES
    with pytest.raises(ValueError, match="expected plan 'tree' or 'star' with classes"):
        opt.probe(x, y)
