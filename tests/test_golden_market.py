"""The golden market: every result of the reference's own run, to 1e-5 relative in float32.

Relative means relative to the largest magnitude of the array. A direction is one unit vector (of a
spec, or of the whole market), so its keys share that scale: a key whose main effects cancel has no
more digits than that in the reference's own float32 sums.
"""

import marketplace as mp
import numpy as np
import pytest
import reference
import reference_market as oracle
from markets import FLATTEN, POOL, RELU, build, close, conv, linear, norm, parameters

MARKET = [
    [conv(1, 3, 3), RELU, conv(3, 3, 3), RELU, norm(3), POOL],
    [conv(3, 4, 3, padding=1), RELU, norm(4), POOL, FLATTEN],
    [linear(16, 3)],
]
SPECS = range(3)
VENDORS = (3, 4, 2)
MODES = list(mp.UnitVectorMode)


def part(golden, prefix):
    """The arrays of one spec, by state-dict key: ``prefix`` is for instance ``updated0``."""
    return {k.split(".", 1)[1]: v for k, v in golden.items() if k.startswith(prefix + ".")}


@pytest.fixture
def market(golden):
    built = build(MARKET, VENDORS)
    for i, spec in enumerate(built.specs):
        spec.model.load_state_dict(part(golden, f"spec{i}"))
    return built


def make_optimizer(market, golden, **options):
    return mp.Optimizer(
        marketplace=market.specs,
        learning_rate=float(golden["lr"]),
        probe_scale=float(golden["probe_scale"]),
        seeds=[golden[f"seeds{i}"] for i in SPECS],
        threads=2,
        **options,
    )


@pytest.fixture
def optimizer(market, golden):
    return make_optimizer(market, golden)


def close_directions(actual, golden, prefix, whole):
    expected = [part(golden, f"{prefix}{i}") for i in SPECS]
    peaks = [max(np.abs(v).max() for v in spec.values()) for spec in expected]
    for i in SPECS:
        assert actual[i].keys() == expected[i].keys()
        for key, value in expected[i].items():
            close(actual[i][key], value, scale=max(peaks) if whole else peaks[i])


@pytest.mark.parametrize("spec", SPECS)
def test_deltas_within_one_ulp(optimizer, golden, spec):
    amplitude = np.float32(golden["lr"]) * np.float32(golden["probe_scale"])
    context = optimizer.spec_context[spec]
    assert list(context.delta) == sorted(part(golden, f"delta{spec}"))
    for key, expected in part(golden, f"delta{spec}").items():
        actual = context.delta[key]
        assert actual.dtype == np.float32 and actual.shape == expected.shape
        # u near 1/2 cancels: the last place is that of the amplitude, from which it is subtracted
        assert np.abs(np.float64(actual) - expected).max() <= np.spacing(amplitude)
        assert not actual[0].any()


def test_forward(market, optimizer, golden):
    logits, paths = mp.forward(market.specs, golden["x"], vendors=optimizer.vendors)
    assert np.array_equal(paths, golden["paths"])
    close(logits, golden["logits"])


def test_probe(optimizer, golden):
    loss, paths = optimizer.probe(golden["x"], golden["y"])
    assert loss.dtype == np.float32 and paths.dtype == np.int32
    assert np.array_equal(paths, golden["paths"])
    close(loss, golden["loss"])


def test_straight_forward(market, golden):
    close(mp.straight_forward(market.specs, golden["x"]), golden["straight_logits"])


def test_straight_forward_is_the_leader(market, optimizer, golden):
    logits, _ = mp.forward(market.specs, golden["x"], vendors=optimizer.vendors)
    close(logits[0], golden["straight_logits"])


@pytest.mark.parametrize("k", [1, 5])
def test_topk(golden, k):
    values, indices = mp.topk(golden["loss"], k, largest=False)
    assert np.array_equal(values, golden[f"top{k}_loss"])
    assert np.array_equal(indices, golden[f"top{k}_index"])


@pytest.mark.parametrize("mode", MODES)
def test_directions(optimizer, golden, mode):
    actual = optimizer.compute_direction_vectors(golden["loss"], golden["paths"], mode)
    close_directions(actual, golden, f"direction_{mode.value}", mode.value == "whole")


def test_per_spec_is_the_default(optimizer, golden):
    actual = optimizer.compute_direction_vectors(golden["loss"], golden["paths"])
    close_directions(actual, golden, "direction_per_spec", False)


