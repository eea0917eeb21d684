"""Replay: a log rebuilds the weights of every step to the bit."""

import itertools
import os
import subprocess
import sys

import marketplace as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from marketplace import __main__, replay
from marketplace.checkpoint import load_checkpoint, write_checkpoint
from marketplace.replay import _format
from markets import (
    CONV,
    CONV_SHAPE,
    FLATTEN,
    MLP,
    MLP_SHAPE,
    MODES,
    POOL,
    RELU,
    VENDORS,
    batch,
    build,
    conv,
    fresh_seeds,
    linear,
    norm,
    optimizer,
    same_bits,
    states,
)

NORMED = [
    [conv(1, 3, 3), norm(3, "batch_norm"), RELU, POOL],
    [conv(3, 4, 3), norm(4, "batch_norm"), RELU, FLATTEN],
    [linear(4, 3)],
]
STEPS = 5


def train(opt, steps, mode="per_spec", shape=CONV_SHAPE):
    """Take steps with decaying rates; give the market's arrays before each and after the last."""
    seen = [[spec.model.state_dict() for spec in opt.marketplace]]
    for _ in range(steps):
        opt.train_step(*batch(shape, seed=opt.global_step), mode)
        opt.learning_rate *= 0.9
        seen.append([spec.model.state_dict() for spec in opt.marketplace])
    return seen


def same_arrays(rebuilt, specs, step):
    """Assert that rebuilt arrays are those of some specs' state dicts."""
    expected = {f"spec.{i}.{key}": v for i, spec in enumerate(specs) for key, v in spec.items()}
    assert rebuilt.keys() == expected.keys() | {"global_step"}
    assert int(rebuilt["global_step"]) == step
    for key, value in expected.items():
        same_bits(rebuilt[key], value)


def record(path, description=CONV, shape=CONV_SHAPE, mode="per_spec", steps=STEPS, **options):
    """Train under a recorder; give the arrays of every step."""
    opt = optimizer(build(description, VENDORS), **({"seed": 3} | options))
    with replay.Recorder(path, opt):
        return train(opt, steps, mode, shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("meta", [None, 0.3], ids=["plain", "meta"])
@pytest.mark.parametrize("plan", ["tree", "star"])
def test_every_step_to_the_bit(tmp_path, plan, meta, mode):
    seen = record(tmp_path / "log", plan=plan, meta_learning_rate=meta, mode=mode)
    for step in range(STEPS + 1):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step], step)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_dtype_and_threads(tmp_path, dtype, threads):
    seen = record(tmp_path / "log", dtype=dtype, threads=3)
    same_arrays(replay.rebuild(tmp_path / "log", STEPS, threads=threads), seen[-1], STEPS)


@pytest.mark.parametrize("meta", [None, 0.3], ids=["plain", "meta"])
def test_running_statistics(tmp_path, meta):
    seen = record(tmp_path / "log", NORMED, meta_learning_rate=meta)
    for step in range(STEPS + 1):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step], step)
    assert (
        seen[0][0]["layers.1.running_mean"].tolist() != seen[1][0]["layers.1.running_mean"].tolist()
    )


def test_upstream_sampling(tmp_path):
    built = build(CONV, VENDORS, sampling=[0, 2, 3])
    opt = optimizer(built, seed=8)
    with replay.Recorder(tmp_path / "log", opt):
        seen = train(opt, STEPS)
    same_arrays(replay.rebuild(tmp_path / "log", STEPS), seen[-1], STEPS)


@pytest.mark.parametrize("meta", [None, 0.3], ids=["plain", "meta"])
@pytest.mark.parametrize("mode", MODES)
def test_minibatches_and_replicas(tmp_path, mode, meta):
    opt = optimizer(build(NORMED, VENDORS), seed=3, plan="star", meta_learning_rate=meta)
    seen = [[spec.model.state_dict() for spec in opt.marketplace]]
    with replay.Recorder(tmp_path / "log", opt):
        for step in range(4):
            x, y = batch((6, *CONV_SHAPE[1:]), seed=step)
            opt.train_step(x, y, mode, forward_pass=2, marketplace_replica=1 + step)
            seen.append([spec.model.state_dict() for spec in opt.marketplace])
    for step in range(5):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step], step)


