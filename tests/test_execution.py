"""How the engine cuts its work must not show: tiles, chunks, panels, threads, instruction sets."""

import functools
import os
import subprocess
import sys

import marketplace as mp
import numpy as np
import pytest
import reference
import reference_market as oracle
from markets import (
    AMPLITUDE,
    FLATTEN,
    MLP,
    RELU,
    batch,
    build,
    close,
    conv,
    fresh_seeds,
    linear,
    norm,
    optimizer,
    same_bits,
)
from ops import OPS, Case
from test_layers import check, vendor_params

# Around the rows of a tile (12) and the tiles that a batch is cut into.
BATCHES = (1, 2, 11, 12, 13, 24, 25, 95, 96, 97, 193)


@pytest.mark.parametrize("plan", ["tree", "star"])
@pytest.mark.parametrize("samples", BATCHES)
def test_any_batch_size(samples, plan):
    built, seeds = build(MLP, (2, 3, 2)), fresh_seeds((2, 3, 2))
    x, y = batch((samples, 6))
    loss, paths = optimizer(built, seeds, plan=plan, threads=2).probe(x, y)
    deltas = built.deltas(seeds, AMPLITUDE)
    close(loss, oracle.path_losses(built.models, built.weights, deltas, x, y, paths))


@pytest.mark.parametrize("samples", [2, 13, 40])
def test_batch_norm_sees_the_whole_batch(samples):
    """A batch of several tiles is still normalised over all of its samples."""
    layers = [conv(1, 8, 3), norm(8, "batch_norm"), RELU, ("flatten", {"dims": (1,)})]
    built, seeds = build([layers, [linear(5408, 3)]], (2, 3)), fresh_seeds((2, 3))
    x, y = batch((samples, 1, 28, 28))
    loss, paths = optimizer(built, seeds, threads=2).probe(x, y)
    deltas = built.deltas(seeds, AMPLITUDE)
    close(loss, oracle.path_losses(built.models, built.weights, deltas, x, y, paths))


def test_images_of_more_than_a_tile():
    built, seeds = build([[conv(1, 32, 3), RELU, conv(32, 3, 3)]], (2,)), fresh_seeds((2,))
    x, _ = batch((7, 1, 28, 28))
    logits, paths = mp.forward(built.specs, x, vendors=optimizer(built, seeds, threads=2).vendors)
    deltas = built.deltas(seeds, AMPLITUDE)
    close(logits, oracle.forward(built.models, built.weights, deltas, x, paths))


def test_more_paths_than_partial_losses():
    """294,000 paths on eight tiles: the batch is cut into fewer chunks than tiles."""
    vendors = (70, 70, 60)
    built, seeds = build(MLP, vendors), fresh_seeds(vendors)
    x, y = batch((96, 6))
    loss, paths = optimizer(built, seeds, threads=2).probe(x, y)
    assert np.array_equal(paths, oracle.tree_paths(vendors))
    some = np.random.default_rng(0).choice(len(paths), size=40, replace=False)
    deltas = built.deltas(seeds, AMPLITUDE)
    expected = oracle.path_losses(built.models, built.weights, deltas, x, y, paths[some])
    close(loss[some], expected)


# -- the last spec's vendors side by side ----------------------------------------------------------

HEADS = [(1, 1, 9), (2, 7, 1), (3, 5, 8), (10, 33, 3), (17, 2, 16), (32, 3, 5), (33, 40, 2)]
HEADS += [(3, 7, 700), (10, 5, 300), (1500, 3, 3)]  # more columns than one pass takes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("samples", [1, 13, 40])
@pytest.mark.parametrize("classes, depth, vendors", HEADS)
def test_output_layers(classes, depth, vendors, samples, dtype):
    """Every vendor of a linear output layer, right to the rounding of one product."""
    op, case = OPS["linear"], Case((samples, depth), {"in": depth, "out": classes})
    built = build([[FLATTEN], [("linear", case.options)]], (2, vendors))
    seeds = fresh_seeds((2, vendors))
    opt = mp.Optimizer(built.specs, 0.125, seeds=seeds, dtype=dtype, threads=2)
    x, y = batch((samples, depth, 1), classes)
    logits, paths = mp.forward(built.specs, x, vendors=opt.vendors)
    base = {key.removeprefix("layers.0."): value for key, value in built.weights[1].items()}
    weights = vendor_params(base, seeds[1], 0.125)
    for result, path in zip(np.asarray(logits), paths.tolist(), strict=True):
        check(op, case, result, x[..., 0], weights[path[1]], dtype)
    close(opt.probe(x, y)[0], reference.cross_entropy(logits, y), relative=1e-6)


