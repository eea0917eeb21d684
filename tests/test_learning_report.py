"""The comparison's tables and picture, from runs that are made up."""

import json
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Make ``benchmarks`` importable."""
    monkeypatch.syspath_prepend(str(ROOT))


def made_run(method, seed, accuracies, flops=10**12, **changed):
    """Make a record whose step k took k TFLOP and 2 k seconds."""
    from benchmarks.learning import methods

    settings = json.loads(json.dumps(dict(methods.BY_NAME[method].settings)))
    points = [
        {"step": k, "tflop": k * flops / 1e12, "seconds": 2.0 * k, "loss": 1.0, "test_accuracy": a}
        for k, a in enumerate(accuracies)
    ]
    return {
        "method": method, "kind": "run", "settings": settings, "seed": seed, "steps": len(points),
        "eval_every": 1, "data": "digits", "label": f"ours: {method}", "test_images": 10,
        "flops_per_step": flops, "load_average_before": [1.0, 0, 0],
        "load_average_after": [2.5, 0, 0], "final_accuracy": accuracies[-1], "curve": points,
        **changed,
    }  # fmt: skip


@pytest.fixture
def runs():
    return [
        made_run("star", 1, [10, 95, 93, 96]),
        made_run("control", 1, [10, 90, 92, 92.5]),
        made_run("star", 2, [10, 80, 94, 95]),
        made_run("control", 2, [10, 90, 92, 93.5]),
    ]


def test_costs_to_an_accuracy(runs):
    from benchmarks.learning import report

    control, star = report.groups(runs)
    assert (control.method, star.method) == ("control", "star")
    assert star.costs_to(94, "tflop") == [1, 2] and star.costs_to(96, "step") == [3]
    assert control.costs_to(94, "seconds") == []


def test_the_tables(runs):
    from benchmarks.learning import report

    lines = [" ".join(line.split()) for line in report.text(runs).splitlines()]
    assert "star 8,40,512 1.50 ± 0.71 3.00 (1/2) - -" in lines
    assert "star 8,40,512 3.0 ± 1.4 6.0 (1/2) - -" in lines
    assert "star 8,40,512 2 ± 1 3 (1/2) - -" in lines
    assert "goal of ours goal <= 8 goal <= 17 goal <= 40 -" in lines
    assert "control 1,1,1,1,1 - - - -" in lines
    assert "star 8,40,512 95.50 ± 0.71 +2.50 2 4 1000.00 4.00 6.0 ± 0.0 2.5" in lines


def test_seconds_follow_from_a_pace(runs):
    from benchmarks.learning import pace, report

    star = {k: runs[0][k] for k in ("method", "settings", "data")}
    loads = {"load_average_before": [0.1, 0, 0], "load_average_after": [0.2, 0, 0]}
    measured = {**star, **loads, "kind": "pace", "seconds_per_step": 0.5}
    lines = [" ".join(r.split()) for r in report.text(pace.apply([*runs, measured])).splitlines()]
    assert "star 8,40,512 0.8 ± 0.4 1.5 (1/2) - -" in lines
    assert "star 8,40,512 95.50 ± 0.71 +2.50 2 4 1000.00 4.00 1.5 ± 0.0 0.2" in lines
    assert any(line.endswith("6.0 ± 0.0 2.5") for line in lines)  # the control has none
    assert runs[0]["curve"][1]["seconds"] == 2.0


def test_choices_of_one_method_are_told_apart(runs):
    from benchmarks.learning import report

    other = made_run("star", 1, [10, 20, 30])
    other["settings"] = {**other["settings"], "lr": 0.2}
    control, first, second = report.groups([*runs, other])
    assert control.title == "control 1,1,1,1,1"
    assert first.title == "star 8,40,512, lr 0.1, steps 4"
    assert second.title == "star 8,40,512, lr 0.2, steps 3" and len(second.runs) == 1


def test_grids_are_listed_best_first(runs):
    from benchmarks.learning import report

    grid = [
        made_run("sgd", 9, [10, accuracy], kind="grid", settings={"lr": lr, "batch": 64})
        for lr, accuracy in ((0.1, 50.0), (0.2, 97.0))
    ]
    expected = (
        "grid of sgd (2 steps, seed 9), final test accuracy: lr 0.2: 97.00 %; lr 0.1: 50.00 %"
    )
    assert expected in report.text([*runs, *grid]).splitlines()
    assert report.text([]) == "no runs yet"


def test_the_picture_averages_what_all_seeds_reached(runs, tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.learning import picture, report

    runs[2]["curve"].pop()  # a seed that diverged
    star = report.groups(runs)[1]
    drawn = picture.curves(star, "seconds")
    np.testing.assert_allclose(drawn["x"], [2, 4])
    np.testing.assert_allclose(drawn["mean"], [87.5, 93.5])
    np.testing.assert_allclose(drawn["std"], [15 / np.sqrt(2), 1 / np.sqrt(2)])
    path = tmp_path / "made" / "curves.png"
    picture.plot(runs, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    picture.plot([], path)
