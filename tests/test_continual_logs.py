"""Logs of the continual examples, under the names that the reference logs."""

import pytest
from marketplace import plot, replay
from marketplace.callbacks import read_rows
from marketplace.checkpoint import load_checkpoint
from marketplace.examples import continual_digits
from marketplace.examples.mnist import make_market
from safetensors.numpy import load_file

TINY = [
    *("--vendors", "2,3,4", "--batch-size", "6", "--new-per-batch", "2", "--threads", "1"),
    *("--base-steps", "1", "--steps", "4", "--eval-every", "2", "--quiet"),
]


def run(*arguments):
    return continual_digits.main([*TINY, *map(str, arguments)])


@pytest.fixture(autouse=True)
def data(small_data):
    return small_data


def test_log(tmp_path, capsys):
    assert run("--log", tmp_path / "run.csv", "--json", tmp_path / "run.json") == 0
    rows = read_rows(tmp_path / "run.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    every = {
        f"learning/{name}" for name in "old_loss old_accuracy new_loss new_accuracy lr".split()
    }
    tested = {"testing/old_accuracy", "testing/new_accuracy"}
    assert all(every <= set(row) for row in rows)
    assert [row["step"] for row in rows if tested & set(row)] == [2, 4]
    report = plot.load_run(tmp_path / "run.json")
    assert report.metrics["testing/old_accuracy"][-1] == rows[-1]["testing/old_accuracy"]
    assert capsys.readouterr().err == ""
    plot.continual_curves([plot.load_run(tmp_path / "run.csv")])


def test_replay_log(tmp_path):
    assert run("--replay-log", tmp_path / "log", "--checkpoint", tmp_path / "end") == 0
    market = make_market((2, 3, 4))
    replay.write(tmp_path / "log", 4, tmp_path / "again")
    assert load_checkpoint(market, tmp_path / "again") == 4
    again, end = load_file(tmp_path / "again"), load_file(tmp_path / "end")
    for key, values in again.items():
        assert values.tobytes() == end[key].tobytes()


def test_a_log_of_another_kind_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--log", "run.txt")
    assert stop.value.code == 2
    assert "--log: expected a name ending in .jsonl, .csv" in capsys.readouterr().err