# -- panels on demand ------------------------------------------------------------------------------

WIDE = [[linear(6, 1300), RELU], [linear(1300, 1300), RELU], [linear(1300, 3)]]


def wide(vendors, **options):
    """A market whose second spec has 6.8 MB of weights; eight vendors of it outgrow the budget."""
    built = build(WIDE, (2, vendors, 2))
    seeds = fresh_seeds((2, 9, 2))
    seeds[1] = seeds[1][:vendors]
    return built, optimizer(built, seeds, threads=2, **options)


def weights_of(opt, built, path):
    for spec, context, v in zip(built.weights, opt.spec_context, path, strict=True):
        yield {key: value + context.delta[key][v] for key, value in spec.items()}


@pytest.mark.parametrize("vendors", [2, 9])
def test_wide_layers(vendors):
    built, opt = wide(vendors)
    x, _ = batch((9, 6))
    logits, paths = mp.forward(built.specs, x, vendors=opt.vendors)
    for path in ((0, 0, 0), (1, 1, 0), (0, vendors - 1, 1)):
        row = int(np.flatnonzero((paths == path).all(axis=1))[0])
        value = x
        for model, weights in zip(built.models, weights_of(opt, built, path), strict=True):
            value = model(value, weights)
        close(logits[row], value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_panels_on_demand_change_no_bits(dtype):
    x, _ = batch((9, 6))
    results = []
    for vendors in (2, 9):
        built, opt = wide(vendors, dtype=dtype)
        logits, paths = mp.forward(built.specs, x, vendors=opt.vendors)
        kept = paths[:, 1] < 2
        own = mp.continual.forward_with_paths(built.specs, x, np.array([[1, 1, 1]] * 9), opt)
        results.append((paths[kept], logits[kept], own))
    for few, many in zip(*results, strict=True):
        same_bits(few, many)


def test_a_star_with_panels_on_demand():
    x, y = batch((9, 6))
    (tree, tree_paths), (star, star_paths) = (
        wide(9, plan=plan)[1].probe(x, y) for plan in ("tree", "star")
    )
    where = {tuple(path): loss for path, loss in zip(tree_paths.tolist(), tree, strict=True)}
    same_bits(star, np.array([where[tuple(path)] for path in star_paths.tolist()]))


def test_a_direction_of_many_parameters():
    """Sums over more parameters than one task takes, against NumPy's."""
    built, opt = wide(3)
    loss, paths = opt.probe(*batch((9, 6)))
    z = oracle.z_scores(loss)
    direction = opt.compute_direction_vectors(loss, paths)
    for spec, vectors in enumerate(direction):
        delta = opt.spec_context[spec].delta
        sums = {key: np.einsum("p,p...->...", z, delta[key][paths[:, spec]]) for key in vectors}
        norm = np.sqrt(sum((value**2).sum() for value in sums.values()))
        for key, value in vectors.items():
            close(value, sums[key] / norm)


# -- instruction sets ------------------------------------------------------------------------------


def run_with(isa, *arguments):
    environment = {**os.environ, "MARKETPLACE_ISA": isa}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, timeout=120, capture_output=True, text=True,
        cwd=os.path.dirname(__file__),
    )  # fmt: skip


@functools.cache  # several files ask, and each answer takes processes
def usable_isas():
    """Those of this build that this machine has, without the one that every other test uses."""
    info = mp.build_info()
    if "MARKETPLACE_ISA" in os.environ:  # a run with one is not about the others
        return []
    others = [isa for isa in info["isas"] if isa != info["isa"]]
    return [isa for isa in others if run_with(isa, "-c", "import marketplace as mp; "
            "mp.functional.relu([1.0])").returncode == 0]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("isa", usable_isas())
def test_layers_with_another_instruction_set(isa):
    tests = ["test_functional", "test_any_conv2d", "test_any_linear", "test_any_norm"]
    names = [f"test_layers.py::{name}" for name in tests]
    done = run_with(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("isa", usable_isas())
def test_random_numbers_with_another_instruction_set(isa):
    done = run_with(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_seeds.py")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("isa", usable_isas())
def test_nodes_with_another_instruction_set(isa):
    done = run_with(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_node.py")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_an_unknown_instruction_set_is_refused():
    done = run_with("sse9", "-c", "from marketplace import _core; _core.Engine('cpu')")
    assert done.returncode != 0 and "ValueError: MARKETPLACE_ISA: expected one of" in done.stderr
