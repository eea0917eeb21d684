"""The MNIST example's logs, its replay log, and losses that are not finite."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from marketplace import __main__, data
from marketplace.callbacks import read_rows
from marketplace.data import _cache
from marketplace.examples import mnist
from marketplace.optimizers import Optimizer
from safetensors.numpy import load_file

TINY = ["--vendors", "2,3,4", "--batch-size", "4", "--threads", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def small_data(monkeypatch, tmp_path_factory):
    """Let every run learn 40 real digits and be tested on 20."""
    directory = tmp_path_factory.mktemp("cache") / "mnist"
    directory.mkdir()
    full = data.load("mnist", "bundled")
    arrays = (full.x_train[:40, 0], full.y_train[:40], full.x_test[:20, 0], full.y_test[:20])
    for name, array in zip(_cache.IDX_NAMES, arrays, strict=True):
        data.write_idx(directory / name, array.astype(np.uint8))
    monkeypatch.setenv("MARKETPLACE_DATA", str(directory.parent))


def run(*arguments):
    return mnist.main([*TINY, *map(str, arguments)])


def same_weights(one, other):
    """Assert that two checkpoints hold the same market to the bit, whatever else is in them."""
    a, b = (
        {k: v.tobytes() for k, v in load_file(path).items() if not k.startswith("optimizer.")}
        for path in (one, other)
    )
    assert a == b


# Logs


@pytest.mark.parametrize("name", ["run.jsonl", "run.csv"])
def test_log_has_what_the_reference_logs(tmp_path, name):
    log = tmp_path / name
    assert run("--steps", 5, "--eval-every", 2, "--log", log, "--json", tmp_path / "out") == 0
    rows, report = read_rows(log), json.loads((tmp_path / "out").read_text())
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for row in rows:
        assert row["flops"] == row["step"] * report["flops_per_step"]
        assert {"seconds", "training/loss", "training/lr", "training/gflops"} <= set(row)
    measured = {row["step"]: row["testing/accuracy"] for row in rows if "testing/accuracy" in row}
    assert measured == {point["step"]: point["test_accuracy"] for point in report["history"]}
    assert [row["step"] for row in rows if "training/accuracy" in row] == [2, 4, 5]


@pytest.mark.parametrize("name", ["run.jsonl", "run.csv"])
def test_log_goes_on_with_a_resumed_run(tmp_path, name):
    log, state, whole = tmp_path / name, tmp_path / "state", tmp_path / f"whole_{name}"
    assert run("--steps", 6, "--log", whole) == 0
    assert run("--steps", 3, "--checkpoint", state) == 0
    assert run("--steps", 5, "--log", log) == 0  # two steps more than the checkpoint
    assert run("--steps", 6, "--log", log, "--resume", state) == 0

    def losses(path):
        return [(row["step"], row["training/loss"]) for row in read_rows(path)]

    assert losses(log) == losses(whole) and len(losses(log)) == 6


def test_log_of_another_kind_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--log", "run.txt")
    assert stop.value.code == 2
    assert "--log: expected a name ending in .jsonl, .csv" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--log", "--replay-log"])
def test_a_file_of_something_else_is_not_touched(monkeypatch, tmp_path, capsys, option):
    monkeypatch.setattr(Optimizer, "probe", None)
    path = tmp_path / "diary.jsonl"
    path.write_text("Dear diary,\n")
    assert run("--steps", 1, option, path, "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "diary.jsonl: expected a" in captured.err
    assert path.read_text() == "Dear diary,\n"


LIMITED = """
import resource, sys
from marketplace.examples import _run, mnist
step = _run._Training.step
def limited(self):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    step(self)
_run._Training.step = limited
sys.exit(mnist.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("option", "limit"), [("--log", 600), ("--replay-log", 1300)])
def test_a_full_disk_costs_the_log_only(tmp_path, option, limit):
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *TINY, "--steps", "9", option, "log.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stdout.startswith("test accuracy ") and "after 9 steps" in process.stdout
    assert "File too large" in process.stderr and "Traceback" not in process.stderr
    assert (tmp_path / "log.csv").stat().st_size == limit


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [
        ("--mlflow", "mlflow", "mlflow"),
        ("--tensorboard=tb", "tensorboard.summary.writer.event_file_writer", "tensorboard"),
    ],
)
def test_a_missing_package_fails_before_the_training(monkeypatch, capsys, option, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(Optimizer, "probe", None)
    assert run("--quiet", option) == 1
    captured = capsys.readouterr()
    assert f"marketplace[{extra}]" in captured.err and captured.err.count("\n") == 1


# Replay


@pytest.mark.parametrize(
    "options",
    [[], ["--plan", "tree"], ["--meta-lr", "0.1"], ["--dtype", "bfloat16"]],
    ids=["star", "tree", "meta", "bfloat16"],
)
def test_replay_rebuilds_a_checkpoint(tmp_path, options):
    log, out = tmp_path / "run.replay", tmp_path / "out"
    assert run(*options, "--steps", 3, "--checkpoint", tmp_path / "three") == 0
    assert run(*options, "--steps", 5, "--checkpoint", tmp_path / "five", "--replay-log", log) == 0
    for step, name in ((3, "three"), (5, "five")):
        assert __main__.main(["replay", str(log), "--step", str(step), "--out", str(out)]) == 0
        same_weights(out, tmp_path / name)


def test_replay_goes_on_with_a_resumed_run(tmp_path):
    log, state, out = tmp_path / "run.replay", tmp_path / "state", tmp_path / "out"
    logging = ["--replay-log", log]
    assert run("--steps", 6, "--checkpoint", tmp_path / "six") == 0
    assert run("--steps", 5, *logging, "--checkpoint", state, "--checkpoint-every", 3) == 0
    assert run("--steps", 3, "--checkpoint", state) == 0
    assert run("--steps", 6, *logging, "--resume", state) == 0
    assert __main__.main(["replay", str(log), "--step", "6", "--out", str(out)]) == 0
    same_weights(out, tmp_path / "six")


def test_replay_log_of_another_run_is_refused(tmp_path, capsys):
    log, state = tmp_path / "run.replay", tmp_path / "state"
    assert run("--steps", 3, "--replay-log", log, "--seed", 1) == 0
    assert run("--steps", 2, "--checkpoint", state) == 0
    before = log.read_bytes()
    capsys.readouterr()
    assert run("--steps", 3, "--resume", state, "--replay-log", log, "--quiet") == 1
    assert "expected seed 42, received 1" in capsys.readouterr().err
    assert log.read_bytes() == before


def test_replay_after_a_kill(tmp_path):
    """Nothing is lost but the step under way, however the process ends."""
    log = tmp_path / "run.replay"
    arguments = ["--steps", "100000", "--replay-log", str(log), "--eval-every", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "marketplace.examples.mnist", *TINY, *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    while "step " not in process.stderr.readline():
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run("--steps", 1, "--checkpoint", tmp_path / "one") == 0
    out = tmp_path / "out"
    assert __main__.main(["replay", str(log), "--step", "1", "--out", str(out)]) == 0
    same_weights(out, tmp_path / "one")


# Losses that are not finite


def spoil_losses(monkeypatch, step, paths):
    """Let the probe of one step give NaN for some paths, on a way that Python sees."""
    probe = Optimizer._probe

    def spoiled(self, *arguments, **options):
        loss, rows = probe(self, *arguments, **options)
        if self.global_step == step:
            loss[paths] = np.nan
        return loss, rows

    monkeypatch.setattr(Optimizer, "_probe", spoiled)
    monkeypatch.setattr(Optimizer, "_is_plain", lambda self: False)


def spoil_weights(monkeypatch, step):
    """Make a spec's weights NaN before one step."""
    train_step = Optimizer.train_step

    def spoiled(self, *arguments, **options):
        if self.global_step == step:
            model = self.marketplace[2].model
            model.load_state_dict({k: v * np.nan for k, v in model.state_dict().items()})
        return train_step(self, *arguments, **options)

    monkeypatch.setattr(Optimizer, "train_step", spoiled)


def test_nan_losses_stop_the_run_and_keep_the_last_good_state(monkeypatch, tmp_path, capsys):
    state, log = tmp_path / "state", tmp_path / "run.jsonl"
    assert run("--steps", 4, "--checkpoint", tmp_path / "four") == 0
    spoil_losses(monkeypatch, 4, [2, 5])
    capsys.readouterr()
    assert run("--steps", 9, "--checkpoint", state, "--log", log, "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "step 5: step: expected finite losses, received nan at path (0, 1, 0)" in captured.err
    assert "nan at path (0, 0, 2)" in captured.err
    assert f"the weights are those of step 4, {state} has those of step 4" in captured.err
    assert state.read_bytes() == (tmp_path / "four").read_bytes()
    assert len(read_rows(log)) == 4


def test_a_base_model_that_answers_nan_does_not_replace_a_checkpoint(monkeypatch, tmp_path, capsys):
    state = tmp_path / "state"
    assert run("--steps", 2, "--checkpoint", tmp_path / "two") == 0
    spoil_weights(monkeypatch, 3)
    arguments = ["--steps", 9, "--checkpoint", state, "--checkpoint-every", 2, "--quiet"]
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert "finite losses, received nan at path (0, 0, 0)" in error and "and 2 more" in error
    assert f"the weights are those of step 3, {state} has those of step 2" in error
    assert state.read_bytes() == (tmp_path / "two").read_bytes()
