"""The MNIST example as its user meets it: options, results, checkpoints, signals, errors."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import warnings

import pytest
from marketplace.data import _cache
from marketplace.examples import _digits, _interrupt, _report, mnist
from marketplace.optimizers import Optimizer

TINY = ["--vendors", "2,3,4", "--batch-size", "4", "--threads", "1", "--device", "cpu"]
JSON_KEYS = {
    "test_accuracy",
    "test_images",
    "train_images",
    "steps",
    "seconds",
    "flops_per_step",
    "device",
    "dtype",
    "plan",
    "vendors",
    "history",
}


pytestmark = pytest.mark.usefixtures("small_data")


def run(*arguments):
    return mnist.main([*TINY, *map(str, arguments)])


def run_json(tmp_path, *arguments, name="out.json"):
    assert run(*arguments, "--json", tmp_path / name) == 0
    return json.loads((tmp_path / name).read_text())


def start(*arguments, stderr=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, "-m", "marketplace.examples.mnist", *TINY, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


# Results


def test_json_has_what_is_promised(tmp_path):
    result = run_json(tmp_path, "--steps", 5, "--eval-every", 2)
    assert set(result) >= JSON_KEYS
    assert (result["train_images"], result["test_images"], result["steps"]) == (40, 20, 5)
    assert result["vendors"] == [2, 3, 4] and result["plan"] == "star"
    assert result["dtype"] == "float32" and result["device"] == "cpu"
    assert result["seconds"] > 0 and result["flops_per_step"] > 1e6
    assert [point["step"] for point in result["history"]] == [2, 4, 5]
    for point in result["history"]:
        assert set(point) == {"step", "loss", "test_accuracy"}
        assert point["loss"] > 0 and 0 <= point["test_accuracy"] <= 100
    assert result["test_accuracy"] == result["history"][-1]["test_accuracy"]


@pytest.mark.parametrize("plan", ["star", "tree"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plans_and_dtypes(tmp_path, plan, dtype):
    result = run_json(tmp_path, "--steps", 2, "--plan", plan, "--dtype", dtype)
    assert (result["plan"], result["dtype"]) == (plan, dtype)


def test_same_seed_same_run_other_seed_other_run(tmp_path):
    first = run_json(tmp_path, "--steps", 3, "--eval-every", 1)["history"]
    again = run_json(tmp_path, "--steps", 3, "--eval-every", 1, "--seed", 42)["history"]
    other = run_json(tmp_path, "--steps", 3, "--eval-every", 1, "--seed", 43)["history"]
    assert first == again
    assert [point["loss"] for point in first] != [point["loss"] for point in other]


def test_no_steps_only_evaluates(tmp_path):
    result = run_json(tmp_path, "--steps", 0)
    assert result["steps"] == 0
    assert [point["loss"] for point in result["history"]] == [None]


def test_fashion(tmp_path, small_data, capsys):
    result = run_json(tmp_path, "--steps", 1, "--dataset", "fashion")
    assert result["train_images"] == 40
    captured = capsys.readouterr()
    assert "Fashion-MNIST: 40 training and 20 test images" in captured.err


def test_summary_is_one_line_on_stdout(capsys):
    assert run("--steps", 2) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.out.startswith("test accuracy ")
    assert "% on 20 images after 2 steps" in captured.out and "steps/s" in captured.out


def test_quiet_says_only_the_summary(capsys):
    assert run("--steps", 2, "--eval-every", 1, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.count("\n") == 1


def test_a_log_gets_plain_lines(capsys):
    assert run("--steps", 3, "--eval-every", 1) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == 3
    assert all("loss" in line and "%" in line and "steps/s" in line for line in lines)


@pytest.mark.parametrize(("rows", "columns"), [(24, 100), (0, 0)])
def test_a_terminal_gets_a_bar(rows, columns):
    """A terminal that has no size would hide a bar: it gets the lines of a log."""
    main_end, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    process = start("--steps", 3, "--eval-every", 1, stderr=terminal)
    os.close(terminal)
    process.communicate(timeout=60)
    text = os.read(main_end, 1 << 16).decode()
    os.close(main_end)
    assert process.returncode == 0
    assert ("3/3 |" in text) == (rows > 0) and ("\nstep 1/3" in text) == (rows == 0)
    assert "loss" in text and "accuracy" in text and "steps/s" in text


def test_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    assert run("--steps", 3, "--eval-every", 1, "--plot", tmp_path / "curve.png") == 0
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_plot_without_matplotlib_fails_before_training(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(Optimizer, "probe", None)
    assert run("--plot", tmp_path / "curve.png") == 1
    captured = capsys.readouterr()
    assert "marketplace[plot]" in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


# Checkpoints


@pytest.mark.parametrize(
    "options",
    [[], ["--lr", "0.2", "--lr-decay", "0.1"], ["--plan", "tree"], ["--meta-lr", "0.1"]],
    ids=["defaults", "lr", "tree", "meta"],
)
def test_resume_is_the_same_to_the_bit(tmp_path, options):
    whole, half, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "rest"))
    assert run(*options, "--steps", 6, "--checkpoint", whole) == 0
    assert run(*options, "--steps", 3, "--checkpoint", half) == 0
    assert run(*options, "--steps", 6, "--checkpoint", rest, "--resume", half) == 0
    assert rest.read_bytes() == whole.read_bytes()
    assert half.read_bytes() != whole.read_bytes()


def test_resume_takes_rates_plan_and_seed_from_the_checkpoint(tmp_path):
    whole, half, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "rest"))
    settings = ["--lr", 0.2, "--probe-scale", 0.05, "--seed", 7, "--plan", "tree"]
    assert run(*settings, "--steps", 4, "--checkpoint", whole) == 0
    assert run(*settings, "--steps", 2, "--checkpoint", half) == 0
    assert run("--steps", 4, "--checkpoint", rest, "--resume", half) == 0
    assert rest.read_bytes() == whole.read_bytes()


def test_resume_goes_on_counting(tmp_path, capsys):
    path = tmp_path / "state.safetensors"
    assert run("--steps", 2, "--checkpoint", path) == 0
    result = run_json(tmp_path, "--steps", 5, "--eval-every", 3, "--resume", path)
    assert result["steps"] == 5
    assert [point["step"] for point in result["history"]] == [3, 5]
    captured = capsys.readouterr()
    assert "at step 2" in captured.err and "after 5 steps; 3 steps in" in captured.out


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", 8), ("--plan", "tree"), ("--dtype", "bfloat16"), ("--meta-lr", 0.1)],
)
def test_resume_refuses_what_cannot_change(tmp_path, capsys, option, value):
    path = tmp_path / "state.safetensors"
    assert run("--steps", 1, "--checkpoint", path) == 0
    before = path.read_bytes()
    assert run("--steps", 2, "--resume", path, "--checkpoint", path, option, value) == 1
    assert f"{option}: " in capsys.readouterr().err
    assert path.read_bytes() == before


def test_resume_refuses_other_vendors(tmp_path, capsys):
    path = tmp_path / "state.safetensors"
    assert run("--steps", 1, "--checkpoint", path) == 0
    assert mnist.main(["--resume", str(path), "--vendors", "2,3,5", "--steps", "2"]) == 1
    assert capsys.readouterr().err.count("error:") == 1


def test_checkpoints_are_written_on_the_way(monkeypatch, tmp_path):
    steps = []
    monkeypatch.setattr(Optimizer, "save", lambda self, path: steps.append(self.global_step))
    assert run("--steps", 5, "--checkpoint-every", 2, "--checkpoint", tmp_path / "state") == 0
    assert steps == [2, 4, 5]


def test_a_full_disk_costs_the_checkpoint_only(monkeypatch, tmp_path, capsys):
    def full_disk(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Optimizer, "save", full_disk)
    arguments = ("--steps", 3, "--checkpoint-every", 2, "--checkpoint", tmp_path / "state")
    assert run(*arguments, "--json", tmp_path / "out.json") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("test accuracy ")
    assert "step 2: the checkpoint was not written" in captured.err
    assert captured.err.splitlines()[-1].endswith(f"No space left on device: '{tmp_path}/state'")
    assert json.loads((tmp_path / "out.json").read_text())["steps"] == 3


# Signals


def read_until(stream, word):
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            return "".join(lines)
    raise AssertionError(f"{word!r} never came: {''.join(lines)}")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_cleanly_and_can_be_resumed(tmp_path, signum, status):
    path = tmp_path / "state.safetensors"
    arguments = ["--eval-every", 1, "--checkpoint", path, "--json", tmp_path / "out.json"]
    process = start(*arguments, "--steps", 100_000)
    read_until(process.stderr, "step ")
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in errors and output.startswith("interrupted: test accuracy ")
    done = json.loads((tmp_path / "out.json").read_text())["steps"]
    assert 1 <= done < 100_000
    assert f"--resume {path}" in errors

    rest, whole = tmp_path / "rest.safetensors", tmp_path / "whole.safetensors"
    assert run("--resume", path, "--steps", done + 2, "--checkpoint", rest) == 0
    assert run("--steps", done + 2, "--checkpoint", whole) == 0
    assert rest.read_bytes() == whole.read_bytes()


def test_ctrl_c_before_the_training(monkeypatch, capsys):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(_digits, "load", interrupted)
    assert run("--steps", 1) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_second_ctrl_c_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    with _interrupt.Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_further_sigterms_wait_and_ctrl_c_does_not():
    before = signal.getsignal(signal.SIGTERM)
    with _interrupt.Interrupt() as interrupt:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.signum == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


# Errors

BAD_OPTIONS = [
    (["--steps", "-1"], "--steps: expected a whole number of at least 0, received '-1'"),
    (["--steps", "many"], "--steps: expected a whole number"),
    (["--batch-size", "0"], "--batch-size: expected a whole number of at least 1"),
    (["--vendors", "8,x,2"], "--vendors: expected whole numbers of at least 1"),
    (["--vendors", "8,8"], "--vendors: expected 5 whole numbers, one per spec of depth-5"),
    (["--vendors", "8,0,8"], "--vendors: expected whole numbers of at least 1"),
    (["--vendors", "1,1,1"], "--vendors: expected whole numbers of at least 1"),
    (["--plan", "bush"], "--plan: invalid choice: 'bush'"),
    (["--lr", "0"], "--lr: expected a number above 0, received '0'"),
    (["--lr", "nan"], "--lr: expected a number above 0"),
    (["--lr", "inf"], "--lr: expected a number above 0"),
    (["--lr-decay", "1"], "--lr-decay: expected a number at least 0 and below 1"),
    (["--lr-decay", "-0.1"], "--lr-decay: expected a number at least 0 and below 1"),
    (["--probe-scale", "-1"], "--probe-scale: expected a number above 0"),
    (["--meta-lr", "1"], "--meta-lr: expected a number above 0 and below 1"),
    (["--seed", "-3"], "--seed: expected a whole number from 0"),
    (["--seed", str(2**64)], "--seed: expected a whole number from 0"),
    (["--dtype", "float8"], "--dtype: invalid choice: 'float8'"),
    (["--threads", "0"], "--threads: expected a whole number of at least 1"),
    (["--data", "some"], "--data: invalid choice: 'some'"),
    (["--dataset", "cats"], "--dataset: invalid choice: 'cats'"),
    (["--dataset", "fashion", "--data", "bundled"], "--data: Fashion-MNIST has no bundled subset"),
    (["--plot", "curve.gif"], "--plot: expected a name ending in .png, .svg, .pdf"),
    (["--json", "no/such/directory.json"], "--json: expected a file in a directory that exists"),
    (["--checkpoint", "."], "--checkpoint: expected a file, received the directory"),
    (["--step", "3"], "unrecognized arguments"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_OPTIONS)
def test_bad_option_is_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        mnist.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "abacus"], "abacus"),
        (["--resume", "no_such_file.safetensors"], "no_such_file.safetensors"),
        (["--resume", __file__], "test_examples.py"),
    ],
)
def test_runtime_error_is_one_line_with_status_1(arguments, message, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mnist.main([*arguments, "--steps", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and message in captured.err
    assert captured.err.startswith(f"{mnist.PROG}: error: ") and captured.out == ""


def test_missing_data_is_one_line_with_status_1(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    monkeypatch.setattr(_cache, "DEBIAN_FASHION", tmp_path / "debian")
    assert run("--dataset", "fashion") == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Fashion-MNIST is not on this machine" in captured.err


def test_damaged_data_is_one_line_with_status_1(small_data, capsys):
    (small_data / "mnist" / _cache.IDX_NAMES[0]).write_bytes(b"oops")
    assert run("--steps", 1) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "expected an IDX file" in captured.err


def test_unwritable_json_still_shows_the_summary(monkeypatch, tmp_path, capsys):
    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_report, "write_json", full_disk)
    assert run("--steps", 1, "--json", tmp_path / "out.json") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("test accuracy ")
    assert captured.err.splitlines()[-1].endswith("No space left on device")


def test_runs_as_a_module():
    process = start("--steps", 1, "--quiet")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and errors == ""
    assert output.startswith("test accuracy ")
