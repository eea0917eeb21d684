"""Every registered op against the float64 oracle: through a market, and through ``functional``."""

import ast
import pathlib

import marketplace as mp
import numpy as np
import pytest
import reference
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from markets import draw, fresh_seeds
from ops import OPS, U32, Case, cases

LEARNING_RATE = 0.125
U16 = 2.0**-8  # unit roundoff of bfloat16
ALL = cases()
FUNCTIONAL = [(op, case) for op, case in ALL if op.functional is not None]
BATCHED = [(op, case) for op, case in FUNCTIONAL if op.parameters(case.options, case.shape)]
VENDORS = (1, 2, 3, 5)
THREADS = (1, 2, 3) if len(mp.devices()) == 1 else (1,)  # a GPU, which "auto" is then, has none


def over(pairs):
    """Parametrise a test over (op, case) pairs, with readable names."""
    return pytest.mark.parametrize("op, case", pairs, ids=[f"{op.name}-{c}" for op, c in pairs])


def bfloat16(x):
    """Round float32 to the nearest bfloat16, ties to even, and back."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def draw_input(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw_params(op, case, seed):
    rng = np.random.default_rng(seed)
    shapes = op.parameters(case.options, case.shape)
    return {name: draw(name, shape, rng) for name, shape in shapes.items()}


def check(op, case, actual, x, params, dtype="float32"):
    """Compare one vendor's result with the oracle's, given what the engine computes with.

    In bfloat16 activations are stored, and the weights of products are packed, in bfloat16; sums,
    statistics and the other parameters are float32. An op whose bound is 0 must be exact.
    """
    store = U16 if dtype == "bfloat16" and not op.float_result else U32
    x = np.float64(bfloat16(x) if dtype == "bfloat16" else x)
    if dtype == "bfloat16" and op.product:
        params = params | {"weight": bfloat16(params["weight"])}
    expected = op.oracle(x, params, case.options)
    exact = {k: np.float64(v) for k, v in params.items()}
    bound = op.error(x, exact, case.options, expected, store)
    bound = bound + np.where(bound > 0, store * np.abs(expected), 0)
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    excess = np.abs(np.float64(actual) - expected) - bound
    worst = np.unravel_index(np.argmax(excess), excess.shape) if excess.size else ()
    assert np.all(excess <= 0), (
        f"{op.name} {case}: {actual[worst]!r} at {worst}, "
        f"oracle {expected[worst]!r} ± {bound[worst]:.2g}"
    )


def run_market(op, case, x, params, vendors, dtype, threads, device="auto"):
    """Run the op as a market of one spec: results ``(V, B, ...)``, and each vendor's weights."""
    model = mp.nn.Model(op.layer(case.options))
    model.load_state_dict(model.state_dict() | {f"layers.0.{k}": v for k, v in params.items()})
    seeds = fresh_seeds([vendors])
    market = [mp.Spec(model=model, vendor_count=vendors)]
    options = {"dtype": dtype, "threads": threads, "device": device}
    optimizer = mp.Optimizer(market, LEARNING_RATE, seeds=seeds, **options)
    result, paths = mp.forward(market, x, vendors=optimizer.vendors)
    assert np.array_equal(paths, np.arange(vendors)[:, None])
    return np.asarray(result), vendor_params(params, seeds[0])


def vendor_params(params, seeds, amplitude=LEARNING_RATE):
    """``float32(W + delta)`` of each vendor, as every device must compute it."""
    shapes = {name: value.shape for name, value in params.items()}
    deltas = [oracle.delta(shapes, int(seed), amplitude) for seed in seeds]
    return [{k: np.float32(w + np.float32(d[k])) for k, w in params.items()} for d in deltas]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@over(ALL)
def test_layer_in_a_market(op, case, dtype):
    """Every layer with some number of threads and vendors; test_determinism compares them all."""
    index = ALL.index((op, case))
    threads, vendors = THREADS[index % len(THREADS)], VENDORS[(index + 1) % len(VENDORS)]
    x, params = draw_input(case.shape, 1), draw_params(op, case, 2)
    result, weights = run_market(op, case, x, params, vendors, dtype, threads)
    assert len(result) == vendors
    for actual, vendor in zip(result, weights, strict=True):
        check(op, case, actual, x, vendor, dtype)


@over(FUNCTIONAL)
def test_functional(op, case):
    x, params = draw_input(case.shape, 3), draw_params(op, case, 4)
    check(op, case, np.asarray(op.functional(x, params, case.options)), x, params)


