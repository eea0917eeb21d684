"""Plan "node" as an optimizer's plan: steps, minibatches, replicas, refusals, costs."""

import numpy as np
import pytest
import reference_market as oracle
from markets import (
    CONV,
    FLATTEN,
    MLP,
    MLP_SHAPE,
    POOL,
    RELU,
    TANH,
    VENDORS,
    batch,
    build,
    close,
    conv,
    linear,
    norm,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)
from nodes import gradients_of, node
from refusals import Trained, refusal
from updates import MASTER, refused, replica_seeds, several

RATE = 0.5
PLAIN = {"update": "momentum", "momentum": 0.0, "learning_rate": RATE, "seed": MASTER}
SHAPE = (9, 1, 8, 8)


def moved(built, before):
    return [
        {key: np.float64(after[key]) - start[key] for key in start}
        for after, start in zip(built.weights, before, strict=True)
    ]


def assert_moved_along(built, before, gradients):
    """W changed by minus the rate times the gradient, up to the rounding of W."""
    for change, gradient, base in zip(moved(built, before), gradients, before, strict=True):
        for key, value in gradient.items():
            room = 1e-6 * np.abs(value).max() + 2**-23 * np.abs(base[key]).max()
            assert np.abs(change[key] + RATE * np.float64(value)).max() <= room, key


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("description, shape", [(CONV, SHAPE), (MLP, MLP_SHAPE)])
def test_a_step_goes_downhill(description, shape):
    built, (x, y) = build(description, VENDORS), batch(shape)
    opt, before = node(built, **PLAIN), built.weights
    expected_loss, gradients = gradients_of(opt, x, y)
    loss, paths = opt.probe(x, y)
    assert (loss.shape, loss.dtype) == ((1,), np.float32)
    assert paths.tolist() == [[0, 0, 0]] and paths.dtype == np.int32
    close(loss[0], expected_loss, relative=1e-6)
    opt.step(loss, paths)
    assert_moved_along(built, before, gradients)
    assert (opt.global_step, opt.generation) == (1, 1)
    for actual, expected in zip(seeds_of(opt), replica_seeds(0, generation=1), strict=True):
        same_bits(actual, expected)


def test_train_step_is_probe_and_step():
    (x, y), ends = batch(SHAPE), []
    for together in (True, False):
        built = build(CONV, VENDORS)
        opt = node(built, seed=MASTER)
        for _ in range(3):
            if together:
                opt.train_step(x, y)
            else:
                opt.step(*opt.probe(x, y))
        ends.append(states(built))
    same_states(*ends)


def test_a_probe_changes_nothing_and_may_be_repeated():
    built, (x, y) = build(CONV, VENDORS), batch(SHAPE)
    opt, before = node(built, **PLAIN), states(built)
    gradients = gradients_of(opt, x, y)[1]
    start = built.weights
    for _ in range(3):
        scores = opt.probe(x, y)
    same_states(before, states(built))
    opt.step(*scores)
    assert_moved_along(built, start, gradients)


def test_directions_are_unit_vectors_downhill():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = node(built, **PLAIN)
    gradients = gradients_of(opt, x, y)[1]
    for mode in ("per_spec", "whole"):
        found = opt.compute_direction_vectors(*opt.probe(x, y), mode)
        expected = oracle.unit_vectors(
            [{k: -np.float64(v) for k, v in spec.items()} for spec in gradients], mode
        )
        for mine, theirs in zip(found, expected, strict=True):
            for key in theirs:
                close(mine[key], theirs[key], relative=1e-5)


def test_minibatches_are_averaged():
    built, parts = build(CONV, VENDORS), several(SHAPE, 3)
    opt, before = node(built, **PLAIN), built.weights
    each = [gradients_of(opt, *part) for part in parts]
    for part in parts:
        loss, paths = opt.accumulate(*part)
    close(loss[0], np.mean([one[0] for one in each]), relative=1e-6)
    opt.step(loss, paths)
    mean = [
        {key: np.mean([one[1][spec][key] for one in each], axis=0) for key in before[spec]}
        for spec in range(3)
    ]
    assert_moved_along(built, before, mean)


