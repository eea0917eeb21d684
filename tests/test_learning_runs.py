"""How the comparison of methods runs: schedules, grids, the file of finished runs, options."""

import json
import pathlib
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Make ``benchmarks`` importable."""
    monkeypatch.syspath_prepend(str(ROOT))


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


def test_batches_depend_on_seed_and_step_alone(digits):
    from benchmarks.learning import train

    digits.y_train = np.arange(12, dtype=np.int32)
    epoch = np.concatenate([train.batch_of(digits, 1, step, 4)[1] for step in range(3)])
    assert sorted(epoch) == list(range(12))
    np.testing.assert_array_equal(train.batch_of(digits, 1, 1, 4)[1], epoch[4:8])
    assert np.any(train.batch_of(digits, 2, 0, 4)[1] != epoch[:4])


def comparison(tmp_path, data, *arguments):
    from benchmarks.learning import __main__ as program
    from benchmarks.learning import network, options
    from benchmarks.learning.store import Store

    store = Store(tmp_path / "runs.json", {"commit": "c", "date": "d"})
    parsed = options.parse(["--data", "bundled", "--eval-every", "3", *arguments])
    compared = program.Comparison(parsed, store)
    compared.data, compared.judge = data, network.Judge(data.x_test, data.y_test)
    return compared, store


def test_a_grid_takes_the_best_and_gives_way_to_what_was_set(pretend, digits, tmp_path):
    compared, store = comparison(tmp_path, digits, "--seeds", "2", "--grid-tflop", "0.004")
    # evaluated at the start and at the end, which counts
    judged = iter([99.0, 10.0, 0.0, 30.0, 50.0, 20.0])
    compared.judge.accuracy = lambda weights: next(judged, 50.0)
    grid = tuple({"lr": lr} for lr in (0.1, 0.2, 0.3))
    compared.run_all([pretend(grid)])
    kinds = [(run["kind"], run["steps"], run["settings"]["lr"]) for run in store.runs]
    # 4 steps are as much as a grid's run may take
    assert kinds[:3] == [("grid", 4, 0.1), ("grid", 4, 0.2), ("grid", 4, 0.3)]
    assert kinds[3:] == [("run", 6, 0.2)] * 2
    assert [run["seed"] for run in store.runs[3:]] == [42, 43]
    fixed = pretend(grid).with_settings({"lr": 0.7})
    assert fixed.grid == () and fixed.settings["lr"] == 0.7


def test_an_interrupted_comparison_goes_on(pretend, digits, tmp_path):
    compared, store = comparison(tmp_path, digits, "--seeds", "3")
    compared.run_all([pretend()])
    path = store.path
    kept = json.loads(path.read_text())
    kept["runs"] = kept["runs"][:1]
    path.write_text(json.dumps(kept))
    before = len(pretend.made)
    again, store = comparison(tmp_path, digits, "--seeds", "3")
    again.run_all([pretend()])
    assert len(pretend.made) - before == 2
    assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == [42, 43, 44]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_finished_is_reported_after_an_interruption(tmp_path, monkeypatch, capsys):
    from benchmarks import harness
    from benchmarks.learning import __main__ as program

    monkeypatch.setattr(harness, "limit_threads", lambda threads: None)
    train = program.run

    def once(task, *rest):
        if task.method.name != "control":
            raise KeyboardInterrupt
        return train(task, *rest)

    monkeypatch.setattr(program, "run", once)
    out = tmp_path / "runs"
    assert program.main(["--quick", "--methods", "node", "--out", str(out)]) == 130
    assert "finished runs are kept" in capsys.readouterr().err
    runs = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert [run["method"] for run in runs] == ["control"]
    assert "control 1,1,1,1,1" in (tmp_path / "runs.txt").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": 3}', '{"runs": [{"a": 1}]}'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, text):
    from benchmarks.learning.store import Store

    path = tmp_path / "learning.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="expected .* to hold the runs"):
        Store(path, {})
    assert path.read_text() == text


# -- options ---------------------------------------------------------------------------------------


def test_steps_by_method_by_work_and_settings(tmp_path, digits):
    from benchmarks.learning import methods, network, options

    compared, _ = comparison(tmp_path, digits, "--steps", "star=7", "--tflop", "1")
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
        ["--set", "star.schedule=never"], ["--set", "star.lr=0"], ["--set", "star.lr=inf"],
        ["--set", "eggroll.population=5"], ["--eval-every", "0"], ["--data", "half"],
    ],
)  # fmt: skip
def test_bad_options_are_refused(arguments, capsys):
    from benchmarks.learning import options

    with pytest.raises(SystemExit) as refused:
        options.parse(arguments)
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err or arguments[0] == "--data"


def test_settings_that_do_not_fit_are_refused_before_anything_runs(tmp_path, digits):
    from benchmarks.learning import options

    compared, store = comparison(tmp_path, digits, "--methods", "", "--set", "control.vendors=1,1")
    with pytest.raises(SystemExit, match="--set: control: "):
        compared.run_all(options.chosen(compared.options))
    assert store.runs == [] and not store.path.exists()


def test_an_unknown_method_is_refused():
    from benchmarks.learning import methods

    with pytest.raises(SystemExit, match="--methods: expected some of"):
        methods.choose("star,moon")
    assert [method.name for method in methods.choose("star")] == ["control", "star"]


# -- paces -----------------------------------------------------------------------------------------


def test_a_pace_is_measured_and_replaces_an_older_one(tmp_path, monkeypatch, pretend):
    from benchmarks.learning import methods, pace, store

    monkeypatch.setattr(pace, "ENOUGH_SECONDS", 0.0)
    digits = types.SimpleNamespace(
        x_train=np.zeros((9, 1, 28, 28), np.uint8), y_train=np.zeros(9, np.int32), name="digits"
    )
    method = pretend(vendors=(1, 2))
    monkeypatch.setitem(methods.BY_NAME, "sgd", method)
    found = pace.measure(method, digits, 1)
    assert len(pretend.made) == 1 and pretend.made[0].steps == 8 and found["timed_steps"] == 5
    assert found["seconds_per_step"] > 0 and found["settings"]["vendors"] == [1, 2]
    assert [m.settings for m in pace.methods_of([found, found])] == [method.settings]
    path = tmp_path / "runs.json"
    kept = store.Store(path, {"commit": "c"})
    kept.replace(found)
    kept.replace({**found, "seconds_per_step": 7.0})
    other = {**found, "settings": {**found["settings"], "lr": 0.1}}
    kept.replace(other)
    again = store.Store(path, {})
    assert [run["seconds_per_step"] for run in again.runs] == [7.0, found["seconds_per_step"]]
    assert pace.find(found, again.runs) == again.runs[0]
