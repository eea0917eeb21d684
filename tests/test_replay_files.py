"""Replay logs as files: cut off, damaged, from the command line, byte by byte."""

import itertools
import os

import marketplace as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from marketplace import __main__, replay
from marketplace.checkpoint import load_checkpoint
from marketplace.replay import _format
from markets import (
    CONV,
    CONV_SHAPE,
    MLP,
    MLP_SHAPE,
    VENDORS,
    batch,
    build,
    optimizer,
    same_bits,
    states,
)
from recorded import NORMED, record, same_arrays, train

# Breaking off


def record_sizes(path, **options):
    """Train under a recorder; give the arrays of every step and the log's size at each."""
    opt = optimizer(build(MLP, VENDORS), seed=3, **options)
    seen, sizes = [], []
    with replay.Recorder(path, opt):
        for _ in range(3):
            seen.append(states(opt_market(opt)))
            sizes.append(os.path.getsize(path))
            train(opt, 1, shape=MLP_SHAPE)
        seen.append(states(opt_market(opt)))
        sizes.append(os.path.getsize(path))
    return seen, sizes


def opt_market(opt):
    """Look like a built market."""
    return type("Market", (), {"specs": opt.marketplace})


def test_a_log_cut_anywhere_keeps_the_steps_before(tmp_path):
    path = tmp_path / "log"
    seen, sizes = record_sizes(path)
    whole = path.read_bytes()
    for length in range(sizes[0], sizes[3]):
        path.write_bytes(whole[:length])
        log = replay.read(path)
        steps = sum(length >= size for size in sizes) - 1
        assert log.last_step == steps
        assert (log.damage is None) == (length in sizes)
        if length % 7 == 0 or length in sizes:
            same_arrays(replay.rebuild(path, steps), seen[steps], steps)
            with pytest.raises(ValueError, match=f"from 0 to {steps}, received step {steps + 1}"):
                replay.rebuild(path, steps + 1)


def test_a_changed_byte_is_found(tmp_path):
    path = tmp_path / "log"
    seen, sizes = record_sizes(path)
    whole = path.read_bytes()
    for at in range(sizes[1], sizes[2]):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        log = replay.read(path)
        assert log.last_step == 1 and log.damage is not None
    same_arrays(replay.rebuild(path, 1), seen[1], 1)


def test_a_missing_record_is_found(tmp_path):
    path = tmp_path / "log"
    _, sizes = record_sizes(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: sizes[1]] + whole[sizes[2] :])
    log = replay.read(path)
    assert log.last_step == 1 and "checksum" in log.damage


def test_a_cut_log_can_be_continued(tmp_path):
    path = tmp_path / "log"
    opt = optimizer(build(MLP, VENDORS), seed=3)
    with replay.Recorder(path, opt):
        train(opt, 2, shape=MLP_SHAPE)
        opt.save(tmp_path / "saved")
    path.write_bytes(path.read_bytes() + b"\x02\x00\x00")
    again = mp.Optimizer.resume(tmp_path / "saved", build(MLP, VENDORS).specs)
    with replay.Recorder(path, again):
        seen = train(again, 2, shape=MLP_SHAPE)
    assert replay.read(path).damage is None
    same_arrays(replay.rebuild(path, 4), seen[-1], 4)


def test_statistics_that_were_cut_off_are_not_made_up(tmp_path):
    path = tmp_path / "log"
    opt = optimizer(build(NORMED, VENDORS), seed=3)
    recorder = replay.Recorder(path, opt)
    seen = train(opt, 3)
    whole = path.read_bytes()
    recorder.close()
    path.write_bytes(whole)  # as if the run had been killed
    same_arrays(replay.rebuild(path, 2), seen[2], 2)
    with pytest.raises(ValueError, match="expected the running statistics of step 3, received"):
        replay.rebuild(path, 3)


