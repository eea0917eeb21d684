"""Node perturbation: gradients against the float64 oracle of the estimator."""

import numpy as np
import pytest
from markets import FLATTEN, POOL, RELU, TANH, batch, build, conv, fresh_seeds, linear, norm
from nodes import check, gradients_of, node
from refusals import refusal

AVG = ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1})
BARE = ("instance_norm", {"channels": 5, "affine": False})
GLOBAL = ("mean", {"axis": (2, 3)})
SCALAR, GELU = ("scalar", {}), ("gelu", {})

MARKETS = {
    "mnist-like": (
        [
            [conv(1, 3, 3), RELU],
            [conv(3, 4, 3), RELU, norm(4), POOL],
            [conv(4, 5, 2), RELU, norm(5), FLATTEN],
            [linear(20, 3)],
        ],
        (3, 4, 5, 2),
        (1, 10, 10),
    ),
    "windows": (
        [
            [conv(2, 3, (3, 2), stride=(2, 1), padding=(1, 2)), TANH],
            [conv(3, 4, 3, dilation=(1, 2), padding=2), GELU, AVG],
            [conv(4, 3, 2, stride=2), RELU, FLATTEN, linear(6, 3)],
        ],
        (3, 3, 3),
        (2, 8, 7),
    ),
    "channels-17-33": (
        [[conv(1, 17, 3), RELU, norm(17)], [conv(17, 33, 3), RELU, GLOBAL], [linear(33, 3)]],
        (2, 3, 1),
        (1, 6, 7),
    ),
    "one-channel": ([[conv(1, 1, 3), TANH, norm(1)], [FLATTEN, linear(12, 3)]], (5, 1), (1, 5, 6)),
    "no-activation": (
        [[conv(1, 3, 2), conv(3, 4, 2)], [FLATTEN, linear(24, 3)]],
        (3, 1),
        (1, 4, 5),
    ),
    "no-affine": (
        [[conv(1, 5, 3), BARE, SCALAR], [conv(5, 3, 1, bias=False), TANH, GLOBAL, linear(3, 3)]],
        (4, 2),
        (1, 6, 6),
    ),
    "hidden-linear": (
        [
            [conv(1, 3, 3), RELU, POOL, FLATTEN],
            [linear(12, 35), TANH, linear(35, 6)],
            [RELU, linear(6, 3)],
        ],
        (3, 4, 1),
        (1, 6, 6),
    ),
    "ops-in-the-next-spec": (
        [
            [conv(1, 4, 3)],
            [RELU, norm(4), POOL, conv(4, 3, 2)],
            [norm(3), FLATTEN],
            [linear(12, 3)],
        ],
        (3, 4, 2, 1),
        (1, 8, 8),
    ),
    "frozen-norm": (
        [[conv(1, 4, 3)], [RELU, norm(4)], [conv(4, 3, 2), RELU, FLATTEN, linear(12, 3)]],
        (4, 1, 3),
        (1, 5, 5),
    ),
    "norm-twice": (
        [[conv(1, 3, 3), norm(3), TANH, norm(3), FLATTEN], [linear(48, 3)]],
        (5, 1),
        (1, 6, 6),
    ),
    "entry": ([[norm(2), SCALAR, conv(2, 3, 3), RELU, FLATTEN, linear(48, 3)]], (4,), (2, 6, 6)),
    "frozen-prefix": (
        [[norm(2), conv(2, 3, 3)], [RELU, conv(3, 4, 2), RELU], [FLATTEN, linear(36, 3)]],
        (1, 4, 1),
        (2, 6, 6),
    ),
    "frozen-middle": (
        [
            [conv(1, 3, 3), RELU],
            [conv(3, 4, 2), norm(4), RELU],
            [conv(4, 3, 2), FLATTEN, linear(12, 3)],
        ],
        (3, 1, 3),
        (1, 6, 6),
    ),
    "mlp": ([[linear(6, 5), TANH], [linear(5, 33)], [GELU, linear(33, 3)]], (2, 3, 4), (6,)),
}


def market(name):
    return MARKETS[name]


# -- against the oracle ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MARKETS)
def test_gradients_are_the_oracles(name):
    description, counts, shape = market(name)
    x, y = batch((9, *shape))
    check(description, counts, x, y)


@pytest.mark.parametrize("samples", [1, 7, 33])
def test_any_batch(samples):
    description, counts, shape = market("mnist-like")
    check(description, counts, *batch((samples, *shape)), threads=2)


@pytest.mark.parametrize("probes", [1, 2, 3, 4, 5])
def test_any_number_of_probes(probes):
    description, _, shape = market("ops-in-the-next-spec")
    check(description, (1 + probes, 1 + probes, 1, 1), *batch((8, *shape)))


@pytest.mark.parametrize(
    "first, shape",
    [
        ([conv(1, 2, 5, stride=25), norm(2), RELU, FLATTEN, linear(288, 3)], (1, 300, 300)),
        ([linear(90000, 2), TANH, linear(2, 3)], (90000,)),
    ],
)
def test_several_blocks(first, shape):
    """A sample keeps 0.7 MB and more, so that a block holds 64 of them at most."""
    check([first], (2,), *batch((70, *shape)), scale=0.5)


def test_bytes():
    description, counts, shape = market("channels-17-33")
    x = np.random.default_rng(2).integers(0, 256, (9, *shape), dtype=np.uint8)
    check(description, counts, x, np.arange(9, dtype=np.int32) % 3)


def test_ignored_labels():
    description, counts, shape = market("mnist-like")
    x, y = batch((17, *shape))
    assert 0 < (y == 1).sum() < 17
    check(description, counts, x, y, ignore_index=1)
    far = np.where(y == 1, -100, y).astype(np.int32)
    check(description, counts, x, far, ignore_index=-100)