def test_a_probe_drops_earlier_minibatches():
    built, parts = build(MLP, VENDORS), several(MLP_SHAPE, 2)
    opt, before = node(built, **PLAIN), built.weights
    gradients = gradients_of(opt, *parts[1])[1]
    opt.accumulate(*parts[0])
    opt.step(*opt.probe(*parts[1]))
    assert_moved_along(built, before, gradients)


def test_replicas_are_averaged():
    """Gradients have a size: more draws make them better, not longer."""
    built, (x, y) = build(CONV, VENDORS), batch(SHAPE)
    before, each = built.weights, []
    for replica in range(3):
        each.append(gradients_of(node(built, replica_seeds(replica)), x, y)[1])
    opt = node(built, **PLAIN)
    opt.train_step(x, y, marketplace_replica=3)
    mean = [
        {key: np.mean([one[spec][key] for one in each], axis=0) for key in before[spec]}
        for spec in range(3)
    ]
    assert np.abs(each[0][0]["layers.0.weight"] - each[1][0]["layers.0.weight"]).max() > 1e-4
    assert_moved_along(built, before, mean)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("counts", [VENDORS, (1, 4, 5)])
def test_the_same_bits_for_any_number_of_threads(counts, dtype):
    results = []
    for threads in (1, 2, 3, 5):
        built = build(CONV, counts)
        opt = node(built, seed=MASTER, threads=threads, dtype=dtype)
        for step in range(3):
            x, y = batch((26, 1, 8, 8), seed=step)
            loss, _ = opt.train_step(x, y, forward_pass=2, marketplace_replica=2)
        results.append((loss, states(built)))
    for loss, state in results[1:]:
        same_bits(loss, results[0][0])
        same_states(state, results[0][1])


def test_bfloat16_is_for_the_frozen_specs():
    """They answer in bfloat16; where all specs are trained, its bits are those of float32."""
    x, y = batch(SHAPE)
    for counts, same in ((VENDORS, True), ((1, 4, 5), False)):
        built = build(CONV, counts)
        loss = [node(built, seed=MASTER, dtype=d).probe(x, y)[0] for d in ("float32", "bfloat16")]
        assert (loss[0] == loss[1]) == same
        close(loss[1], loss[0], relative=2**-6)


def test_the_size_of_the_noise_by_default():
    x, y = batch(MLP_SHAPE)
    ends = []
    for scale in (None, 0.003):
        built = build(MLP, VENDORS)
        node(built, seed=MASTER, probe_scale=scale).train_step(x, y)
        ends.append(states(built))
    same_states(*ends)


# -- what is refused -------------------------------------------------------------------------------


@pytest.fixture
def trained():
    found = Trained(MLP, MLP_SHAPE, plan="node", seed=1)
    yield found
    found.assert_unchanged()


def test_a_step_wants_a_probe_of_its_own(trained):
    opt = node(trained.built, seed=3)
    with refusal(RuntimeError, "step", "a probe before every step"):
        opt.step(trained.loss, trained.paths)
    with refusal(RuntimeError, "a probe before every step"):
        opt.add_replica(trained.loss, trained.paths)
    with refusal(RuntimeError, "a probe before every step"):
        opt.compute_direction_vectors(trained.loss, trained.paths)


@pytest.mark.parametrize("redraw", ["step", "update_seeds", "add_replica"])
def test_new_vendors_forget_the_gradient(redraw):
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    opt = node(built, seed=MASTER)
    scores = opt.probe(x, y)
    getattr(opt, redraw)(*(() if redraw == "update_seeds" else scores))
    with refusal(RuntimeError, "a probe before every step"):
        opt.step(*scores)


def test_a_loss_that_is_not_finite(trained):
    with refusal(ValueError, "finite losses", "nan", "(0, 0, 0)"):
        trained.opt.step(np.array([np.nan], np.float32), trained.paths)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec, key", [(0, "layers.0.bias"), (0, "layers.2.weight")])
def test_weights_that_are_not_finite(value, spec, key):
    built, (x, y) = build(CONV, VENDORS), batch(SHAPE)
    opt = node(built, seed=MASTER)
    state = built.specs[spec].model.state_dict()
    state[key].reshape(-1)[1] = value
    built.specs[spec].model.load_state_dict(state)
    scores = opt.probe(x, y)
    with refused(opt, built, ValueError, "step: expected finite (losses|gradients), received"):
        opt.step(*scores)
    with refused(opt, built, ValueError, "expected finite (losses|gradients), received"):
        opt.train_step(x, y, marketplace_replica=2)


