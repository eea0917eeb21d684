"""Replay: a log rebuilds the weights of every step to the bit."""

import os
import subprocess
import sys

import marketplace as mp
import numpy as np
import pytest
from marketplace import replay
from marketplace.checkpoint import load_checkpoint, write_checkpoint
from markets import (
    CONV,
    CONV_SHAPE,
    FLATTEN,
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
    optimizer,
    same_bits,
)
from recorded import NORMED, STEPS, record, same_arrays, train
from test_execution import usable_isas


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
            opt.train_step(
                x, y, unit_vector_mode=mode, forward_pass=2, marketplace_replica=1 + step
            )
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


# Machines


@pytest.mark.parametrize("isa", [mp.build_info()["isa"], *usable_isas()])
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
