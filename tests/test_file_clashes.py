"""No command writes over what it reads, nor two of its files over each other."""

import json
import os
import pathlib

import marketplace as mp
import pytest
from marketplace import __main__, replay
from marketplace.examples import continual_digits, experiments, mnist
from markets import CONV, CONV_SHAPE, VENDORS, batch, build, optimizer
from refusals import refusal

TINY = [
    "--steps", "0", "--vendors", "2,3,4", "--batch-size", "4", "--threads", "1", "--quiet",
]  # fmt: skip


# -- replay ----------------------------------------------------------------------------------------


def contents():
    return {path.name: path.read_bytes() for path in pathlib.Path().iterdir()}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A log of two steps, a checkpoint after the first, links to all three files."""
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        for step in range(2):
            opt.train_step(*batch(CONV_SHAPE, seed=step))
            if step == 0:
                opt.save(tmp_path / "second")
    for name in ("log", "log.safetensors", "second"):
        (tmp_path / f"link-{name}").symlink_to(name)
    os.link(tmp_path / "log.safetensors", tmp_path / "hard")
    monkeypatch.chdir(tmp_path)
    return contents()


CLASHES = [
    ("log", "the log"),
    ("./log", "the log"),
    ("link-log", "the log"),
    ("log.safetensors", "the checkpoint that the log began from"),
    ("link-log.safetensors", "the checkpoint that the log began from"),
    ("hard", "the checkpoint that the log began from"),
    ("second", "the checkpoint to begin from"),
    ("link-second", "the checkpoint to begin from"),
]


@pytest.mark.parametrize(("out", "what"), CLASHES)
def test_replay_keeps_what_it_needs(recorded, capsys, out, what):
    arguments = ["log", "--step", "2", "--out", out, "--checkpoint", "second"]
    assert __main__.main(["replay", *arguments]) == 1
    error = capsys.readouterr().err
    wanted = f"an output other than {what}, received {pathlib.Path(out)}"
    assert f"replay: expected {wanted}" in error
    assert contents() == recorded
    assert replay.rebuild("log", 2)["global_step"] == 2


def test_replay_in_python_keeps_what_it_needs(recorded):
    with refusal(ValueError, "replay", "the checkpoint that the log began from"):
        replay.write("log", 1, "log.safetensors")
    replay.write("log", 1, "second")  # which nothing was rebuilt from
    assert replay.rebuild("log", 2, "second")["global_step"] == 2


# -- plot ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["run.jsonl", "star=run.jsonl"])
def test_plot_keeps_the_logs(tmp_path, monkeypatch, capsys, run):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.jsonl").write_text(json.dumps({"step": 1, "training/loss": 2.0}) + "\n")
    (tmp_path / "run.png").symlink_to("run.jsonl")
    before = (tmp_path / "run.jsonl").read_bytes()
    assert __main__.main(["plot", run, "-o", "run.png"]) == 1
    assert (
        "--out: expected a file other than the runs', received run.png" in capsys.readouterr().err
    )
    assert (tmp_path / "run.jsonl").read_bytes() == before


# -- examples --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A market's checkpoint, and a link to it."""
    monkeypatch.chdir(tmp_path)
    mp.random.manual_seed(5)
    mp.checkpoint.write_checkpoint(mnist.make_market((2, 2, 2)), 7, "state")
    for name in ("link", "link.png", "link.jsonl"):
        (tmp_path / name).symlink_to("state")
    return tmp_path


def stopped(main, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["--resume", "state"], ["--json", "state"]),
        (["--resume", "state"], ["--plot", "link.png"]),
        (["--resume", "state"], ["--log", "link.jsonl"]),
        (["--resume", "link"], ["--replay-log", "state"]),
        (["--checkpoint", "new"], ["--json", "./new"]),
        (["--checkpoint", "new.png"], ["--plot", "new.png"]),
        (["--checkpoint", "new.csv"], ["--log", "new.csv"]),
        (["--checkpoint", "new"], ["--replay-log", "new"]),
        (["--json", "new.jsonl"], ["--log", "new.jsonl"]),
        (["--json", "new"], ["--replay-log", "new"]),
    ],
    ids=lambda words: "=".join(words),
)
def test_two_options_with_one_file(folder, capsys, first, second):
    before = (folder / "state").read_bytes()
    error = stopped(mnist.main, [*TINY, *second, *first], capsys)
    assert f"argument {second[0]}: expected another file than that of {first[0]}" in error
    assert (folder / "state").read_bytes() == before and not list(folder.glob("new*"))


def test_a_replay_logs_own_checkpoint(folder, capsys):
    arguments = ["--replay-log", "run", "--checkpoint", "run.safetensors"]
    error = stopped(mnist.main, [*TINY, *arguments], capsys)
    assert "--replay-log's checkpoint: expected another file than that of --checkpoint" in error


@pytest.mark.usefixtures("small_data")
def test_going_on_in_the_same_file(folder):
    arguments = [*TINY, "--checkpoint", "run"]
    assert mnist.main([*arguments, "--steps", "1"]) == 0
    assert mnist.main([*arguments, "--steps", "2", "--resume", "run"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--base", "state", "--checkpoint", "state"],
        ["--base", "link", "--replay", "state"],
        ["--base", "state", "--replay-log", "state"],
        ["--save-base", "new", "--checkpoint", "new"],
        ["--replay", "new.jsonl", "--log", "new.jsonl"],
        ["--replay-log", "new", "--checkpoint", "new.safetensors"],
    ],
    ids=" ".join,
)
def test_two_options_of_continual_learning(folder, capsys, arguments):
    before = (folder / "state").read_bytes()
    assert "expected another file than that of --" in stopped(
        continual_digits.main, ["--steps", "0", "--base-steps", "0", *arguments], capsys
    )
    assert (folder / "state").read_bytes() == before and not list(folder.glob("new*"))


def test_two_options_of_an_experiment(folder, capsys):
    words = ["cl_augment", "--steps", "0", "--base", "state", "--json", "link"]
    error = stopped(experiments.main, words, capsys)
    assert "argument --json: expected another file than that of --base, received link" in error


def test_an_experiments_own_reports(folder, capsys):
    report = "out/beautiful_mnist-vendors-8.json"
    (folder / "out").mkdir()
    words = ["beautiful_mnist", "--steps", "0", "--out", "out", "--json", report]
    assert experiments.main(words) == 1
    error = capsys.readouterr().err
    assert f"--json: expected a file that is no run's own in --out, received {report}" in error
    assert os.listdir("out") == []