@pytest.mark.parametrize("vendors", [1, 3])
@over(BATCHED)
def test_functional_with_vendor_batched_weights(op, case, vendors):
    each = [draw_params(op, case, 6 + v) for v in range(vendors)]
    stacked = {name: np.stack([params[name] for params in each]) for name in each[0]}
    own = np.stack([draw_input(case.shape, 20 + v) for v in range(vendors)])
    shared = own if op.open_ended(case) else np.broadcast_to(own[0], own.shape)
    for x, inputs in ((shared if op.open_ended(case) else own[0], shared), (own, own)):
        result = np.asarray(op.functional(x, stacked, case.options))
        assert len(result) == vendors
        for actual, params, mine in zip(result, each, inputs, strict=True):
            check(op, case, actual, mine, params)


# -- shapes that nobody chose ----------------------------------------------------------------------


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    span = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = [draw(st.integers(max(1, least), max(1, least) + 9)) for least in span]
    shape = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 5)), *size)
    options = {"out": groups * draw(st.integers(1, 7)), "kernel": kernel, "groups": groups}
    options |= {"padding": padding, "dilation": dilation, "bias": draw(st.booleans())}
    options["stride"] = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Case(shape, options | {"in": shape[1]})


@st.composite
def small_groups(draw):
    """Groups of a channel or a few, as in depthwise convolutions, that share vectors."""
    groups = draw(st.integers(2, 40))
    case = draw(convolutions())
    inputs, outputs = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 4))
    shape = (case.shape[0], inputs, *case.shape[2:])
    return Case(shape, case.options | {"in": inputs, "out": outputs, "groups": groups})


@st.composite
def pools(draw):
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [draw(st.integers(least, least + 9)) for least in span]
    options = {"kernel_size": kernel, "padding": padding, "dilation": dilation}
    options["stride"] = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Case((draw(st.integers(1, 2)), draw(st.integers(1, 5)), *size), options)


@st.composite
def norms(draw):
    shape = (draw(st.integers(2, 4)), *(draw(st.integers(1, 6)) for _ in range(3)))
    return Case(
        shape, {"channels": shape[1], "normalised": shape[1:], "affine": draw(st.booleans())}
    )


@st.composite
def linears(draw):
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 70)))
    return Case(
        shape, {"in": shape[1], "out": draw(st.integers(1, 40)), "bias": draw(st.booleans())}
    )


DTYPES = st.sampled_from(["float32", "bfloat16"])


def check_everywhere(name, case, dtype, vendors):
    op = OPS[name]
    x, params = draw_input(case.shape, 7), draw_params(op, case, 8)
    result, weights = run_market(op, case, x, params, vendors, dtype, threads=2)
    for actual, vendor in zip(result, weights, strict=True):
        check(op, case, actual, x, vendor, dtype)
    check(op, case, np.asarray(op.functional(x, params, case.options)), x, params)


@given(convolutions(), DTYPES, st.integers(1, 4))
def test_any_conv2d(case, dtype, vendors):
    check_everywhere("conv2d", case, dtype, vendors)


@given(small_groups(), DTYPES, st.integers(1, 3))
def test_any_conv2d_of_small_groups(case, dtype, vendors):
    check_everywhere("conv2d", case, dtype, vendors)


@given(linears(), DTYPES, st.integers(1, 4))
def test_any_linear(case, dtype, vendors):
    check_everywhere("linear", case, dtype, vendors)


@given(norms(), st.sampled_from(["instance_norm", "batch_norm", "layer_norm"]), DTYPES)
def test_any_norm(case, name, dtype):
    check_everywhere(name, case, dtype, 2)


@given(pools(), st.sampled_from(["max_pool2d", "avg_pool2d"]), st.booleans())
def test_any_pool(case, name, include):
    extra = {"count_include_pad": include} if name == "avg_pool2d" else {}
    check_everywhere(name, Case(case.shape, case.options | extra), "float32", 1)


# -- values on the edge ----------------------------------------------------------------------------

EDGES = [0.0, -0.0, 1e-40, -1e-40, 1e-7, -1e-7, 1, -1, 5.5, -5.5, 10, -10, 90, -90, 1e4, -1e4, 3e38]
EDGES += [-3e38]
POINTWISE = ["relu", "gelu", "gelu_tanh", "sigmoid", "tanh"]


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_on_the_edge(name):
    x = np.array([EDGES], np.float32)
    with np.errstate(over="ignore"):
        check(OPS[name], Case(x.shape), np.asarray(OPS[name].functional(x, {}, {})), x, {})


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_over_the_whole_curve(name):
    x = np.linspace(-12, 12, 4001, dtype=np.float32)[None]
    check(OPS[name], Case(x.shape), np.asarray(OPS[name].functional(x, {}, {})), x, {})


def test_max_pool_padding_never_wins():
    x = np.full((1, 1, 3, 3), -7, np.float32)
    assert (np.asarray(mp.functional.max_pool2d(x, 3, 1, padding=1)) == -7).all()


