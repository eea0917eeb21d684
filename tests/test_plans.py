"""Plans: which paths a probe takes, in which order, and that sharing prefixes changes nothing."""

import marketplace as mp
import numpy as np
import pytest
import reference
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from markets import (
    AMPLITUDE,
    CONV,
    CONV_SHAPE,
    DEEP,
    MLP,
    MLP_SHAPE,
    PLANS,
    SHALLOW,
    batch,
    build,
    close,
    fresh_seeds,
    optimizer,
    same_bits,
)

MARKETS = [
    pytest.param(CONV, CONV_SHAPE, (3, 4, 2), id="conv-3,4,2"),
    pytest.param(CONV, CONV_SHAPE, (1, 1, 1), id="conv-1,1,1"),
    pytest.param(CONV, CONV_SHAPE, (2, 1, 9), id="conv-2,1,9"),
    pytest.param(MLP, MLP_SHAPE, (1, 5, 17), id="mlp-1,5,17"),
    pytest.param(SHALLOW, MLP_SHAPE, (6,), id="depth1"),
    pytest.param(DEEP, MLP_SHAPE, (2, 3, 2, 4), id="depth4"),
]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("description, shape, vendors", MARKETS)
def test_probe_is_every_path_on_its_own(description, shape, vendors, plan):
    built, seeds = build(description, vendors), fresh_seeds(vendors)
    x, y = batch(shape)
    opt = optimizer(built, seeds, plan=plan, seed=3)
    loss, paths = opt.probe(x, y)
    assert np.array_equal(paths, PLANS[plan](vendors)) and paths.dtype == np.int32
    deltas = built.deltas(seeds, AMPLITUDE)
    expected = oracle.path_losses(built.models, built.weights, deltas, x, y, paths)
    assert loss.dtype == np.float32
    close(loss, expected)


@pytest.mark.parametrize("description, shape, vendors", MARKETS)
def test_forward_is_every_path_on_its_own(description, shape, vendors):
    built, seeds = build(description, vendors), fresh_seeds(vendors)
    x, _ = batch(shape)
    opt = optimizer(built, seeds)
    logits, paths = mp.forward(built.specs, x, vendors=opt.vendors)
    assert np.array_equal(paths, oracle.tree_paths(vendors))
    deltas = built.deltas(seeds, AMPLITUDE)
    close(logits, oracle.forward(built.models, built.weights, deltas, x, paths))


@pytest.mark.parametrize("description, shape, vendors", MARKETS)
def test_probe_is_forward_and_cross_entropy(description, shape, vendors):
    built = build(description, vendors)
    x, y = batch(shape)
    opt = optimizer(built, seed=11)
    loss, paths = opt.probe(x, y)
    logits, forward_paths = mp.forward(built.specs, x, vendors=opt.vendors)
    assert np.array_equal(paths, forward_paths)
    close(loss, reference.cross_entropy(logits, y), relative=1e-6)


def test_star_and_tree_agree_where_they_meet():
    built, x_y = build(CONV, (3, 4, 2)), batch(CONV_SHAPE)
    seeds = fresh_seeds((3, 4, 2))
    tree_loss, tree_paths = optimizer(built, seeds, plan="tree").probe(*x_y)
    star_loss, star_paths = optimizer(built, seeds, plan="star").probe(*x_y)
    where = {tuple(path): loss for path, loss in zip(tree_paths, tree_loss, strict=True)}
    same_bits(star_loss, np.array([where[tuple(path)] for path in star_paths]))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_oracle_paths_are_complete(vendors):
    """The oracle's enumerations, against what the words say."""
    tree = [tuple(path) for path in oracle.tree_paths(vendors)]
    assert len(set(tree)) == len(tree) and set(tree) == oracle.all_vendor_combinations(vendors)
    star = [tuple(path) for path in oracle.star_paths(vendors)]
    assert len(set(star)) == len(star) == 1 + sum(count - 1 for count in vendors)
    assert all(sum(v != 0 for v in path) <= 1 for path in star) and not any(star[0])


@given(
    st.lists(st.integers(1, 4), min_size=3, max_size=3),
    st.sampled_from(["tree", "star"]),
    st.integers(1, 9),
)
def test_any_vendor_counts(vendors, plan, samples):
    built, seeds = build(MLP, vendors), fresh_seeds(vendors)
    x, y = batch((samples, 6))
    loss, paths = optimizer(built, seeds, plan=plan).probe(x, y)
    assert np.array_equal(paths, PLANS[plan](vendors))
    deltas = built.deltas(seeds, AMPLITUDE)
    close(loss, oracle.path_losses(built.models, built.weights, deltas, x, y, paths))


def test_ignored_labels_do_not_count():
    built, seeds = build(MLP, (2, 2, 2)), fresh_seeds((2, 2, 2))
    x, _ = batch(MLP_SHAPE)
    y = np.array([0, 2, 1, 2, 0, 2, 1])
    opt = optimizer(built, seeds)
    loss, paths = opt.probe(x, y, ignore_index=2)
    deltas = built.deltas(seeds, AMPLITUDE)
    expected = oracle.path_losses(built.models, built.weights, deltas, x, y, paths, ignore_index=2)
    close(loss, expected)


# -- upstream sampling -----------------------------------------------------------------------------

SAMPLED = (5, 4, 3)


def sampled(seed=21, sampling=(0, 3, 2), **options):
    built = build(MLP, SAMPLED, sampling=list(sampling))
    return built, optimizer(built, seed=seed, **options)


def drawn_rows(paths, spec, counts):
    """The upstream rows that each vendor of the last spec drew, read off the paths."""
    return paths.reshape(counts[spec], -1, paths.shape[1])[:, :, :-1]


