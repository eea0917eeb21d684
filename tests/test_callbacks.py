"""Watching a run: the status, and logs as files."""

import contextlib
import fcntl
import json
import math
import os
import resource
import struct
import sys
import termios

import numpy as np
import pytest
from marketplace.callbacks import (
    Callback,
    CSVLogger,
    JSONLogger,
    ProgressBar,
    Watch,
    read_rows,
)
from markets import MLP, MLP_SHAPE, VENDORS, batch, build, optimizer

LOGGERS = [pytest.param(JSONLogger, id="json"), pytest.param(CSVLogger, id="csv")]
ALL = pytest.mark.parametrize("logger", LOGGERS)


def make(**options):
    return optimizer(build(MLP, VENDORS), seed=3, **options)


def train(opt, callbacks, count, metrics=None, **options):
    """Take some steps in a user's own loop."""
    with Watch(opt, callbacks, **options) as watch:
        for _ in range(count):
            loss, _ = opt.train_step(*batch(MLP_SHAPE, seed=opt.global_step))
            watch.step(loss[0], metrics)
    return watch


# Status


def test_a_function_gets_every_status():
    opt, seen = make(), []
    watch = train(opt, [seen.append], 3, steps=10, flops_per_step=500)
    assert [status["step"] for status in seen] == [1, 2, 3]
    assert seen[-1] is watch.status
    assert set(seen[0]) == {
        *("step", "steps", "seconds", "flops"),
        *("training/loss", "training/lr", "training/gflops"),
    }
    assert [status["flops"] for status in seen] == [500, 1000, 1500]
    assert seen[0]["steps"] == 10 and seen[0]["training/lr"] == float(opt.learning_rate)
    seconds = [status["seconds"] for status in seen]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert all(status["training/gflops"] > 0 for status in seen)


def test_only_what_is_known_is_told():
    seen = []
    train(make(), [seen.append], 1)
    assert set(seen[0]) == {"step", "seconds", "training/loss", "training/lr"}


def test_the_rates_of_a_line_search():
    seen, opt = [], make(meta_learning_rate=0.3)
    train(opt, [seen.append], 2)
    assert seen[-1]["testing/meta_lr"] == 0.3
    rates = [seen[-1][f"training/adaptive_lr_{spec}"] for spec in range(3)]
    assert rates == [context.learning_rate for context in opt.spec_context]
    assert len(set(rates)) > 1


def test_a_measurement_does_not_count_as_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def measure():
        now[0] += 100
        return {"testing/accuracy": np.float32(50)}

    seen, opt = [], make()
    with Watch(opt, [seen.append], flops_per_step=10**9) as watch:
        for _ in range(2):
            now[0] += 2
            watch.step(None, measure)
    assert [status["seconds"] for status in seen] == [2, 4]
    assert seen[1]["training/gflops"] == 0.5
    assert seen[1]["testing/accuracy"] == 50 and "training/loss" not in seen[1]


def test_callbacks_know_beginning_and_end():
    events = []

    class Recording(Callback):
        def on_train_begin(self, status, settings):
            events.append(("begin", dict(status), settings))

        def on_step_end(self, status):
            events.append(("step", status["step"]))

        def on_train_end(self, status):
            events.append(("end", status["step"]))

    opt = make()
    opt.global_step = 5
    train(opt, [Recording()], 1, steps=9, settings={"lr": 0.3})
    assert events == [("begin", {"step": 5, "steps": 9}, {"lr": 0.3}), ("step", 6), ("end", 6)]


def test_an_error_in_the_loop_still_ends_the_callbacks(tmp_path):
    logger = JSONLogger(tmp_path / "log.jsonl")
    with pytest.raises(ZeroDivisionError), Watch(make(), [logger]) as watch:
        watch.step(1.0)
        raise ZeroDivisionError
    assert logger._file.closed and len(read_rows(tmp_path / "log.jsonl")) == 1