@pytest.mark.parametrize("meta", [None, 0.3], ids=["plain", "meta"])
def test_a_step_recorded_but_not_taken(monkeypatch, tmp_path, meta):
    opt = optimizer(build(CONV, VENDORS), seed=3, meta_learning_rate=meta)
    with replay.Recorder(tmp_path / "log", opt) as recorder:
        train(opt, 1)
        direction, update = recorder.step, recorder.update

        def struck(*arguments):
            direction(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(recorder, "step", struck)
        loss, paths = opt.probe(*batch(CONV_SHAPE))
        with pytest.raises(KeyboardInterrupt):
            opt.step(loss, paths)
        monkeypatch.undo()
        assert recorder.update == update
        opt.update_seeds()
        seen = train(opt, 2)
    assert replay.read(tmp_path / "log").last_step == 3
    for step in (1, 2, 3):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step - 1], step)


def test_losses_that_are_not_finite_leave_no_trace(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        loss, paths = opt.probe(*batch(CONV_SHAPE))
        size = os.path.getsize(tmp_path / "log")
        loss[[2, 5]] = np.nan
        with pytest.raises(ValueError, match=r"nan at path \(2, 0, 0\), nan at path \(2, 1, 0\)$"):
            opt.step(loss, paths)
        assert os.path.getsize(tmp_path / "log") == size
        seen = train(opt, 1)
    same_arrays(replay.rebuild(tmp_path / "log", 1), seen[-1], 1)


# Command line


def test_command(tmp_path, capsys):
    seen = record(tmp_path / "log")
    log, out = str(tmp_path / "log"), tmp_path / "out"
    assert __main__.main(["replay", log, "--step", "3", "--out", str(out)]) == 0
    built = build(CONV, VENDORS, seed=9)
    assert load_checkpoint(built.specs, out) == 3
    for spec, expected in zip(built.specs, seen[3], strict=True):
        for key, value in spec.model.state_dict().items():
            same_bits(value, expected[key])
    assert capsys.readouterr() == ("", "")
    assert __main__.main(["replay", log]) == 0
    assert '"last_step": 5' in capsys.readouterr().out


def test_command_tells_what_is_broken(tmp_path, capsys):
    record(tmp_path / "log", steps=2)
    (tmp_path / "log").write_bytes((tmp_path / "log").read_bytes()[:-20])
    log, out = str(tmp_path / "log"), tmp_path / "out"
    assert __main__.main(["replay", log, "--step", "2", "--out", str(out)]) == 0
    error = capsys.readouterr().err
    assert "it ends within the record at byte" in error and "steps 0 to 2 are whole" in error
    assert error.count("\n") == 1
    assert __main__.main(["replay", log, "--step", "3", "--out", str(out)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("marketplace replay: error: replay log ") and "received step 3" in error


# The format


@given(
    arrays.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([0.0, -0.0, 1.5, 3e-9]))
)
def test_values_survive(values):
    step = _format.Step("as_is", np.array([0.25], dtype=np.float32), [[values]])
    body = memoryview(_format.encode_step(step))
    again = _format.decode_step(body, [1], [values.size])
    same_bits(again.terms[0][0], values)
    same_bits(again.rates, step.rates)
    assert len(body) <= 3 + 4 + 1 + 5 + 4 * values.size


def test_steps_survive():
    for mode, own in itertools.product(_format.MODES, (False, True)):
        draw = _format.Weighted(
            2**63 + 1,
            7,
            np.array([1, 2], dtype=np.float32),
            [np.arange(3, dtype=np.float32), np.array([np.nan, -0.0], dtype=np.float32)],
            [np.arange(3, dtype=np.uint64), np.array([5, 2**64 - 1], np.uint64)] if own else None,
        )
        step = _format.Step(mode, np.array([3, 4], dtype=np.float32), [draw] * 2)
        again = _format.decode_step(memoryview(_format.encode_step(step)), [3, 2], [9, 9])
        assert again.mode == mode and len(again.terms) == 2
        same_bits(again.rates, step.rates)
        for read in again.terms:
            assert (read.generation, read.replica) == (2**63 + 1, 7)
            same_bits(read.amplitudes, draw.amplitudes)
            for a, b in zip(read.coefficients, draw.coefficients, strict=True):
                same_bits(a, b)
            assert (read.seeds is None) != own
            for a, b in zip(read.seeds or (), draw.seeds or (), strict=True):
                same_bits(a, b)
