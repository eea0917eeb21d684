"""Updates that are refused, or fail on the way, leave weights and vendors as they were."""

import numpy as np
import pytest
import reference_market as oracle
from markets import (
    AMPLITUDE,
    MLP,
    MLP_SHAPE,
    VENDORS,
    batch,
    build,
    close_parameters,
    optimizer,
    same_bits,
    same_states,
    states,
)
from updates import MASTER, refused, replica_seeds


@pytest.mark.parametrize("name", ["forward_pass", "marketplace_replica"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_counts_are_whole_numbers_of_at_least_one(name, value, error):
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    with refused(opt, built, error, f"{name} .*received"):
        opt.train_step(x, y, **{name: value})


def test_minibatches_are_equal():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    words = "samples that 2 minibatches can share, received 7 samples"
    with refused(opt, built, ValueError, words):
        opt.train_step(x, y, forward_pass=2)


def test_a_rate_too_large_for_the_next_vendors():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER, probe_scale=10.0)
    loss, paths = opt.probe(x, y)
    opt.learning_rate = 1e38
    with refused(opt, built, ValueError, "probe amplitude: expected a finite number"):
        opt.step(loss, paths)


def test_a_line_search_whose_next_vendors_would_overflow():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER, meta_learning_rate=0.5, learning_rate=2.0)
    opt.probe_scale = 3e38
    with refused(opt, built, ValueError, "probe amplitude: expected a finite number"):
        opt.train_step(x, y)


def test_a_state_that_is_refused_leaves_nothing_behind():
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=MASTER, update="momentum")
    x, y = batch(MLP_SHAPE)
    opt.train_step(x, y)
    native = opt._native
    before = native.state()
    for name, value in {
        "seeds.0": np.zeros(99, np.uint64),
        "amplitudes": np.full(3, np.nan, np.float32),
        "learning_rates": np.full(3, np.inf, np.float32),
        "rule.first.0": np.zeros(1, np.float32),
    }.items():
        with pytest.raises(ValueError):
            native.load_state(before | {"rule.steps": 77, "generation": 5, name: value})
        after = native.state()
        assert after.keys() == before.keys()
        for key, kept in before.items():
            assert np.array_equal(after[key], kept), key


def test_a_failing_replica_leaves_weights_and_vendors(monkeypatch):
    """The third draw meets a loss that is not finite."""
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    kept, accumulate = [], opt.accumulate

    def poisoned(*arguments, **options):
        loss, paths = accumulate(*arguments, **options)
        kept.append(loss)
        return (loss if len(kept) < 3 else loss * np.nan), paths

    monkeypatch.setattr(opt, "accumulate", poisoned)
    words = r"finite losses, received .*nan at path \(0, 0, 0\)"
    with refused(opt, built, ValueError, words):
        opt.train_step(x, y, marketplace_replica=4)
    assert len(kept) == 3
    monkeypatch.undo()
    fresh = build(MLP, VENDORS)
    optimizer(fresh, seed=MASTER).train_step(x, y, marketplace_replica=2)
    opt.train_step(x, y, marketplace_replica=2)
    same_states(states(built), states(fresh))


def test_drop_replicas_goes_back_to_given_seeds():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, replica_seeds(7))
    first = opt.probe(x, y)
    opt.add_replica(*first)
    opt.drop_replicas()
    same_bits(opt.probe(x, y)[0], first[0])
    opt.drop_replicas()  # nothing to drop: nothing happens
    same_bits(opt.probe(x, y)[0], first[0])


def test_one_mode_for_all_replicas():
    opt, (x, y) = optimizer(build(MLP, VENDORS), seed=MASTER), batch(MLP_SHAPE)
    opt.add_replica(*opt.probe(x, y), "whole")
    scores = opt.probe(x, y)
    for call in (opt.add_replica, opt.step, opt.compute_direction_vectors):
        with pytest.raises(ValueError, match="unit_vector_mode: expected .* received"):
            call(*scores, "per_spec")
    opt.step(*scores, "whole")


def test_no_saving_between_replicas(tmp_path):
    opt, (x, y) = optimizer(build(MLP, VENDORS), seed=MASTER), batch(MLP_SHAPE)
    opt.add_replica(*opt.probe(x, y))
    with pytest.raises(RuntimeError, match=r"save: expected .*, received 1 replicas"):
        opt.save(tmp_path / "state.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["add_replica", "keep_best"])
def test_not_within_a_line_search(name):
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER, meta_learning_rate=0.5)
    scores = opt.probe(x, y)
    opt.update_lr_scales(opt.compute_direction_vectors(*scores))
    with pytest.raises(RuntimeError, match=f"{name}: expected .*, received a line search"):
        getattr(opt, name)(*scores)


def test_a_replica_of_equal_losses_adds_nothing():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    paths = opt.probe(x, y)[1]
    with pytest.warns(RuntimeWarning, match="add_replica: all losses are equal"):
        opt.add_replica(np.ones(len(paths), np.float32), paths)
    deltas, weights = built.deltas(replica_seeds(1), AMPLITUDE), built.weights
    scores = opt.probe(x, y)
    opt.step(*scores)
    direction = oracle.directions(*scores, deltas)
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))