def test_the_size_of_a_dead_layer_is_one():
    """All sums are zero: there is no root mean square to go by."""
    description, counts, shape = market("mlp")
    x, y = batch((9, *shape))
    check(description, counts, np.zeros_like(x), y)


@pytest.mark.parametrize("scale", [0.02, 0.1, 1.0])
def test_any_size_of_noise(scale):
    description, counts, shape = market("hidden-linear")
    check(description, counts, *batch((12, *shape)), scale=scale)


# -- what stays ------------------------------------------------------------------------------------


def gradients(description, counts, x, y, **options):
    built = build(description, counts)
    return gradients_of(node(built, fresh_seeds(counts), **options), x, y)[1]


@pytest.mark.parametrize(
    "name, frozen", [("frozen-middle", [1]), ("frozen-prefix", [0]), ("frozen-norm", [1])]
)
def test_frozen_specs_have_no_gradient(name, frozen):
    description, counts, shape = market(name)
    found = gradients(description, counts, *batch((9, *shape)))
    for spec, values in enumerate(found):
        for value in values.values():
            assert value.any() != (spec in frozen)


def test_what_precedes_the_first_contraction_does_not_learn():
    description, counts, shape = market("entry")
    found = gradients(description, counts, *batch((9, *shape)))[0]
    assert not found["layers.0.weight"].any() and not found["layers.0.bias"].any()
    assert found["layers.2.weight"].any()


def test_a_batch_norm_before_the_first_contraction_uses_running_statistics():
    description = [[norm(2, "batch_norm"), conv(2, 3, 3), RELU, FLATTEN], [linear(48, 3)]]
    x, y = batch((9, 2, 6, 6))
    built = build(description, (3, 1))
    state = built.specs[0].model.state_dict()
    rng = np.random.default_rng(0)
    state["layers.0.running_mean"] = rng.normal(size=2).astype(np.float32)
    state["layers.0.running_var"] = rng.uniform(0.5, 2, size=2).astype(np.float32)
    built.specs[0].model.load_state_dict(state)
    frozen = [description[0][:1], description[0][1:], description[1]]
    split = build(frozen, (1, 3, 1))
    first, second = split.specs[0].model.state_dict(), split.specs[1].model.state_dict()
    split.specs[0].model.load_state_dict({k: state[k] for k in first})
    moved = {k: state[k.replace("layers.0", "layers.1")] for k in second}
    split.specs[1].model.load_state_dict(moved)
    split.specs[2].model.load_state_dict(built.specs[1].model.state_dict())
    seeds = fresh_seeds((3, 1))
    # the output layer's closed form tells whether the same network ran; signs differ with the node
    alone = gradients_of(node(built, seeds), x, y)
    apart = gradients_of(node(split, [np.zeros(1, np.uint64), *seeds]), x, y)
    assert abs(alone[0] - apart[0]) < 1e-6 * alone[0]
    np.testing.assert_allclose(
        alone[1][1]["layers.0.weight"], apart[1][2]["layers.0.weight"], rtol=1e-4, atol=1e-6
    )


# -- the output layer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "description, shape",
    [
        ([[linear(6, 3)]], (6,)),
        ([[TANH, linear(6, 3)]], (6,)),
        ([[FLATTEN, linear(30, 3)]], (2, 3, 5)),
        (
            [[conv(1, 3, 3), RELU, norm(3)], [("layer_norm", {"normalised": (3, 4, 4)}), FLATTEN]]
            + [[linear(48, 3)]],
            (1, 6, 6),
        ),
    ],
)
@pytest.mark.parametrize("vendors", [1, 3])
def test_the_output_layer_alone(description, shape, vendors):
    """Its gradient is known: to the rounding of a product, whatever the seeds."""
    x, y = batch((21, *shape))
    counts = (*(1 for _ in description[:-1]), vendors)
    expected = check(description, counts, x, y)
    assert all(not value.any() for spec in expected[:-1] for value in spec.values())


def test_many_classes():
    description = [[linear(5, 33), TANH], [linear(33, 67)]]
    x, y = batch((19, 5), classes=67)
    check(description, (3, 1), x, y)


# -- refusals --------------------------------------------------------------------------------------


@pytest.fixture
def mlp():
    counts = (3, 2, 1)
    return node(build(MARKETS["mlp"][0], counts), fresh_seeds(counts))


def test_counts_and_seeds_must_fit(mlp):
    x, y = batch((4, 6))
    seeds = [np.array(context.seeds) for context in mlp.spec_context]

    def run(counts, seeds):
        mlp._ready()
        mlp._market.node_gradients(counts, seeds, 0.1, x, y, None)

    with refusal(ValueError, "3 specs", "2"):
        run([3, 2], seeds)
    with refusal(ValueError, "seeds of 3 specs"):
        run([3, 2, 1], seeds[:2])
    with refusal(ValueError, "2 seeds for spec 1", "3"):
        run([3, 2, 1], [seeds[0], seeds[0], seeds[2]])
    with refusal(ValueError, "vendor_count", "0"):
        run([3, 0, 1], [seeds[0], seeds[1][:0], seeds[2]])
    with refusal(ValueError, "3 specs"):
        mlp._market.node_flops([1], (6,))


@pytest.mark.parametrize("scale", [0.0, np.inf])
def test_noise_has_a_size(mlp, scale):
    x, y = batch((4, 6))
    mlp.probe_scale = scale
    with refusal(ValueError, "probe_scale"):
        mlp.probe(x, y)
