"""The experiments' driver: its presets, its runs and results, what it refuses."""

import importlib
import json
import re

import pytest
from marketplace.examples import experiments
from marketplace.examples.experiments import EXPERIMENTS, _driver
from marketplace.examples.experiments._experiment import Experiment, Trial

pytestmark = pytest.mark.usefixtures("small_data")

# The reference's experiments and how many runs each makes; lr_scale's ranges and scaling's point
# are counted as docs/experiments.md maps them.
RUNS = {
    "beautiful_mnist": 1,
    "mnist_backprop_cmp": 1 + 9 + 9 + 1,
    "lr": 5 * 5,
    "lr_scale": 3 * (1 + 9),
    "lr_vendor16": 10 * 3,
    "unit_vector_mode": 4 * 2,
    "market_depth": 6,
    "scaling": 2,
    "batch_sizes": 15,
    "batch_normal": 2,
    "low_precision": 2,
    "long_run": 1,
    "resnet18": 1,
    "continual_learning": 1,
    "continual_learning_fashion": 1,
    "cl_exp": 2 * 3 * 6 * 3,
    "cl_digit_exp": 2,
    "cl_fashion_exp": 2,
    "cl_augment": 4,
    "cl_balance_labels": 2,
}
TINY = ["--", "--vendors", "2", "--batch-size", "4", "--threads", "1"]
ALL_TRIALS = [
    pytest.param(each, id=f"{name}-{number}")
    for name, experiment in EXPERIMENTS.items()
    for number, each in enumerate(experiment.trials)
]


def run(*arguments, tail=TINY):
    return experiments.main([*map(str, arguments), *tail])


# -- presets ---------------------------------------------------------------------------------------


def test_every_experiment_of_the_reference_is_there():
    assert {name: len(each.trials) for name, each in EXPERIMENTS.items()} == RUNS


@pytest.mark.parametrize("each", ALL_TRIALS)
def test_every_command_is_understood(each):
    module = importlib.import_module(f"marketplace.examples.{each.program}")
    base = ["--base", "base.safetensors"] if each.base else []
    options = module.parse([*each.arguments, *base])
    assert options.steps >= 500 and options.batch_size >= 32


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs_differ_in_what_is_varied_alone(name):
    """Every run has a name of its own, and no two the same command."""
    trials = EXPERIMENTS[name].trials
    assert len({each.stem for each in trials}) == len(trials)
    assert len({(each.arguments, each.base) for each in trials}) == len(trials)
    assert all(re.fullmatch(r"[\w.+-]+", each.stem) for each in trials)
    assert {each.base for each in trials} - {None} == set(EXPERIMENTS[name].bases)


@pytest.mark.parametrize("name", [n for n, each in EXPERIMENTS.items() if each.bases])
def test_base_models_are_understood(name):
    from marketplace.examples import mnist

    for words in EXPERIMENTS[name].bases.values():
        options = mnist.parse(words)
        assert (options.steps, options.plan, options.vendors) == (2000, "tree", (16,))


def values(name, key):
    return [each.values[key] for each in EXPERIMENTS[name].trials]


def test_the_values_are_the_references():
    assert sorted(set(values("lr", "lr"))) == [0.1, 0.15, 0.2, 0.25, 0.3]
    assert sorted(set(values("lr_vendor16", "probe scale"))) == [
        0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.275, 0.3, 0.325,
    ]  # fmt: skip
    assert sorted(set(values("lr_vendor16", "lr"))) == [0.06, 0.08, 0.2]
    assert sorted(set(values("unit_vector_mode", "lr"))) == [0.09, 0.1, 0.2, 0.3]
    depths = zip(values("market_depth", "depth"), values("market_depth", "vendors"), strict=True)
    assert list(depths) == [(1, 8), (1, 16), (1, 32), (1, 64), (3, 8), (3, 16)]
    sizes = [(batch, n) for batch in (32, 64, 128, 256, 512) for n in (1, 2, 4, 8, 16)]
    sizes = [(batch, n) for batch, n in sizes if batch * n <= 512]
    assert sizes == list(
        zip(values("batch_sizes", "batch"), values("batch_sizes", "minibatches"), strict=True)
    )
    assert sorted(set(values("cl_exp", "lr"))) == [9e-3, 1e-2, 2e-2, 3e-2, 1e-1, 2e-1]
    assert values("scaling", "replicas") == [1, 64]


