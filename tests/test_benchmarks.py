"""The benchmarks run, and their common ground is the same for every contender."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def modules(monkeypatch):
    """Make ``benchmarks`` importable, and keep it from setting this process's threads."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import harness

    monkeypatch.setattr(harness, "limit_threads", lambda threads: None)


def run(module, tmp_path, *arguments):
    """Run a benchmark of the checkout; its result and what it printed."""
    kept = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{module}", "--quick", "--json", str(kept)]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert kept.with_suffix(".txt").read_text().strip() in done.stdout
    result = json.loads(kept.read_text())
    assert result["commit"] and result["machine"]["cpu"] and result["date"]
    assert result["command"].startswith(f"python -m benchmarks.{module} --quick")
    return result


# -- each of them, tiny ----------------------------------------------------------------------------


def test_peers(tmp_path):
    result = run("peers", tmp_path, "--contenders", "ours", "--threads", "1")
    rows = result["rows"]
    assert len({row["case"] for row in rows}) == 8
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"} == set(result["peak_flops"])
    for row in rows:
        assert row["losses_agree"] and row["median_ms"] > 0 and row["share_of_peak"] > 0
        assert row["loss_difference"] == 0 or row["dtype"] == "bfloat16"
    assert result["import_ms"]["median_ms"] > 0


def test_scaling(tmp_path):
    picture = tmp_path / "plot.png"
    result = run("scaling", tmp_path, "--sweeps", "vendors,depth", "--plot", str(picture))
    rows = result["rows"]
    assert [(row["sweep"], row["value"], row["paths"]) for row in rows] == [
        ("vendors", 1, 1), ("vendors", 2, 8), ("depth", 1, 7), ("depth", 2, 10),
    ]  # fmt: skip
    assert all(row["median_ms"] > 0 and row["peak_bytes"] > 0 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_step_cost(tmp_path):
    result = run("step_cost", tmp_path, "--threads", "1")
    assert result["random_numbers"] == 26_528 + 55_552 + 5_770
    assert result["random_numbers_per_second_per_core"] > 1e6
    assert 0 < result["step_share"] < 1 and 0 < result["share"] < 1


def test_bench_scatter(tmp_path):
    rows = run("bench_scatter", tmp_path, "--threads", "1")["rows"]
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        assert row["times_inference"]["inference"] == 1
        assert set(row["ms"]) == set(row["times_inference"]) and min(row["ms"].values()) > 0


# -- the common ground -----------------------------------------------------------------------------


class NumpyOps:
    """Enough for the MLP, in float64."""

    def linear(self, x, layer, weight, bias):
        return x @ weight.T.astype(np.float64) + bias

    def relu(self, x):
        return np.maximum(x, 0)


@pytest.mark.parametrize("plan", ["tree", "star"])
def test_a_contender_of_numpy_finds_our_losses(modules, tmp_path, plan):
    from benchmarks import cases, forest, problem

    small = cases.CASES["mlp"].small()
    case = dataclasses.replace(small, vendors=(3, 2, 4), plan=plan)
    given = problem.make_problem(case, tmp_path, 1)
    stacks = [given.vendors(spec) for spec in range(3)]

    def one(spec, vendor, x):
        weights = {key: value[vendor] for key, value in stacks[spec].items()}
        return forest.run_layers(case.specs[spec], x, weights, NumpyOps())

    def every(spec, x):
        return np.concatenate([one(spec, v, x) for v in range(case.vendors[spec])])

    out = forest.logits(
        case, given.x.astype(np.float64), every, lambda s, x: one(s, 0, x), np.concatenate
    )
    out = out.reshape(len(case.paths()), case.batch, case.classes)
    chosen = out[:, np.arange(case.batch), given.y]
    losses = (np.log(np.exp(out - chosen[..., None]).sum(-1))).mean(1)
    np.testing.assert_allclose(given.losses, losses, rtol=1e-5)
    assert len(np.unique(given.losses)) == len(losses)


def test_the_work_of_the_published_tree(modules, tmp_path):
    from benchmarks import cases, problem

    assert problem.make_problem(cases.CASES["tree-4"], tmp_path, 1).flops == pytest.approx(
        10.7e9, rel=0.01
    )


def test_losses_that_differ_fail_the_run(modules, monkeypatch, capsys):
    from benchmarks import contender_ours, peers

    right = contender_ours.prepare

    def wrong(*arguments):
        evaluate = right(*arguments)
        return lambda: evaluate() * 1.001

    options = ["--quick", "--cases", "mlp", "--contenders", "ours", "--dtype", "float32"]
    monkeypatch.setattr(peers.harness, "import_times_ms", lambda *_: {"median_ms": 1.0})
    assert peers.main(options) == 0
    monkeypatch.setattr(contender_ours, "prepare", wrong)
    assert peers.main(options) == 1
    assert "losses differ" in capsys.readouterr().err


def test_contenders_take_turns(modules):
    from benchmarks import harness

    seen = []
    runs = {name: lambda name=name: seen.append(name) for name in "ab"}
    seconds = harness.interleaved(runs, repeats=2, warm_up_runs=1)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert seen == ["a", "b"] + ["a", "a", "b", "b"] * 2  # short runs are warmed up every time


def test_a_contender_that_is_not_installed_is_left_out_with_a_note(modules, monkeypatch):
    from benchmarks import contenders

    absent = contenders.Contender("absent-loop", "a_package_that_is_absent", "contender_ours")
    here, notes = contenders.load([contenders.BY_NAME["ours"], absent], 1)
    assert [contender.name for contender in here] == ["ours"]
    assert notes == {"absent-loop": "a_package_that_is_absent is not installed"}


@pytest.mark.parametrize("option", ["--cases", "--dtype", "--contenders"])
def test_an_unknown_name_is_refused(modules, option):
    from benchmarks import peers

    with pytest.raises(SystemExit) as refused:
        peers.main(["--quick", option, "nonsense"])
    assert refused.value.code not in (0, None)