CHAIN = [[conv(1, 3, 3), RELU, POOL], [conv(3, 4, 3), RELU, FLATTEN, linear(4, 3)]]


@pytest.mark.parametrize("update", ["unit", "momentum", "clipup", "adam"])
@pytest.mark.parametrize("plan", ["star", "node", "scatter"])
def test_update_rules(tmp_path, plan, update):
    """A rule with a past begins from the one that the checkpoint keeps."""
    opt = optimizer(build(CHAIN, (3, 4)), seed=3, plan=plan, update=update, learning_rate=0.01)
    train(opt, 2)
    with replay.Recorder(tmp_path / "log", opt):
        seen = train(opt, 2)
        opt.save(tmp_path / "four")
        seen += train(opt, 2)[1:]
    for step in range(2, 7):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step - 2], step)
    same_arrays(replay.rebuild(tmp_path / "log", 6, tmp_path / "four"), seen[-1], 6)


def test_measured_gradients_of_several_draws(tmp_path):
    opt = optimizer(build(CHAIN, (3, 4)), seed=3, plan="node", learning_rate=0.01)
    seen = [[spec.model.state_dict() for spec in opt.marketplace]]
    with replay.Recorder(tmp_path / "log", opt):
        for step in range(3):
            x, y = batch((6, *CONV_SHAPE[1:]), seed=step)
            opt.train_step(x, y, forward_pass=2, marketplace_replica=3)
            seen.append([spec.model.state_dict() for spec in opt.marketplace])
    for step in range(4):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step], step)


def test_a_control_variate(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3, plan="scatter", control_variate=True)
    with replay.Recorder(tmp_path / "log", opt):
        seen = train(opt, 3, mode="whole")
    same_arrays(replay.rebuild(tmp_path / "log", 3), seen[-1], 3)


