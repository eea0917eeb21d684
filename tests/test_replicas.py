"""Several draws of all vendors add up to one update, against the oracle; the line search."""

import marketplace as mp
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
    batch,
    build,
    close,
    close_parameters,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)
from updates import MASTER, joined, replica_seeds, several

# -- several draws of the vendors ------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("description, shape", [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)])
def test_replicas_against_the_oracle(description, shape, plan, mode):
    built, (x, y) = build(description, VENDORS), batch(shape)
    opt = optimizer(built, seed=MASTER, plan=plan)
    paths, weights = PLANS[plan](VENDORS), built.weights
    deltas = [built.deltas(replica_seeds(r), AMPLITUDE) for r in range(3)]
    losses = [oracle.path_losses(built.models, weights, d, x, y, paths) for d in deltas]
    direction = oracle.replica_directions(losses, paths, deltas, mode.value, plan)
    loss, _ = opt.train_step(x, y, unit_vector_mode=mode, marketplace_replica=3)
    close(loss, losses[2])
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))
    assert (opt.global_step, opt.generation, opt.replica) == (1, 1, 0)


@pytest.mark.parametrize("plan", PLANS)
def test_replicas_of_several_minibatches(plan):
    built, minibatches = build(MLP, VENDORS), several(MLP_SHAPE, 2)
    opt = optimizer(built, seed=MASTER, plan=plan)
    paths, weights = PLANS[plan](VENDORS), built.weights
    deltas = [built.deltas(replica_seeds(r), AMPLITUDE) for r in range(2)]
    losses = [
        np.mean([oracle.path_losses(built.models, weights, d, *b, paths) for b in minibatches], 0)
        for d in deltas
    ]
    opt.train_step(*joined(minibatches), forward_pass=2, marketplace_replica=2)
    direction = oracle.replica_directions(losses, paths, deltas, plan=plan)
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))


def test_seeds_of_a_replica_follow_their_formula():
    opt, (x, y) = optimizer(build(MLP, VENDORS), seed=MASTER), batch(MLP_SHAPE)
    for generation in range(2):
        for replica in range(3):
            assert opt.replica == replica
            for actual, expected in zip(
                seeds_of(opt), replica_seeds(replica, generation), strict=True
            ):
                same_bits(actual, expected)
            if replica < 2:
                opt.add_replica(*opt.probe(x, y))
        opt.step(*opt.probe(x, y))


def test_replicas_of_equal_seeds_would_change_nothing():
    """The sum is normalised: with the same draw twice the step would be that of one."""
    (x, y), steps = batch(MLP_SHAPE), []
    for replicas in (1, 2):
        built = build(MLP, VENDORS)
        before = built.weights
        optimizer(built, seed=MASTER).train_step(x, y, marketplace_replica=replicas)
        steps.append([built.weights[i][k] - before[i][k] for i in range(3) for k in before[i]])
    norms = [np.sqrt(sum((np.float64(d) ** 2).sum() for d in step)) for step in steps]
    close(norms, [0.3 * np.sqrt(3)] * 2)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*steps, strict=True))


def test_directions_may_be_read_with_replicas_under_way():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = optimizer(built, seed=MASTER)
    opt.add_replica(*opt.probe(x, y))
    scores = opt.probe(x, y)
    direction = opt.compute_direction_vectors(*scores)
    weights = built.weights
    opt.step(*scores)
    close_parameters(built, oracle.step(weights, direction, [0.3] * 3))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bits_for_any_number_of_threads(plan, dtype):
    results = []
    for threads in (1, 2, 3, 5):
        built = build(CONV, VENDORS)
        opt = optimizer(built, seed=MASTER, threads=threads, plan=plan, dtype=dtype)
        for step in range(2):
            x, y = batch((12, 1, 8, 8), seed=step)
            loss, _ = opt.train_step(x, y, forward_pass=2, marketplace_replica=2)
        results.append((loss, states(built)))
    for loss, state in results[1:]:
        same_bits(loss, results[0][0])
        same_states(state, results[0][1])


def test_saved_between_steps_and_resumed(tmp_path):
    (x, y), path = batch((8, 6)), tmp_path / "state.safetensors"
    settings = {"forward_pass": 2, "marketplace_replica": 3}
    one, other = build(MLP, VENDORS), build(MLP, VENDORS, seed=9)
    opt = optimizer(one, seed=MASTER)
    opt.train_step(x, y, **settings)
    opt.save(path)
    again = mp.Optimizer.resume(path, other.specs)
    for _ in range(2):
        opt.train_step(x, y, **settings)
        again.train_step(x, y, **settings)
    same_states(states(one), states(other))


def test_upstream_sampling_is_drawn_anew_for_every_replica():
    (x, y), sampling = batch(MLP_SHAPE), [0, 2, 3]
    opt = optimizer(build(MLP, VENDORS, sampling=sampling), seed=MASTER)
    seen = []
    for _ in range(3):
        loss, paths = opt.probe(x, y)
        outputs, rows = mp.forward(opt.marketplace, x, vendors=opt.vendors)
        data, known = x, None
        for index, spec in enumerate(opt.marketplace):
            data, known = mp.produce(spec, data, opt.vendors[index], known)
        assert known.tolist() == rows.tolist() == paths.tolist()
        seen.append(paths.tobytes())
        opt.add_replica(loss, paths)
    assert len(set(seen)) == 3


# -- the line search -------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_line_search_on_all_minibatches_with_the_last_replicas_seeds(plan):
    built, minibatches = build(MLP, VENDORS), several(MLP_SHAPE, 2)
    opt = optimizer(built, seed=MASTER, meta_learning_rate=0.5, plan=plan)
    paths, weights = PLANS[plan](VENDORS), built.weights
    deltas = [built.deltas(replica_seeds(r), AMPLITUDE) for r in range(2)]

    def mean_losses(vendors):
        each = [oracle.path_losses(built.models, weights, vendors, *b, paths) for b in minibatches]
        return np.mean(each, axis=0)

    direction = oracle.replica_directions(
        [mean_losses(d) for d in deltas], paths, deltas, plan=plan
    )
    seeds = replica_seeds(1)
    scales = [oracle.meta_scales(built.shapes(i), seeds[i], 0.5) for i in range(3)]
    trial = [oracle.meta_deltas(direction[i], 0.3, scales[i]) for i in range(3)]
    best = paths[np.argmin(mean_losses(trial))]
    rates = oracle.meta_learning_rates([0.3] * 3, scales, best)
    opt.train_step(*joined(minibatches), forward_pass=2, marketplace_replica=2)
    close([context.learning_rate for context in opt.spec_context], rates)
    close_parameters(built, oracle.step(weights, direction, rates))


def test_flops_of_an_update():
    opt = optimizer(build(MLP, VENDORS), seed=MASTER)
    once = opt.flops_per_step((6,), 5)
    assert opt.flops_per_step((6,), 5, forward_pass=3, marketplace_replica=4) == 12 * once
    opt.meta_learning_rate = 0.1
    assert opt.flops_per_step((6,), 5, forward_pass=3, marketplace_replica=4) == 15 * once