def test_update_weights(market, optimizer, golden):
    direction = optimizer.compute_direction_vectors(golden["loss"], golden["paths"])
    optimizer.update_weights(direction)
    for i in SPECS:
        actual = parameters(market.specs[i].model)
        for key, expected in part(golden, f"updated{i}").items():
            close(actual[key], expected)


def test_step_from_a_probe(market, optimizer, golden):
    optimizer.step(*optimizer.probe(golden["x"], golden["y"]))
    for i in SPECS:
        actual = parameters(market.specs[i].model)
        for key, expected in part(golden, f"updated{i}").items():
            close(actual[key], expected)


def test_path_per_sample(market, optimizer, golden):
    logits = mp.continual.forward_with_paths(
        market.specs, golden["x"], golden["cl_paths"], optimizer
    )
    close(logits, golden["cl_logits"])
    loss = mp.functional.cross_entropy(logits, golden["y"], reduction="none")
    close(loss, golden["cl_loss"])


def test_direction_from_a_path_per_sample(optimizer, golden):
    actual = optimizer.compute_direction_vectors(
        golden["cl_loss"], golden["cl_paths"], mp.UnitVectorMode.whole
    )
    close_directions(actual, golden, "cl_direction", True)


def test_a_scatter_steps_along_that_direction(market, golden):
    optimizer = make_optimizer(market, golden, plan="scatter")
    before = [parameters(spec.model) for spec in market.specs]
    optimizer.step(golden["cl_loss"], golden["cl_paths"])
    rate = float(golden["lr"])
    for i in SPECS:
        direction = part(golden, f"cl_direction{i}")
        expected = {key: np.float64(w) + rate * direction[key] for key, w in before[i].items()}
        actual = parameters(market.specs[i].model)
        for key, value in expected.items():
            close(actual[key], value)
            assert np.abs(actual[key] - before[i][key]).max() > 1e-3 * rate


@pytest.fixture
def searching(market, golden):
    """An optimizer with its line search's vendors in place, and the direction they follow."""
    optimizer = make_optimizer(market, golden, meta_learning_rate=float(golden["meta_lr"]))
    direction = optimizer.compute_direction_vectors(golden["loss"], golden["paths"])
    optimizer.update_lr_scales(direction)
    return optimizer, direction


@pytest.mark.parametrize("spec", SPECS)
def test_meta_scales_and_deltas(searching, golden, spec):
    context = searching[0].spec_context[spec]
    close(context.learning_rate_scales, golden[f"meta_scales{spec}"])
    for key, expected in part(golden, f"meta_delta{spec}").items():
        close(context.delta[key], expected)


def test_meta_line_search(market, searching, golden):
    optimizer, direction = searching
    loss, paths = optimizer.probe(golden["x"], golden["y"])
    close(loss, golden["meta_loss"])
    best = paths[int(mp.topk(loss, 1, largest=False)[1][0])]
    assert np.array_equal(best, golden["meta_best_path"])
    rates = optimizer.get_learning_rates(best)
    close(rates, golden["meta_learning_rates"])
    optimizer.update_weights(direction, rates)
    for i in SPECS:
        actual = parameters(market.specs[i].model)
        for key, expected in part(golden, f"meta_updated{i}").items():
            close(actual[key], expected)
        close(optimizer.spec_context[i].learning_rate, golden["meta_learning_rates"][i])


def test_meta_step_is_the_line_search(market, golden):
    optimizer = make_optimizer(market, golden, meta_learning_rate=float(golden["meta_lr"]))
    optimizer.step(*optimizer.probe(golden["x"], golden["y"]))
    for i in SPECS:
        actual = parameters(market.specs[i].model)
        for key, expected in part(golden, f"meta_updated{i}").items():
            close(actual[key], expected)
        close(optimizer.spec_context[i].learning_rate, golden["meta_learning_rates"][i])


@pytest.mark.parametrize("mode", MODES)
def test_oracle_agrees_with_the_reference(market, golden, mode):
    """The other tests lean on the oracle; here it leans on the reference."""
    amplitude = float(golden["lr"]) * float(golden["probe_scale"])
    deltas = market.deltas([golden[f"seeds{i}"] for i in SPECS], amplitude)
    paths = oracle.tree_paths(VENDORS)
    assert np.array_equal(paths, golden["paths"])
    logits = oracle.forward(market.models, market.weights, deltas, golden["x"], paths)
    close(golden["logits"], logits)
    loss = np.array([reference.cross_entropy(row, golden["y"]) for row in logits])
    close(golden["loss"], loss)
    direction = oracle.directions(golden["loss"], paths, deltas, mode.value)
    close_directions(direction, golden, f"direction_{mode.value}", mode.value == "whole")