# -- running ---------------------------------------------------------------------------------------


def test_a_sweep_with_table_json_and_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = ["--json", tmp_path / "out.json", "--plot", tmp_path / "out.png"]
    assert run("unit_vector_mode", "--steps", 2, "--runs", "1,3-4", *files) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("unit_vector_mode: learning rate by unit vector mode")
    assert lines[1].split()[:2] == ["lr", "mode"] and "test accuracy %" in lines[1]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["0.09", "per_spec"], ["0.1", "per_spec"], ["0.1", "whole"],
    ]  # fmt: skip
    assert "[3/3] lr 0.1 mode whole" in captured.err
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["experiment"] == "unit_vector_mode" and len(content["runs"]) == 3
    first = content["runs"][0]
    assert first["values"] == {"lr": 0.09, "mode": "per_spec"}
    assert first["report"]["steps"] == 2 and first["report"]["plan"] == "tree"
    assert first["arguments"][-1] == "--quiet"
    assert (tmp_path / "out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_quiet_prints_the_table_alone(capsys):
    assert run("beautiful_mnist", "--steps", 1, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.err == "" and len(captured.out.splitlines()) == 3


def test_what_is_there_is_not_run_again(tmp_path, capsys):
    arguments = ["batch_normal", "--steps", 1, "--out", tmp_path / "runs"]
    assert run(*arguments) == 0
    first = capsys.readouterr()
    kept = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert kept == ["batch_normal-norm-batch.json", "batch_normal-norm-instance.json"]
    assert run(*arguments) == 0
    again = capsys.readouterr()
    assert again.out == first.out and again.err.count("is there") == 2
    assert run("batch_normal", "--steps", 2, "--out", tmp_path / "runs") == 0
    assert "is there" not in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"arguments": []}', "null"])
def test_a_report_that_is_no_report_is_run_again(tmp_path, content, capsys):
    (tmp_path / "beautiful_mnist-vendors-8.json").write_text(content)
    assert run("beautiful_mnist", "--steps", 1, "--out", tmp_path) == 0
    assert "is there" not in capsys.readouterr().err


def test_dry_run_prints_commands_that_the_examples_understand(tmp_path, capsys):
    assert run("cl_digit_exp", "--dry-run", "--steps", 7, "--out", tmp_path / "x", tail=[]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "marketplace.examples.mnist", "marketplace.examples.mnist",
        "marketplace.examples.continual_digits", "marketplace.examples.continual_digits",
    ]  # fmt: skip
    assert "--exclude-missing-from-loss" in lines[1]
    assert "--steps 7" in lines[2] and "replay" in lines[2]
    assert not (tmp_path / "x").exists()


def test_resnet18_runs(capsys, monkeypatch):
    from marketplace import data
    from marketplace.examples import resnet18

    original = data.synthetic_images
    monkeypatch.setattr(resnet18, "synthetic_images", lambda size: original(size, train=8, test=4))
    tail = [*TINY, "--width", "2", "--image-size", "32"]
    assert run("resnet18", "--steps", 1, tail=tail) == 0
    assert "synthetic stripes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["continual_learning", "continual_learning_fashion", "cl_digit_exp", "cl_balance_labels"],
)
def test_streams_start_from_base_models(tmp_path, name, capsys):
    pytest.importorskip("marketplace.examples.continual_digits")
    base = ["--base-steps", 1, "--base-options=--vendors 2 --batch-size 4 --threads 1"]
    arguments = [name, "--steps", 2, "--out", tmp_path, *base, "--json", tmp_path / "all.json"]
    tail = ["--", "--vendors", "2", "--batch-size", "8", "--new-per-batch", "2", "--threads", "1"]
    assert run(*arguments, tail=tail) == 0
    captured = capsys.readouterr()
    assert "old %" in captured.out and "new %" in captured.out
    assert len(captured.out.splitlines()) == 2 + RUNS[name]
    for key in EXPERIMENTS[name].bases:
        assert (tmp_path / f"{name}-{key}.safetensors").is_file()
    reports = json.loads((tmp_path / "all.json").read_text())["runs"]
    assert all(each["report"]["steps"] == 2 for each in reports)
    for each in EXPERIMENTS[name].trials:
        for ending in each.files.values():
            assert (tmp_path / f"{name}-{each.stem}{ending}").read_text().count("\n") == 2
    assert run(*arguments, tail=tail) == 0
    assert capsys.readouterr().err.count("is there") == len(EXPERIMENTS[name].bases) + RUNS[name]