@pytest.mark.parametrize("name", ["instance_norm", "layer_norm", "batch_norm"])
def test_norms_of_a_large_mean(name):
    """A one-pass E[x²] − mean² loses every digit here."""
    case = Case((3, 2, 5, 5), {"channels": 2, "normalised": (2, 5, 5)})
    x = draw_input(case.shape, 9) + np.float32(4096)
    params = draw_params(OPS[name], case, 10)
    check(OPS[name], case, np.asarray(OPS[name].functional(x, params, case.options)), x, params)


@pytest.mark.parametrize("name", ["instance_norm", "layer_norm", "batch_norm"])
def test_norms_of_a_constant_are_the_bias(name):
    case = Case((2, 3, 4, 4), {"channels": 3, "normalised": (3, 4, 4)})
    params = draw_params(OPS[name], case, 10)
    x = np.full(case.shape, 3.0, np.float32)
    result = np.asarray(OPS[name].functional(x, params, case.options))
    bias = params["bias"] if name == "layer_norm" else params["bias"][:, None, None]
    assert np.array_equal(result, np.broadcast_to(bias, result.shape))


def test_uint8_images_enter_as_raw_values():
    images = np.random.default_rng(0).integers(0, 256, size=(3, 1, 6, 6)).astype(np.uint8)
    op = OPS["conv2d"]
    case = Case(images.shape, {"in": 1, "out": 4, "kernel": 3})
    params = draw_params(op, case, 11)
    result, weights = run_market(op, case, images, params, 2, "float32", 1)
    for actual, vendor in zip(result, weights, strict=True):
        check(op, case, actual, images.astype(np.float32), vendor)


# -- cross entropy and top-k -----------------------------------------------------------------------


def entropy_bound(logits, classes):
    return 8 * U32 * (1 + np.abs(logits).max()) + (classes + 2) * U32


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.1, 1.0, 30.0]))
def test_cross_entropy(rows, classes, spread):
    logits = draw_input((rows, classes), rows) * np.float32(spread)
    y = np.random.default_rng(classes).integers(0, classes, size=rows)
    for reduction in ("mean", "sum", "none"):
        actual = np.asarray(mp.functional.cross_entropy(logits, y, reduction=reduction))
        expected = reference.cross_entropy(logits, y, reduction)
        scale = rows if reduction == "sum" else 1
        bound = scale * entropy_bound(logits, classes) + rows * U32 * np.abs(expected)
        assert actual.shape == expected.shape
        assert (np.abs(actual - expected) <= bound).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_ignores_a_label(reduction):
    logits, y = draw_input((9, 4), 0), np.array([0, 1, 2, 3, 2, 2, 0, 1, 2])
    actual = mp.functional.cross_entropy(logits, y, reduction=reduction, ignore_index=2)
    expected = reference.cross_entropy(logits, y, reduction, ignore_index=2)
    assert np.abs(np.asarray(actual) - expected).max() <= 9 * entropy_bound(logits, 4)
    assert (
        np.abs(
            reference.cross_entropy(logits, y) - reference.cross_entropy(logits, y, ignore_index=2)
        )
        > 1e-3
    )


def test_cross_entropy_of_every_path():
    logits, y = draw_input((6, 5, 3), 0), np.array([0, 2, 1, 1, 0])
    actual = np.asarray(mp.functional.cross_entropy(logits, y))
    assert actual.shape == (6,)
    assert np.abs(actual - reference.cross_entropy(logits, y)).max() <= entropy_bound(logits, 3)


def test_cross_entropy_of_huge_logits_is_finite():
    logits = np.array([[1e30, -1e30], [3e4, 3e4]], np.float32)
    actual = np.asarray(mp.functional.cross_entropy(logits, np.array([0, 1]), reduction="none"))
    assert np.abs(actual - [0, np.log(2)]).max() <= 2 * U32


@given(st.lists(st.sampled_from([0.5, -1.0, 2.0, np.nan, np.inf, -np.inf]), min_size=1, max_size=9))
def test_topk(values):
    values = np.array(values, np.float32)
    for k in range(1, len(values) + 1):
        for largest in (True, False):
            expected, order = reference.topk(values, k, largest)
            actual, indices = mp.topk(values, k, largest=largest)
            assert np.array_equal(actual, expected, equal_nan=True)
            assert np.array_equal(indices, order)


# -- the registry itself ---------------------------------------------------------------------------

NOT_OPS = {"__init__", "parameter", "buffer", "input", "set_output"}


def test_every_op_of_the_engine_is_registered():
    stub = pathlib.Path(mp.__file__).with_name("_core.pyi").read_text()
    classes = {node.name: node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef)}
    methods = {node.name for node in classes["Graph"].body if isinstance(node, ast.FunctionDef)}
    registered = {kind for op in OPS.values() for kind in op.kinds}
    assert registered == methods - NOT_OPS


def test_every_op_has_cases():
    assert all(len(op.cases) >= 3 for op in OPS.values())