def test_replicas_that_were_dropped(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        opt.add_replica(*opt.probe(*batch(CONV_SHAPE)))
        with pytest.raises(RuntimeError, match="expected an optimizer without one"):
            replay.Recorder(tmp_path / "other", opt)
        opt.drop_replicas()
        seen = train(opt, 2)
    same_arrays(replay.rebuild(tmp_path / "log", 2), seen[2], 2)


def test_best_vendors_kept(tmp_path):
    """V1: the sum is one path's deltas, as they are."""
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        for step in range(3):
            opt.keep_best(*opt.probe(*batch(CONV_SHAPE, seed=step)))
        seen = train(opt, 1)
    same_arrays(replay.rebuild(tmp_path / "log", 3), seen[0], 3)
    same_arrays(replay.rebuild(tmp_path / "log", 4), seen[1], 4)


def test_seeds_of_the_callers_own(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seeds=fresh_seeds(VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        seen = train(opt, 2)
        opt.update_seeds(keep_leader=False)
        seen += train(opt, 2)[1:]
    for step in range(5):
        same_arrays(replay.rebuild(tmp_path / "log", step), seen[step], step)


def test_updates_of_the_callers_own(tmp_path):
    """Directions that follow from no seeds are kept as they are, zeros sparsely."""
    opt = optimizer(build(CONV, VENDORS), seed=3)
    rng = np.random.default_rng(0)
    with replay.Recorder(tmp_path / "log", opt) as recorder:
        train(opt, 1)
        direction = [
            {k: rng.normal(size=v.shape).astype(np.float32) for k, v in spec.items()}
            for spec in (spec.model.state_dict() for spec in opt.marketplace)
        ]
        opt.update_weights(direction, [0.1, 0.2, 0.3])
        dense = os.path.getsize(tmp_path / "log")
        for spec in direction[:2]:
            for values in spec.values():
                values[:] = 0
        opt.update_weights(direction)
        assert os.path.getsize(tmp_path / "log") - dense < dense // 2
        recorder.mark()
        opt.global_step += 1
        train(opt, 1)
    final = [spec.model.state_dict() for spec in opt.marketplace]
    same_arrays(replay.rebuild(tmp_path / "log", 3), final, 3)


def test_a_step_that_tells_nothing(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    paths = opt.probe(*batch(CONV_SHAPE))[1]
    with replay.Recorder(tmp_path / "log", opt):
        with pytest.warns(RuntimeWarning, match="all losses are equal"):
            opt.step(np.ones(len(paths)), paths)
        seen = train(opt, 1)
    same_arrays(replay.rebuild(tmp_path / "log", 1), seen[0], 1)
    same_arrays(replay.rebuild(tmp_path / "log", 2), seen[1], 2)


def test_recording_changes_nothing(tmp_path):
    recorded = record(tmp_path / "log")
    plain = train(optimizer(build(CONV, VENDORS), seed=3), STEPS)
    for a, b in zip(recorded[-1], plain[-1], strict=True):
        for key in a:
            same_bits(a[key], b[key])


# Checkpoints


def test_from_any_later_checkpoint(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        train(opt, 2)
        opt.save(tmp_path / "two")
        seen = train(opt, 2)
    for step in (2, 3, 4):
        same_arrays(replay.rebuild(tmp_path / "log", step, tmp_path / "two"), seen[step - 2], step)


def test_the_written_file_is_the_checkpoint_of_that_step(tmp_path):
    opt = optimizer(build(NORMED, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        train(opt, 3)
        write_checkpoint(opt.marketplace, opt.global_step, tmp_path / "three")
        train(opt, 2)
    replay.write(tmp_path / "log", 3, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "three").read_bytes()
    assert load_checkpoint(build(NORMED, VENDORS).specs, tmp_path / "again") == 3


def test_a_resumed_run_goes_on_with_its_log(tmp_path):
    log, saved = tmp_path / "log", tmp_path / "saved"
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(log, opt):
        train(opt, 2)
        opt.save(saved)
        train(opt, 2)  # lost with the process: the run goes on from the checkpoint
    assert replay.read(log).last_step == 4
    again = mp.Optimizer.resume(saved, build(CONV, VENDORS).specs)
    with replay.Recorder(log, again):
        assert replay.read(log).last_step == 2
        seen = train(again, 3)
    assert replay.read(log).last_step == 5
    for step in range(2, 6):
        same_arrays(replay.rebuild(log, step), seen[step - 2], step)


def test_a_resumed_run_may_begin_a_log(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    train(opt, 2)
    opt.save(tmp_path / "saved")
    again = mp.Optimizer.resume(tmp_path / "saved", build(CONV, VENDORS, seed=9).specs)
    with replay.Recorder(tmp_path / "log", again):
        seen = train(again, 2)
    assert (replay.read(tmp_path / "log").first_step, replay.read(tmp_path / "log").last_step) == (
        2,
        4,
    )
    same_arrays(replay.rebuild(tmp_path / "log", 4), seen[-1], 4)


def test_step_0_replaces_an_older_log(tmp_path):
    record(tmp_path / "log", steps=3)
    seen = record(tmp_path / "log", steps=1, seed=4)
    assert replay.read(tmp_path / "log").last_step == 1
    same_arrays(replay.rebuild(tmp_path / "log", 1), seen[-1], 1)


# Size


@pytest.mark.parametrize("width", [4, 400])
def test_a_step_costs_four_bytes_a_vendor(tmp_path, width):
    """And some for the records, whatever the size of the model."""
    market = [[linear(6, width), RELU], [linear(width, 3)]]
    opt = optimizer(build(market, (40, 90)), seed=3, plan="star")
    with replay.Recorder(tmp_path / "log", opt):
        train(opt, 1, shape=MLP_SHAPE)
        before = os.path.getsize(tmp_path / "log")
        train(opt, 10, shape=MLP_SHAPE)
        assert os.path.getsize(tmp_path / "log") - before == 10 * (4 * (40 + 90) + 56)


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


# Machines


@pytest.mark.parametrize("isa", mp.build_info()["isas"])
def test_any_instruction_set(tmp_path, isa):
    record(tmp_path / "log", threads=2)
    replay.write(tmp_path / "log", STEPS, tmp_path / "here")
    command = ["replay", "log", "--step", str(STEPS), "--out", "there", "--threads", "1"]
    subprocess.run(
        [sys.executable, "-m", "marketplace", *command],
        cwd=tmp_path,
        env=os.environ | {"MARKETPLACE_ISA": isa},
        check=True,
    )
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


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