def test_upstream_sampling_shape_and_order():
    built, opt = sampled()
    loss, paths = opt.probe(*batch(MLP_SHAPE))
    assert loss.shape == (3 * 2,) and paths.shape == (6, 3)
    assert paths[:, 2].tolist() == [0, 0, 1, 1, 2, 2]
    assert (paths >= 0).all() and (paths < SAMPLED).all()


def test_upstream_sampling_is_without_replacement():
    for seed in range(8):
        _, opt = sampled(seed, (0, 4, 11))
        paths = opt.probe(*batch(MLP_SHAPE))[1]
        for rows in drawn_rows(paths, 2, SAMPLED):
            assert len({tuple(row) for row in rows}) == 11


def test_upstream_sampling_is_separate_for_each_vendor():
    paths = sampled(1, (0, 0, 7))[1].probe(*batch(MLP_SHAPE))[1]
    rows = [tuple(map(tuple, part)) for part in drawn_rows(paths, 2, SAMPLED)]
    assert len(set(rows)) == 3


def test_upstream_sampling_takes_every_row_sometimes():
    seen = set()
    for seed in range(40):
        paths = sampled(seed, (0, 0, 2))[1].probe(*batch(MLP_SHAPE))[1]
        seen |= {tuple(path[:2]) for path in paths}
    assert seen == oracle.all_vendor_combinations(SAMPLED[:2])


def test_upstream_sampling_is_a_function_of_the_seed():
    x_y = batch(MLP_SHAPE)
    one, again, other = (sampled(seed)[1].probe(*x_y) for seed in (4, 4, 5))
    same_bits(one[1], again[1])
    same_bits(one[0], again[0])
    assert not np.array_equal(one[1], other[1])


def test_upstream_sampling_is_drawn_anew_each_step():
    _, opt = sampled()
    x_y = batch(MLP_SHAPE)
    loss, paths = opt.probe(*x_y)
    same_bits(opt.probe(*x_y)[1], paths)
    opt.step(loss, paths)
    assert not np.array_equal(opt.probe(*x_y)[1], paths)


def test_upstream_sampling_losses_belong_to_their_paths():
    built, opt = sampled()
    x, y = batch(MLP_SHAPE)
    loss, paths = opt.probe(x, y)
    seeds = [context.seeds for context in opt.spec_context]
    deltas = built.deltas(seeds, AMPLITUDE)
    close(loss, oracle.path_losses(built.models, built.weights, deltas, x, y, paths))


def test_forward_samples_as_the_probe_does():
    built, opt = sampled()
    x, y = batch(MLP_SHAPE)
    loss, paths = opt.probe(x, y)
    logits, forward_paths = mp.forward(built.specs, x, vendors=opt.vendors)
    assert np.array_equal(paths, forward_paths)
    close(loss, reference.cross_entropy(logits, y), relative=1e-6)


# -- produce, one spec at a time -------------------------------------------------------------------


def test_produce_chains_into_forward():
    built = build(CONV, (3, 4, 2))
    x, _ = batch(CONV_SHAPE)
    opt = optimizer(built, seed=2)
    data, paths = x, None
    for spec, vendors in zip(built.specs, opt.vendors, strict=True):
        data, paths = mp.produce(spec, data, vendors, paths)
    logits, forward_paths = mp.forward(built.specs, x, vendors=opt.vendors)
    assert np.array_equal(paths, forward_paths)
    # in one piece, images stay channels-last between specs, which changes the order of sums
    close(data, logits)


def test_produce_of_the_first_spec():
    built, seeds = build(MLP, (3, 1, 1)), fresh_seeds((3, 1, 1))
    x, _ = batch(MLP_SHAPE)
    opt = optimizer(built, seeds)
    out, paths = mp.produce(built.specs[0], x, opt.vendors[0])
    assert np.array_equal(paths, [[0], [1], [2]])
    deltas = built.deltas(seeds, AMPLITUDE)[0]
    weights = [oracle.vendor_weights(built.weights[0], delta) for delta in deltas]
    close(out, np.stack([built.models[0](x, w) for w in weights]))


def test_produce_with_plain_callables():
    """The reference's own test: any callable is a vendor."""
    spec = mp.Spec(model=mp.nn.Model(mp.nn.relu), vendor_count=3)
    x = np.array([[[1.0, 2, 3]], [[2, 3, 4]], [[4, 5, 6]]], np.float32)
    vendors = [lambda value, scale=scale: value * scale for scale in (1.0, 3.0, 5.0)]
    out, paths = mp.produce(spec, x, vendors, np.array([[0], [1], [2]]))
    assert paths.tolist() == [[u, v] for v in range(3) for u in range(3)]
    assert np.array_equal(out, [x[u] * (1, 3, 5)[v] for u, v in paths.tolist()])


def test_vendor_objects_are_callable():
    built, seeds = build(MLP, (3, 2, 2)), fresh_seeds((3, 2, 2))
    x, _ = batch(MLP_SHAPE)
    opt = optimizer(built, seeds)
    together, _ = mp.produce(built.specs[0], x, opt.vendors[0])
    for vendor, expected in zip(opt.vendors[0], together, strict=True):
        same_bits(vendor(x), expected)


def test_forward_without_vendors_is_the_base_model():
    built = build(MLP, (2, 3, 2))
    x, _ = batch(MLP_SHAPE)
    logits, paths = mp.forward(built.specs, x)
    assert np.array_equal(paths, oracle.tree_paths((2, 3, 2)))
    straight = mp.straight_forward(built.specs, x)
    close(logits, np.broadcast_to(straight, logits.shape), relative=1e-6)