@pytest.mark.parametrize("name", ["accuracy", "testing/\naccuracy"])
def test_a_metric_without_a_group_is_refused(name):
    with Watch(make(), []) as watch, pytest.raises(ValueError, match="names such as 'testing/ac"):
        watch.step(1.0, {name: 3})


@pytest.mark.parametrize("callback", [3, JSONLogger])
def test_what_is_no_callback_is_refused(callback):
    with pytest.raises(TypeError, match="expected callbacks or functions of a status"):
        Watch(make(), [callback])


# Logs


def same_rows(rows, seen):
    """Assert that rows read back are the statuses told."""
    kept = [{k: v for k, v in status.items() if k != "steps"} for status in seen]
    assert rows == kept


@ALL
def test_a_log_holds_every_status(tmp_path, logger):
    seen = []
    train(make(), [logger(tmp_path / "log"), seen.append], 4, steps=4, flops_per_step=7)
    same_rows(read_rows(tmp_path / "log"), seen)
    assert len(seen) == 4


@ALL
def test_every_line_is_written_at_once(tmp_path, logger):
    opt = make()
    with Watch(opt, [logger(tmp_path / "log")]) as watch:
        for step in range(1, 4):
            opt.train_step(*batch(MLP_SHAPE))
            watch.step(1.5)
            assert [row["step"] for row in read_rows(tmp_path / "log")] == list(range(1, step + 1))


@ALL
def test_a_new_metric_on_the_way(tmp_path, logger):
    seen, opt = [], make()
    with Watch(opt, [logger(tmp_path / "log"), seen.append]) as watch:
        for step in range(5):
            opt.train_step(*batch(MLP_SHAPE))
            more = {"testing/accuracy": 12.5} if step == 1 else {}
            watch.step(1.5, more | ({"learning/old, new": step} if step > 2 else {}))
    same_rows(read_rows(tmp_path / "log"), seen)
    assert os.listdir(tmp_path) == ["log"]


@ALL
def test_numbers_that_are_not_finite(tmp_path, logger):
    with Watch(make(), [logger(tmp_path / "log")]) as watch:
        watch.step(math.nan, {"testing/accuracy": 3})
    row = read_rows(tmp_path / "log")[0]
    assert math.isnan(row.get("training/loss", math.nan)) and row["testing/accuracy"] == 3


def test_json_lines_are_strict_json(tmp_path):
    train(make(), [JSONLogger(tmp_path / "log")], 1, lambda: {"testing/accuracy": math.inf})
    line = (tmp_path / "log").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["testing/accuracy"] is None


def test_csv_has_a_header(tmp_path):
    train(make(), [CSVLogger(tmp_path / "log")], 1)
    header, row = (tmp_path / "log").read_text().splitlines()
    assert header.startswith("step,seconds,flops,training/loss,training/accuracy,training/lr")
    assert len(row.split(",")) == len(header.split(",")) and row.startswith("1,0.")