def test_nothing_to_keep_best(trained):
    with refusal(ValueError, "keep_best", "'node'"):
        trained.opt.keep_best(trained.loss, trained.paths)


def test_a_line_search_is_refused(trained):
    with refusal(ValueError, "meta_learning_rate", "'node'"):
        node(trained.built, meta_learning_rate=0.5)
    trained.opt.meta_learning_rate = 0.5
    with refusal(ValueError, "meta_learning_rate", "'node'"):
        trained.opt.probe(trained.x, trained.y)
    trained.opt.meta_learning_rate = None


def test_upstream_sampling_and_control_variates_are_refused():
    with refusal(ValueError, "upstream_sampling", "'node'"):
        node(build(MLP, (2, 3, 2), sampling=[0, 1, 0]))
    with refusal(ValueError, "control_variate", "'node'"):
        node(build(MLP, (2, 3, 2)), control_variate=True)


@pytest.mark.parametrize("scale", [0, 0.0, np.float32(0)])
def test_noise_has_a_size(scale):
    opt = node(build(MLP, VENDORS), probe_scale=scale)
    with refusal(ValueError, "probe_scale", "above 0"):
        opt.probe(*batch(MLP_SHAPE))


def test_labels_and_samples_are_checked(trained):
    opt, x, y = trained.opt, trained.x, trained.y
    with refusal(ValueError, "labels from 0 to 2", "3 at sample 5"):
        opt.probe(x, np.array([0, 1, 2, 0, 1, 3, 0]))
    with refusal(ValueError, "a label other than ignore_index"):
        opt.probe(x, np.zeros(7, np.int32), ignore_index=0)
    with refusal(ValueError, "finite x", "sample 2"):
        opt.probe(np.where(np.arange(7)[:, None] == 2, np.nan, x).astype(np.float32), y)
    with refusal(ValueError, "at least one sample"):
        opt.probe(x[:0], y[:0])
    with refusal(ValueError, "linear"):
        opt.probe(x[:, :5], y)


# -- costs -----------------------------------------------------------------------------------------


def test_flops_of_a_step_counted_by_hand():
    description = [
        [conv(1, 4, 3), RELU],  # 4 x 8 x 8: product 2 * 256 * 9
        [conv(4, 6, 3), norm(6), RELU, POOL, FLATTEN],  # 6 x 6 x 6: product 2 * 216 * 36
        [linear(54, 5), TANH],  # product 2 * 5 * 54
        [linear(5, 3)],  # product 2 * 3 * 5
    ]
    one, two, three, four = 4608, 15552, 540, 30
    last = 8 * 3  # the loss
    behind_three = last
    behind_two = 8 * 5 + four + last
    behind_one = 8 * 216 + three + behind_two
    forward = one + two + three + four

    def cost(a, b, c):
        trained = 0
        if a > 1:
            trained += one + (a - 1) * (8 * 256 + two + 4 * behind_one)
        if b > 1:
            trained += two + (b - 1) * (8 * 216 + three + 6 * behind_two)
        if c > 1:
            trained += three + (c - 1) * (8 * 5 + four + 5 * behind_three)
        return forward + trained + four

    for counts in ((3, 5, 2), (1, 4, 2), (4, 1, 2), (1, 1, 1), (1, 1, 9)):
        opt = node(build(description, (*counts, 1)))
        assert opt.flops_per_step((1, 10, 10), 7) == 7 * cost(*counts)
        assert opt.flops_per_step((1, 10, 10), 7, forward_pass=2, marketplace_replica=3) == (
            42 * cost(*counts)
        )


def test_it_learns():
    built, (x, _) = build(MLP, (4, 4, 1)), batch((96, 6))
    y = np.argmax(x[:, :3], axis=1)
    opt = optimizer(built, seed=3, plan="node", learning_rate=0.01, probe_scale=None)
    first = opt.probe(x, y)[0][0]
    for _ in range(100):
        opt.train_step(x, y)
    assert opt.probe(x, y)[0][0] < 0.3 * first
