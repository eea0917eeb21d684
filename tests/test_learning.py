"""The comparison of methods: common ground, tiny runs, the file of runs, tables and picture."""

import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
OURS = ("control", "tree", "star", "node", "node-2")
BACKPROP = ("sgd", "adam")


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Make ``benchmarks`` importable, and keep it from setting this process's threads."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import harness

    monkeypatch.setattr(harness, "limit_threads", lambda threads: None)


def quick(tmp_path, *arguments):
    """Run the comparison as a program, tiny; its JSON and what it printed."""
    out = tmp_path / "runs" / "learning"
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "benchmarks.learning"]
    done = subprocess.run(
        [*command, "--quick", "--threads", "1", "--out", str(out), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".txt").read_text().strip() in done.stdout
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return json.loads(out.with_suffix(".json").read_text()), done.stdout


def check_runs(result, names):
    runs = [run for run in result["runs"] if run["kind"] == "run"]
    assert [run["method"] for run in runs] == list(names)
    assert len({run["curve"][0]["test_accuracy"] for run in runs}) == 1  # the same first weights
    for run in runs:
        assert [point["step"] for point in run["curve"]] == [0, 1, 2]
        assert run["diverged_at_step"] is None and run["test_images"] == 200
        last = run["curve"][-1]
        assert last["tflop"] == pytest.approx(2 * run["flops_per_step"] / 1e12)
        assert last["seconds"] > 0 and np.isfinite(last["loss"])
        assert run["commit"] and run["date"] and len(run["load_average_before"]) == 3


# -- tiny runs -------------------------------------------------------------------------------------


def test_ours(tmp_path):
    result, printed = quick(tmp_path, "--methods", "tree,star,node,node-2")
    check_runs(result, OURS)
    assert "goal <= 8" in printed and "control 1,1,1,1,1" in printed
    again, printed = quick(tmp_path, "--methods", "star")
    assert again["runs"] == result["runs"]
    assert printed.count("(kept)") == 2  # the control always runs beside


def test_backprop(tmp_path):
    pytest.importorskip("torch")
    result, printed = quick(tmp_path, "--methods", "sgd,adam")
    check_runs(result, ("control", *BACKPROP))
    assert "grid of sgd (2 steps, seed 1000003)" in printed
    grid = [run for run in result["runs"] if (run["kind"], run["method"]) == ("grid", "adam")]
    assert {run["settings"]["lr"] for run in grid} == {3e-4, 1e-3, 3e-3, 1e-2}
    best = max(grid, key=lambda run: run["final_accuracy"])
    assert result["runs"][-1]["settings"] == best["settings"]


def test_report_alone_runs_nothing(tmp_path):
    result, _ = quick(tmp_path, "--methods", "")
    again, printed = quick(tmp_path, "--report")
    assert again["runs"] == result["runs"] and "(kept)" not in printed


# -- the common ground -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_our_markets_start_from_the_same_weights_however_they_are_cut(name):
    from benchmarks.learning import methods, network, ours

    weights = network.first_weights(5)
    trainer = ours.make(methods.BY_NAME[name].settings, weights, 1, 1)
    found = trainer.weights()
    assert found.keys() == weights.keys() and len(found) == 14
    for key, value in weights.items():
        np.testing.assert_array_equal(found[key], value)
    assert any(np.any(network.first_weights(6)[key] != value) for key, value in weights.items())


def test_work_of_forward_and_backprop():
    from benchmarks.learning import methods, network, ours

    star = {**methods.BY_NAME["star"].settings, "vendors": (1, 1, 1)}
    assert network.forward_flops(64) == ours.flops_per_step(star)
    first = 2 * 64 * 32 * 25 * 24 * 24
    assert network.backprop_flops(64) == 3 * network.forward_flops(64) - first
    assert network.backprop_flops(64) == pytest.approx(5.0e9, rel=0.01)


def test_torch_computes_the_same_network_and_its_gradient():
    torch = pytest.importorskip("torch")
    from marketplace.training import straight_forward

    from benchmarks.learning import backprop, network

    weights = network.first_weights(3)
    x = np.random.default_rng(1).integers(0, 256, (8, 1, 28, 28), np.uint8)
    y = np.arange(8, dtype=np.int32)

    def loss(values):
        specs = network.make_market("depth-1", "star", (1,), values)
        logits = torch.from_numpy(np.asarray(straight_forward(specs, x)))
        return float(torch.nn.functional.cross_entropy(logits, torch.arange(8)))

    settings = {"optimizer": "sgd", "momentum": 0.9, "lr": 1.0}
    trainer = backprop.make(settings, weights, 0, 1)
    rate = 1e-6  # small: the loss bends at once, with inputs up to 255
    assert trainer.step(x, y, rate) == pytest.approx(loss(weights), rel=1e-5)
    step = {key: trainer.weights()[key] - value for key, value in weights.items()}
    squared = sum(float(np.sum(value.astype(float) ** 2)) for value in step.values())
    assert loss(trainer.weights()) - loss(weights) == pytest.approx(-squared / rate, rel=0.05)


def test_accuracy_counts_right_answers_and_none_of_a_broken_network():
    from marketplace.training import straight_forward

    from benchmarks.learning import network

    weights = network.first_weights(0)
    x = np.random.default_rng(2).integers(0, 256, (20, 1, 28, 28), np.uint8)
    specs = network.make_market("depth-1", "star", (1,), weights)
    y = np.asarray(straight_forward(specs, x)).argmax(axis=1)
    y[:5] = (y[:5] + 1) % 10
    judge = network.Judge(x, y)
    assert judge.accuracy(weights) == 75.0
    weights["layers.13.bias"][3] = np.nan
    assert judge.accuracy(weights) == 0.0


# -- runs, grids and the file of runs --------------------------------------------------------------


class Pretender:
    """Comes to the accuracy that its settings name, or diverges at a step."""

    def __init__(self, settings, weights):
        self.settings, self.given, self.steps = settings, weights, 0
        self.rates = []

    def step(self, x, y, rate):
        self.rates.append(rate)
        self.steps += 1
        return float("nan") if self.steps - 1 == self.settings.get("diverges_at") else 1.0

    def weights(self):
        return self.given


@pytest.fixture
def pretend(monkeypatch):
    """Give a function that makes a method of settings; its trainers, as they are made."""
    from benchmarks.learning import methods

    made = []

    def make(settings, weights, seed, threads):
        made.append(Pretender(settings, weights))
        return made[-1]

    module = types.SimpleNamespace(
        load=lambda threads: None, make=make, flops_per_step=lambda settings: 10**9
    )
    monkeypatch.setitem(sys.modules, "benchmarks.learning.pretender", module)
    common = {"batch": 4, "schedule": "cosine", "lr": 0.5}

    def method(grid=(), **settings):
        every = {**common, **settings}
        return methods.Method("sgd", "pretend", "numpy", "pretender", every, 6, "red", grid)

    method.made = made
    return method


@pytest.fixture
def digits():
    x = np.zeros((12, 1, 28, 28), np.uint8)
    y = np.arange(12, dtype=np.int32) % 10
    return types.SimpleNamespace(x_train=x, y_train=y, x_test=x, y_test=y, name="twelve digits")


def test_a_run_follows_the_schedule_and_is_measured_at_its_end(pretend, digits):
    from benchmarks.learning import network, train

    judge = network.Judge(digits.x_test, digits.y_test)
    done = train.run(train.Task(pretend(), 1, 6, 4, "d"), digits, judge, 1)
    assert [point["step"] for point in done["curve"]] == [0, 4, 6]
    assert done["curve"][-1]["tflop"] == 0.006
    rates = pretend.made[-1].rates
    assert rates[0] == 0.5 and rates[3] == pytest.approx(0.25) and 0 < rates[5] < 0.05
    done = train.run(train.Task(pretend(schedule="constant"), 1, 6, 4, "d"), digits, judge, 1)
    assert pretend.made[-1].rates == [0.5] * 6


def test_a_diverged_run_stops_and_counts_as_lost(pretend, digits):
    from benchmarks.learning import network, train

    judge = network.Judge(digits.x_test, digits.y_test)
    done = train.run(train.Task(pretend(diverges_at=3), 1, 6, 1, "d"), digits, judge, 1)
    assert done["diverged_at_step"] == 3 and done["final_accuracy"] == 0.0
    assert [point["step"] for point in done["curve"]] == [0, 1, 2, 3]


def test_batches_depend_on_seed_and_step_alone(pretend, digits):
    from benchmarks.learning import train

    digits.y_train = np.arange(12, dtype=np.int32)
    task = train.Task(pretend(), 1, 6, 1, "d")
    epoch = np.concatenate([train.batch(task, digits, step)[1] for step in range(3)])
    assert sorted(epoch) == list(range(12))
    np.testing.assert_array_equal(train.batch(task, digits, 1)[1], epoch[4:8])
    other = train.Task(pretend(), 2, 6, 1, "d")
    assert np.any(train.batch(other, digits, 0)[1] != epoch[:4])


def comparison(tmp_path, *arguments):
    from benchmarks.learning import __main__ as program
    from benchmarks.learning import options
    from benchmarks.learning.store import Store

    store = Store(tmp_path / "runs.json", {"commit": "c", "date": "d"})
    parsed = options.parse(["--data", "bundled", "--eval-every", "3", *arguments])
    return program.Comparison(parsed, store), store


def test_a_grid_takes_the_best_and_gives_way_to_what_was_set(pretend, digits, tmp_path):
    compared, store = comparison(tmp_path, "--seeds", "2", "--grid-tflop", "0.004")
    # three evaluations a run, and the last one counts
    judged = iter([0.0, 99.0, 10.0, 0.0, 20.0, 30.0, 0.0, 50.0, 20.0])
    compared.judge.accuracy = lambda weights: next(judged, 50.0)
    grid = tuple({"lr": lr} for lr in (0.1, 0.2, 0.3))
    compared.data = digits
    compared.run_all([pretend(grid)])
    kinds = [(run["kind"], run["steps"], run["settings"]["lr"]) for run in store.runs]
    # 4 steps are as much as a grid's run may take
    assert kinds[:3] == [("grid", 4, 0.1), ("grid", 4, 0.2), ("grid", 4, 0.3)]
    assert kinds[3:] == [("run", 6, 0.2)] * 2
    assert [run["seed"] for run in store.runs[3:]] == [42, 43]
    fixed = pretend(grid).with_settings({"lr": 0.7})
    assert fixed.grid == () and fixed.settings["lr"] == 0.7


def test_an_interrupted_comparison_goes_on(pretend, digits, tmp_path):
    compared, store = comparison(tmp_path, "--seeds", "3")
    compared.data = digits
    compared.run_all([pretend()])
    path = store.path
    kept = json.loads(path.read_text())
    kept["runs"] = kept["runs"][:1]
    path.write_text(json.dumps(kept))
    before = len(pretend.made)
    again, store = comparison(tmp_path, "--seeds", "3")
    again.data = digits
    again.run_all([pretend()])
    assert len(pretend.made) - before == 2
    assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == [42, 43, 44]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": 3}', '{"runs": [{"a": 1}]}'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, text):
    from benchmarks.learning.store import Store

    path = tmp_path / "learning.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="expected .* to hold the runs"):
        Store(path, {})
    assert path.read_text() == text


# -- tables and picture ----------------------------------------------------------------------------


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


# -- options ---------------------------------------------------------------------------------------


def test_steps_by_method_by_work_and_settings(tmp_path):
    from benchmarks.learning import methods, network, options

    compared, _ = comparison(tmp_path, "--steps", "star=7", "--tflop", "1")
    assert compared.task(methods.BY_NAME["star"], 1).steps == 7
    assert compared.task(methods.BY_NAME["sgd"], 1).steps == round(
        1e12 / network.backprop_flops(64)
    )
    assert set(options.parse(["--steps", "9"]).steps_of.values()) == {9}
    changes = options.parse(["--set", "star.vendors=2,3,4", "--set", "star.lr=0.2"]).changes
    assert changes == {"star": {"vendors": (2, 3, 4), "lr": 0.2}}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "0"], ["--steps", "stars=3"], ["--steps", "star=x"], ["--tflop", "-1"],
        ["--tflop", "nan"], ["--seeds", "0"], ["--set", "star.lr"], ["--set", "moon.lr=1"],
        ["--set", "star.moon=1"], ["--set", "star.lr=fast"], ["--set", "star.vendors=1,x"],
        ["--set", "star.schedule=never"], ["--eval-every", "0"], ["--data", "half"],
    ],
)  # fmt: skip
def test_bad_options_are_refused(arguments, capsys):
    from benchmarks.learning import options

    with pytest.raises(SystemExit) as refused:
        options.parse(arguments)
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err or arguments[0] == "--data"


def test_an_unknown_method_is_refused():
    from benchmarks.learning import methods

    with pytest.raises(SystemExit, match="--methods: expected some of"):
        methods.choose("star,moon")
    assert [method.name for method in methods.choose("star")] == ["control", "star"]