# -- what goes wrong -------------------------------------------------------------------------------


def trials_of(*commands):
    made = tuple(Trial({"run": i}, "mnist", words) for i, words in enumerate(commands))
    return Experiment("made", "made up", made)


def test_one_failing_run_stops_no_other(monkeypatch, tmp_path, capsys):
    made = trials_of(("--steps", "1"), ("--steps", "1", "--device", "abacus"), ("--steps", "1"))
    monkeypatch.setitem(EXPERIMENTS, "made", made)
    assert run("made", "--json", tmp_path / "out.json", "--out", tmp_path / "runs") == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[3].split() == ["1", "failed"]
    assert "abacus" in captured.err
    reports = [each["report"] for each in json.loads((tmp_path / "out.json").read_text())["runs"]]
    assert [report is None for report in reports] == [False, True, False]
    assert not (tmp_path / "runs" / "made-run-1.json").exists()


def test_all_runs_failing(monkeypatch, capsys):
    monkeypatch.setitem(EXPERIMENTS, "made", trials_of(("--device", "abacus")))
    assert run("made", "--steps", 1) == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["run  result", "  0  failed"]


@pytest.mark.parametrize("stopped", [130, 143], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_shows_what_is_done(monkeypatch, capsys, stopped):
    monkeypatch.setitem(EXPERIMENTS, "made", trials_of(("--steps", "1"), ("--steps", "2")))
    original = _driver._Sweep._call

    def interrupted(self, program, command):
        return (None, stopped) if "2" in command[:2] else original(self, program, command)

    monkeypatch.setattr(_driver._Sweep, "_call", interrupted)
    assert run("made") == stopped
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_failing_base_stops_everything(monkeypatch, tmp_path, capsys):
    pytest.importorskip("marketplace.examples.continual_digits")
    options = ["--base-steps", 1, "--base-options=--device abacus", "--out", tmp_path]
    tail = ["--", "--new-per-batch", "2", "--batch-size", "8"]
    assert run("continual_learning", "--steps", 1, *options, tail=tail) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "abacus" in captured.err


def test_a_bad_option_of_a_run_shows_before_the_first(monkeypatch, capsys):
    monkeypatch.setattr(_driver._Sweep, "run", None)
    with pytest.raises(SystemExit) as stop:
        run("lr", tail=["--", "--vendors", "many"])
    assert stop.value.code == 2
    assert "--vendors: expected whole numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "argument NAME: expected one of beautiful_mnist, mnist_backprop_cmp"),
        (["lrs"], "received lrs"),
        (["lr", "--runs", "26"], "--runs: expected numbers up to 25, received 26"),
        (["lr", "--runs", "0"], "--runs: expected numbers from 1"),
        (["lr", "--runs", "3-1"], "--runs: expected at least one number"),
        (["lr", "--runs", "a"], "--runs: expected numbers from 1"),
        (["lr", "--steps", "-1"], "--steps: expected a whole number of at least 0"),
        (["lr", "--base-steps", "3"], "--base-steps: expected none, lr starts from nothing"),
        (["lr", "--base", "x"], "--base: expected none, lr starts from nothing"),
        (["lr", "--plot", "x.gif"], "--plot: expected a name ending in .png"),
        (["lr", "--json", "no/such/file"], "--json: expected a file in a directory that exists"),
    ],
)
def test_bad_option_is_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_out_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("lr", "--out", tmp_path / "file") == 1
    assert capsys.readouterr().err.count("error:") == 1


def test_list_names_every_experiment(capsys):
    assert experiments.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[n, str(count)] for n, count in RUNS.items()]
