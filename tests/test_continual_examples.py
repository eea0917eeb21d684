"""The examples of continual learning as their user meets them: options, results, files, errors."""

import json
import os
import signal
import subprocess
import sys

import marketplace as mp
import numpy as np
import pytest
from marketplace import data
from marketplace.data import _cache
from marketplace.examples import (
    _continual,
    continual_digits,
    continual_fashion,
    mnist,
)
from marketplace.examples._markets import digit_structure
from marketplace.examples._stream import Stream, held_back, mixed_in

EXAMPLES = {"digits": continual_digits, "fashion": continual_fashion}
TINY = [
    "--plan", "scatter", "--vendors", "2,3,4", "--batch-size", "12", "--new-per-batch", "3",
    "--threads", "1", "--device", "cpu", "--eval-every", "2",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("small_data")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint of the market, so that most runs need not train one."""
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    mp.random.manual_seed(5)
    mp.checkpoint.write_checkpoint(mnist.make_market((2, 2, 2)), 7, path)
    return path


def run(name, *arguments):
    return EXAMPLES[name].main([*TINY, *map(str, arguments)])


def run_json(name, path, *arguments):
    assert run(name, *arguments, "--json", path) == 0
    return json.loads(path.read_text())


both = pytest.mark.parametrize("name", EXAMPLES)


# -- results ---------------------------------------------------------------------------------------


@both
def test_json(name, base, tmp_path, capsys):
    result = run_json(name, tmp_path / "out.json", "--base", base, "--steps", 5)
    assert result["new_class"] == {"digits": 9, "fashion": 3}[name]
    assert (result["steps"], result["plan"], result["vendors"]) == (5, "scatter", [2, 3, 4])
    assert [point["step"] for point in result["history"]] == [0, 2, 4, 5]
    assert result["history"][0]["old_loss"] is None
    for point in result["history"][1:]:
        assert point["old_loss"] > 0 and point["new_loss"] > 0
    for key in ("start_old_accuracy", "start_new_accuracy", "old_accuracy", "new_accuracy"):
        assert 0 <= result[key] <= 100
    images = result["images"]
    assert images["old_test"] + (images["new_test"] if name == "digits" else 0) == 20
    assert result["control_variate"] is True and result["flops_per_step"] > 1e6
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1 and captured.out.startswith("test accuracy old ")
    assert len([line for line in captured.err.splitlines() if line.startswith("step ")]) == 3


@both
def test_the_same_seed_gives_the_same_run(name, base, tmp_path):
    arguments = ["--base", base, "--steps", 4, "--augment", "new", "--quiet"]
    files = []
    for index, seed in enumerate((1, 1, 2)):
        files.append(tmp_path / f"{index}.safetensors")
        assert run(name, *arguments, "--seed", seed, "--checkpoint", files[-1]) == 0
    first, again, other = (path.read_bytes() for path in files)
    assert first == again != other


def test_a_run_is_a_learner_on_a_stream(base, tmp_path):
    """What the example does, spelt out with the public API."""
    written = tmp_path / "state.safetensors"
    rates = ["--lr", 0.2, "--lr-decay", 0.1, "--probe-scale", 0.5, "--new-class-weight", 2]
    options = [
        *rates,
        "--probe-share",
        0.8,
        "--base",
        base,
        "--steps",
        3,
        "--checkpoint",
        written,
        "--seed",
        4,
    ]
    assert run("digits", *options, "--quiet") == 0
    market = mnist.make_market((2, 3, 4))
    mp.checkpoint.load_checkpoint(market, base)
    opt = mp.Optimizer(
        market, 0.2, probe_scale=0.5, plan="scatter", seed=4, control_variate=True, threads=1
    )
    learner = mp.continual.Learner(opt, new_classes=[9], new_class_weight=2, probe_share=0.8)
    stream = Stream(held_back(data.load("mnist"), 9), 12, 3, 4)
    for step in range(3):
        opt.learning_rate = 0.2 * 0.9**step
        opt.probe_scale = 0.5 / 0.9**step
        batch = stream.batch(step)
        learner.learn(learner.answer(batch.x), batch.y)
    resumed = mnist.make_market((2, 3, 4))
    found = mp.Optimizer.resume(written, resumed)
    assert found.global_step == 3 and found.control_variate
    assert float(found.learning_rate) == pytest.approx(0.2 * 0.9**3)
    assert float(found.probe_scale) == pytest.approx(0.5 / 0.9**3)
    for mine, theirs in zip(market, resumed, strict=True):
        for key, value in mine.model.state_dict().items():
            np.testing.assert_allclose(value, theirs.model.state_dict()[key], rtol=0, atol=1e-5)


@both
@pytest.mark.parametrize(
    "options",
    [["--no-control-variate"], ["--no-balance-labels"], ["--dtype", "bfloat16"], ["--augment"]],
    ids=lambda options: options[0],
)
def test_options_change_the_run(name, options, base, tmp_path):
    losses = []
    for index, more in enumerate(([], options)):
        path = tmp_path / f"{index}.json"
        result = run_json(name, path, "--base", base, "--steps", 4, "--quiet", *more)
        losses.append([point["new_loss"] for point in result["history"]])
    assert losses[0] != losses[1]


def test_a_base_model_is_trained_and_can_be_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_continual, "BASE_BATCH", 8)
    kept = tmp_path / "base.safetensors"
    arguments = ("--steps", 2, "--base-steps", 50, "--save-base", kept)
    first = run_json("digits", tmp_path / "a.json", *arguments)
    assert "base model, step 50/50" in capsys.readouterr().err
    second = run_json("digits", tmp_path / "b.json", "--steps", 2, "--base", kept)
    untrained = run_json("digits", tmp_path / "c.json", "--steps", 2, "--base-steps", 0)
    assert first["history"] == second["history"] != untrained["history"]
    assert first["start_old_accuracy"] > untrained["start_old_accuracy"]


@pytest.mark.parametrize("vendors", ["2,3,4", "1,2,2,3,4"])
def test_a_base_model_of_another_cut(tmp_path, vendors):
    """Three specs or five: the same layers, so the same answers at first."""
    arguments = ("--steps", 2, "--plan", "scatter", "--vendors", vendors)
    found = []
    for structure in ("depth-3", "depth-5"):
        mp.random.manual_seed(5)
        kept = tmp_path / structure
        mp.checkpoint.write_checkpoint(digit_structure(structure).specs("star"), 7, kept)
        found.append(run_json("digits", tmp_path / "a.json", "--base", kept, *arguments))
    assert found[0]["history"] == found[1]["history"]
    assert found[0]["start_old_accuracy"] == found[1]["start_old_accuracy"] > 0


def test_the_target_is_new_known_and_old_kept():
    start = _continual.Accuracy(95.0, 10.0)
    for old, new, slack, reached in (
        (94.0, 90.0, 0, True), (93.9, 95.0, 0, False), (94.0, 89.9, 0, False),
        (93.0, 89.0, 1, True), (92.9, 95.0, 1, False), (94.0, 88.9, 1, False),
    ):  # fmt: skip
        assert _continual.Accuracy(old, new).reaches(start, slack) == reached


@pytest.mark.parametrize(("least", "step"), [(-1, 2), (101, None), (103, None)])
def test_the_target_counts_once_confirmed(monkeypatch, base, tmp_path, least, step):
    """At 101 % some images could misjudge it, all cannot; at 103 % none is asked."""
    monkeypatch.setattr(_continual, "TARGET_NEW", least)
    monkeypatch.setattr(_continual, "TARGET_LOSS", 100)
    arguments = ("--base", base, "--steps", 5, "--quiet")
    assert run_json("digits", tmp_path / "out.json", *arguments)["steps_to_target"] == step


def test_one_number_means_every_spec(base, tmp_path):
    arguments = ("--base", base, "--steps", 0, "--vendors", 5)
    assert run_json("digits", tmp_path / "out.json", *arguments)["vendors"] == [5, 5, 5]


@both
def test_plot(name, base, tmp_path):
    pytest.importorskip("matplotlib")
    assert run(name, "--base", base, "--steps", 2, "--plot", tmp_path / "curves.png") == 0
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_plot_without_matplotlib_fails_before_anything_is_learnt(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(mp.Optimizer, "train_step", None)
    assert run("digits", "--plot", tmp_path / "curves.png") == 1
    captured = capsys.readouterr()
    assert "marketplace[plot]" in captured.err and captured.out == ""


# -- the replay file -------------------------------------------------------------------------------


@both
def test_replay(name, base, tmp_path):
    path, out = tmp_path / "replay.jsonl", tmp_path / "out.json"
    history = run_json(name, out, "--base", base, "--steps", 5, "--replay", path)["history"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["global_step"] for line in lines] == [1, 2, 3, 4, 5]
    digits = data.load("mnist")
    task = held_back(digits, 9) if name == "digits" else mixed_in(digits, data.load("fashion"), 3)
    stream = Stream(task, 12, 3, 42)
    for step, line in enumerate(lines):
        batch = stream.batch(step)
        assert line["old_samples"] == batch.old_indices.tolist() and len(batch.old_indices) == 9
        assert line["new_samples"] == batch.new_indices.tolist() and len(batch.new_indices) == 3
        assert len(line["old_correct"]) == 9 and len(line["new_correct"]) == 3
        assert {type(value) for value in line["new_correct"]} == {bool}
    # an evaluation is told from its step on; the losses of its steps average to its own
    measured = [(point["old_accuracy"], point["new_accuracy"]) for point in history]
    told = [(line["old_test_acc"], line["new_test_acc"]) for line in lines]
    assert told == [measured[0], measured[1], measured[1], measured[2], measured[3]]
    for kind in ("old_loss", "new_loss"):
        mean = np.mean([line[kind][0] for line in lines[:2]])
        assert mean == pytest.approx(history[1][kind], rel=1e-6)


def test_answers_in_the_replay_are_those_of_the_base(base, tmp_path):
    path = tmp_path / "replay.jsonl"
    assert run("digits", "--base", base, "--steps", 1, "--replay", path, "--quiet") == 0
    line = json.loads(path.read_text())
    market = mnist.make_market((2, 2, 2))
    mp.checkpoint.load_checkpoint(market, base)
    task = held_back(data.load("mnist"), 9)
    for kind, part in (("old", task.old_train), ("new", task.new_train)):
        chosen = part.chosen(np.array(line[f"{kind}_samples"]))
        right = np.asarray(mp.straight_forward(market, chosen.x)).argmax(axis=1) == chosen.y
        assert right.tolist() == line[f"{kind}_correct"]


# -- plan node -------------------------------------------------------------------------------------

NODE = ["--plan", "node", "--vendors", "1,2,1"]


@both
def test_node(name, base, tmp_path, capsys):
    path = tmp_path / "out.json"
    result = run_json(name, path, *NODE, "--base", base, "--steps", 3, "--lr-decay", 0.1)
    assert (result["steps"], result["plan"], result["vendors"]) == (3, "node", [1, 2, 1])
    assert result["options"]["lr_decay"] == 0.1 and result["options"]["lr"] == 0.001
    # answering 12 images, and a step that also evaluates them and probes
    assert result["flops_per_step"] > 2 * 12 * 26e6
    assert "plan node, vendors 1,2,1" in capsys.readouterr().err


def test_node_is_the_default(base, tmp_path):
    path, here = tmp_path / "out.json", ["--base", str(base), "--steps", "1", "--quiet"]
    assert continual_digits.main([*here, "--json", str(path), "--batch-size", "27"]) == 0
    result = json.loads(path.read_text())
    assert (result["plan"], result["vendors"]) == ("node", [1, 1, 1, 65, 1])


@pytest.mark.parametrize(
    "option", [["--balance-labels"], ["--no-focus"], ["--probe-share", "1"]], ids=" ".join
)
def test_node_has_no_use_for_paths(option, capsys):
    with pytest.raises(SystemExit) as stop:
        run("digits", *NODE, *option)
    assert stop.value.code == 2
    expected = f"argument {option[0].replace('no-', '')}: expected --plan scatter"
    assert expected in capsys.readouterr().err


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_cleanly(base, tmp_path, signum, status):
    out, state = tmp_path / "out.json", tmp_path / "state"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "marketplace.examples.continual_digits", *TINY,
            "--base", str(base), "--steps", "100000", "--json", str(out),
            "--checkpoint", str(state),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert any(line.startswith("step ") for line in process.stderr)
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in errors and output.startswith("interrupted: test accuracy old ")
    result = json.loads(out.read_text())
    assert result["interrupted"] and 1 <= result["steps"] < 100_000
    assert mp.checkpoint.load_checkpoint(mnist.make_market((2, 3, 4)), state) == result["steps"]


def test_a_full_disk_costs_the_checkpoint_only(base, monkeypatch, tmp_path, capsys):
    def full_disk(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(mp.Optimizer, "save", full_disk)
    arguments = ["--base", base, "--steps", 2, "--json", tmp_path / "out.json"]
    assert run("digits", *arguments, "--checkpoint", tmp_path / "state") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("test accuracy old ")
    assert captured.err.splitlines()[-1].endswith(f"No space left on device: '{tmp_path}/state'")
    assert json.loads((tmp_path / "out.json").read_text())["steps"] == 2


# -- errors ----------------------------------------------------------------------------------------

BAD_OPTIONS = [
    (["--new-class", "10"], "--new-class: expected a whole number from 0 to 9, received '10'"),
    (["--new-class", "nine"], "--new-class: expected a whole number from 0 to 9"),
    (["--new-per-batch", "0"], "--new-per-batch: expected a whole number of at least 1"),
    (["--new-per-batch", "12"], "--new-per-batch: expected less than the batch size of 12"),
    (["--batch-size", "1"], "--batch-size: expected a whole number of at least 2"),
    (["--vendors", "1,1,1"], "--vendors: expected"),
    (["--vendors", "4,4"], "--vendors: expected 3 or 5 whole numbers, one per spec, or one for"),
    (["--lr", "-1"], "--lr: expected a number above 0"),
    (["--lr-decay", "1"], "--lr-decay: expected a number at least 0 and below 1"),
    (["--new-class-weight", "0"], "--new-class-weight: expected a number above 0"),
    (["--augment", "some"], "--augment: invalid choice: 'some'"),
    (["--base", "x", "--save-base", "y"], "--save-base: expected no --base"),
    (["--save-base", "no/such/file"], "--save-base: expected a file in a directory that exists"),
    (["--replay", "."], "--replay: expected a file, received the directory"),
    (["--plot", "a.gif"], "--plot: expected a name ending in .png, .svg, .pdf"),
]


@both
@pytest.mark.parametrize(("arguments", "message"), BAD_OPTIONS)
def test_bad_option_is_refused_with_status_2(name, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(name, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def refused(name, capsys, *arguments):
    """Run into an error; its one line."""
    assert run(name, *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert captured.err.startswith(f"{EXAMPLES[name].PROG}: error: ")
    return captured.err


def test_no_clothes(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MARKETPLACE_DATA", str(tmp_path))
    monkeypatch.setattr(_cache, "DEBIAN_FASHION", tmp_path / "debian")
    message = refused("fashion", capsys)
    assert "Fashion-MNIST is not on this machine: put its four IDX files into" in message
    assert str(tmp_path / "fashion-mnist") in message and "dataset-fashion-mnist" in message


@both
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_stream_without_the_new_class(name, split, small_data, capsys):
    folder = small_data / {"digits": "mnist", "fashion": "fashion-mnist"}[name]
    stem = {"train": _cache.IDX_NAMES[1], "test": _cache.IDX_NAMES[3]}[split]
    labels = data.read_idx(folder / stem)
    data.write_idx(folder / stem, np.where(labels == 7, 1, labels).astype(np.uint8))
    message = refused(name, capsys, "--new-class", 7)
    assert f"stream: expected {split} images labelled 7, received none" in message


def test_a_stream_of_nothing_else(small_data, capsys):
    for stem in (_cache.IDX_NAMES[1], _cache.IDX_NAMES[3]):
        labels = data.read_idx(small_data / "mnist" / stem)
        data.write_idx(small_data / "mnist" / stem, np.full_like(labels, 9))
    message = refused("digits", capsys)
    assert "stream: expected train images of the classes known, received none" in message


@both
def test_a_base_of_another_market(name, tmp_path, capsys):
    other = [mp.Spec(mp.nn.Model(mp.nn.Linear(784, 10)), 2)]
    mp.checkpoint.write_checkpoint(other, 1, tmp_path / "other")
    assert "the tensors of this market" in refused(name, capsys, "--base", tmp_path / "other")
    assert "missing" in refused(name, capsys, "--base", tmp_path / "missing")


def test_unwritable_json_still_shows_the_summary(monkeypatch, base, tmp_path, capsys):
    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    from marketplace.examples import _continual_main

    monkeypatch.setattr(_continual_main, "write_json", full_disk)
    assert run("digits", "--base", base, "--steps", 1, "--json", tmp_path / "out.json") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("test accuracy old ")
    assert captured.err.splitlines()[-1].endswith("No space left on device")
