"""The model of a cluster: its formulas at points where the answer is known without it."""

import json
import math
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def model(monkeypatch):
    """Import the model from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import cluster_model

    return cluster_model


def quiet(model, gigabits=1.0):
    """Make a cluster where nothing is late and nothing fails."""
    return model.Cluster(gigabits, latency=0.0, jitter=0.0, failures_per_hour=0.0)


def test_a_ring_sends_twice_all_but_its_own_part(model):
    cluster = quiet(model)
    assert model.all_reduce(cluster, 1, 1e9) == 0
    assert model.all_reduce(cluster, 4, 1e9) == pytest.approx(2 * 3 / 4 * 8)
    late = model.Cluster(1.0, latency=0.5)
    assert model.all_reduce(late, 1024, 0) == pytest.approx(2 * 10 * 0.5)
    assert model.all_gather(late, 1024, 0) == pytest.approx(10 * 0.5)


def test_a_star_sends_the_losses_of_its_paths_whatever_the_size(model):
    for entry in model.MODELS:
        assert model.sent_bytes("samples", entry, 100) == 64 + 8 * 190
        assert model.sent_bytes("paths", entry, 10) == pytest.approx(64 + 8 * 19)
        assert model.sent_bytes("all-reduce", entry, 10) == 4 * entry.parameters


@pytest.mark.parametrize("method", ["samples", "paths", "all-reduce"])
def test_one_undisturbed_worker_is_all_useful(model, method):
    device = model.measured_device()
    assert model.efficiency(method, model.MODELS[0], device, quiet(model), 1) == pytest.approx(1)


def test_shared_paths_are_held_back_by_the_update_that_everyone_repeats(model):
    device = model.Device("even", flops=1e12, numbers=1e9)
    entry = model.Model("toy", 1e6, positions=1, batch=1, specs=1, vendors=10)
    alone = model.step_of("paths", entry, device, quiet(model, 1e9), 1)
    expected = (alone.compute + alone.update) / (alone.compute + 10 * alone.update)
    found = model.efficiency("paths", entry, device, quiet(model, 1e9), 10)
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_slowest_and_the_dead_cost_time(model):
    step = model.Step(compute=1.0, update=0.0, exchange=0.0)
    uneven = model.Cluster(1.0, jitter=0.1, failures_per_hour=0.0)
    few, many = (model.simulate("samples", step, uneven, workers) for workers in (2, 1000))
    assert 1.0 < few < many < 1.5
    mortal = model.Cluster(1.0, jitter=0.0, failures_per_hour=3600 * math.log(2), detection=5.0)
    # a lone worker dies in every second step, which then takes the detection and the step again
    assert model.simulate("samples", step, mortal, 1) == pytest.approx(1 + 0.5 * 6, rel=0.2)


def test_an_unknown_method_is_refused(model):
    with pytest.raises(ValueError, match="expected one of samples, paths, all-reduce"):
        model.step_of("gossip", model.MODELS[0], model.measured_device(), quiet(model), 2)


def test_the_committed_figures_are_the_programs(model):
    kept = json.loads((ROOT / "benchmarks" / "results" / "cluster_model.json").read_text())
    device = model.measured_device()
    for row in kept[:: len(kept) // 11]:
        if row["device"] != device.name:
            continue
        entry = next(entry for entry in model.MODELS if entry.name == row["model"])
        cluster = model.Cluster(row["gigabits"])
        found = model.efficiency(row["method"], entry, device, cluster, row["workers"])
        assert found == pytest.approx(row["efficiency"], rel=1e-6)


def test_the_guide_shows_the_committed_figures():
    text = (ROOT / "benchmarks" / "results" / "cluster_model.txt").read_text()
    measured, assumed = text.split("\n\nassumed, ")
    guide = (ROOT / "docs" / "scale.md").read_text()
    for worker, part in (("CPU", measured), ("assumed", assumed)):
        rows = [line for line in part.splitlines() if line.split(" | ")[1:2] == ["10"]]  # Gb/s
        assert len(rows) == 12
        for row in rows:
            assert f"| {worker} {row.replace(' | 10 |', ' |', 1)}" in guide