@ALL
def test_a_resumed_run_goes_on_without_repeating_steps(tmp_path, logger):
    path, opt, seen = tmp_path / "log", make(), []
    train(opt, [logger(path), seen.append], 3)
    opt.save(tmp_path / "saved")
    train(opt, [logger(path)], 2)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5]
    again = type(opt).resume(tmp_path / "saved", build(MLP, VENDORS).specs)
    train(again, [logger(path), seen.append], 4, {"learning/new": 3})
    same_rows(read_rows(path), seen)
    assert [row["step"] for row in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert seen[3]["seconds"] > seen[2]["seconds"]


@ALL
def test_a_log_cut_off_anywhere_goes_on(tmp_path, logger):
    path, opt = tmp_path / "log", make()
    train(opt, [logger(path)], 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = [row["step"] for row in read_rows(path)]
        assert kept == ([1] if length > whole.index(b"\n", first - (logger is JSONLogger)) else [])
        with Watch(opt, [logger(path)]) as watch:
            watch.step(0.5)
        assert [row["step"] for row in read_rows(path)] == [*kept, 2]


@ALL
def test_step_0_replaces_an_older_log(tmp_path, logger):
    train(make(), [logger(tmp_path / "log")], 3)
    train(make(), [logger(tmp_path / "log")], 1)
    assert [row["step"] for row in read_rows(tmp_path / "log")] == [1]


@ALL
@pytest.mark.parametrize("content", [b"Dear diary", b"Dear diary,\nno step today\n", b"\x00\xff\n"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path, logger, content):
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(ValueError, match="log .*: expected a log that begins with"):
        train(make(), [logger(tmp_path / "log")], 1)
    assert (tmp_path / "log").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"step": 1}\n{"step": oh}\n{"step": 3}\n', "an object with a step in line 2"),
        ('{"step": 1}\n[3]\n', "an object with a step in line 2"),
        ('{"step": 1}\n{"loss": 3}\n', "an object with a step in line 2"),
        ("step,training/loss\n1,2\n2\n", "2 numbers, the first a step, in line 3"),
        ("step,training/loss\n1,two\n", "2 numbers, the first a step, in line 2"),
        ("step,training/loss\n,2\n", "2 numbers, the first a step, in line 2"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, content, message):
    (tmp_path / "log").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "log")


@ALL
def test_a_full_disk_costs_the_log_only(tmp_path, logger):
    opt, seen = make(), []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Watch(opt, [logger(tmp_path / "log"), seen.append]) as watch:
        opt.train_step(*batch(MLP_SHAPE))
        watch.step(1.0)
        size = (tmp_path / "log").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, limits[1]))
        try:
            with pytest.warns(RuntimeWarning, match=r"step 1: \w+Logger ends: .*File too large"):
                watch.step(1.0)
            watch.step(1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(watch.errors) == 1 and len(seen) == 3
    assert len(read_rows(tmp_path / "log")) == 1


@ALL
def test_a_folder_that_is_not_there_fails_before_the_training(tmp_path, logger):
    with pytest.raises(FileNotFoundError), Watch(make(), [logger(tmp_path / "no" / "log")]):
        pytest.fail("the loop began")


# Display


def test_lines_where_there_is_no_terminal(capsys):
    train(make(), [ProgressBar(every=2)], 5, steps=6, flops_per_step=10**9)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["step 2/6", "step 4/6"]
    assert all("loss" in line and "steps/s" in line and "GFLOP/s" in line for line in lines)


def test_a_line_for_every_evaluation(capsys):
    train(make(), [ProgressBar()], 2, {"testing/accuracy": 93.125})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["step 1", "step 2"]
    assert all("accuracy 93.12 %" in line for line in lines)


def test_quiet_says_nothing(capsys):
    bar = ProgressBar(quiet=True, every=1)
    train(make(), [bar], 2, {"testing/accuracy": 1})
    bar.note("nothing")
    assert capsys.readouterr() == ("", "")


def read_all(terminal):
    """Read what was written to a terminal whose other end is closed."""
    parts = []
    with contextlib.suppress(OSError):  # how such a terminal ends
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("columns", "steps", "shown", "left_out"),
    [
        (120, 2, ["2/2 |", "loss", "accuracy 50.00 %", "steps/s", "GFLOP/s"], []),
        (60, 2, ["2/2 |", "loss"], ["GFLOP/s"]),
        (30, 2, ["2 · loss"], ["|", "accuracy"]),
        (120, None, ["2 steps · loss", "GFLOP/s"], ["|"]),
    ],
)
def test_a_terminal_gets_what_it_has_room_for(monkeypatch, columns, steps, shown, left_out):
    main_end, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        options = {"steps": steps, "flops_per_step": 10**9}
        train(make(), [ProgressBar()], 2, {"testing/accuracy": 50}, **options)
        monkeypatch.undo()
    last = read_all(main_end).rstrip().splitlines()[-1]
    missing = [text for text in shown if text not in last]
    assert (missing, [text for text in left_out if text in last]) == ([], []), last
    assert len(last) <= columns
