"""Replay logs that do not fit, cannot be read or cannot be written."""

import resource
import zlib

import marketplace as mp
import numpy as np
import pytest
from marketplace import __main__, replay
from marketplace.replay import _format
from markets import CONV, CONV_SHAPE, VENDORS, batch, build, linear, optimizer


def train(opt, steps):
    for _ in range(steps):
        opt.train_step(*batch(CONV_SHAPE, seed=opt.global_step))


def record(path, steps=2, saved=None, **options):
    opt = optimizer(build(CONV, VENDORS), **({"seed": 3} | options))
    with replay.Recorder(path, opt):
        train(opt, steps)
    if saved is not None:
        opt.save(saved)
    return opt


@pytest.fixture
def log(tmp_path):
    record(tmp_path / "log", saved=tmp_path / "saved")
    return tmp_path / "log"


def resumed(log, description=CONV, vendors=VENDORS):
    return mp.Optimizer.resume(log.with_name("saved"), build(description, vendors).specs)


# A log and its checkpoint


def test_a_checkpoint_of_another_run(tmp_path, log):
    other = optimizer(build(CONV, VENDORS, seed=9), seed=3)
    other.save(tmp_path / "other")
    wanted = r"expected checksum \w{8} at step 0, received \w{8}, that of .*other"
    with pytest.raises(ValueError, match=wanted):
        replay.rebuild(log, 2, tmp_path / "other")


def test_a_checkpoint_of_another_market(tmp_path, log):
    other = [mp.Spec(mp.nn.Model(mp.nn.Linear(4, 3)), vendor_count=2)]
    mp.checkpoint.write_checkpoint(other, 0, tmp_path / "other")
    wanted = r"a checkpoint with spec.0.layers.0.weight of shape \[3, 1, 3, 3\], received \[3, 4\]"
    with pytest.raises(ValueError, match=wanted):
        replay.rebuild(log, 2, tmp_path / "other")


def test_a_checkpoint_without_what_the_rule_needs(tmp_path):
    record(tmp_path / "log", update="momentum")
    opt = optimizer(build(CONV, VENDORS), seed=3)
    mp.checkpoint.write_checkpoint(opt.marketplace, 0, tmp_path / "plain")
    wanted = "expected a file of Optimizer.save, for update 'momentum', received .*plain without"
    with pytest.raises(ValueError, match=wanted):
        replay.rebuild(tmp_path / "log", 2, tmp_path / "plain")


def test_a_checkpoint_from_behind_the_log(tmp_path, log):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    train(opt, 3)
    opt.save(tmp_path / "three")
    wanted = "expected a checkpoint of steps 0 to 2, received one of step 3"
    with pytest.raises(ValueError, match=wanted):
        replay.rebuild(log, 2, tmp_path / "three")


def test_a_checkpoint_from_behind_the_step(log):
    with pytest.raises(ValueError, match="expected a step from 2 to 2, received step 1"):
        replay.rebuild(log, 1, log.with_name("saved"))


def test_a_missing_checkpoint(log):
    log.with_name("log.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="log.safetensors"):
        replay.rebuild(log, 1)


def test_a_missing_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        replay.read(tmp_path / "nowhere")


@pytest.mark.parametrize("step", [-1, 3, 2**70])
def test_a_step_out_of_range(log, step):
    with pytest.raises(ValueError, match="step"):
        replay.rebuild(log, step)


def test_a_step_that_is_no_integer(log):
    with pytest.raises(TypeError, match="expected step as an integer"):
        replay.rebuild(log, 1.5)


def test_weights_that_changed_between_the_steps(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        train(opt, 1)
        state = opt.marketplace[2].model.state_dict()
        opt.marketplace[2].model.load_state_dict({k: v + 1 for k, v in state.items()})
        train(opt, 1)
    with pytest.raises(ValueError, match="at step 1, .*: the weights changed between the steps"):
        replay.rebuild(tmp_path / "log", 2)


# A log and the run that goes on with it


def refused(log, opt, wanted):
    before = log.read_bytes()
    with pytest.raises(ValueError, match=wanted):
        replay.Recorder(log, opt)
    assert log.read_bytes() == before and opt.recorder is None


def test_another_market(tmp_path, log):
    other = optimizer(build([[linear(4, 3)]], (3,)), seed=3)
    other.global_step = 2
    refused(log, other, "expected the log of this market, received that of another")


def test_another_seed(log):
    opt = optimizer(build(CONV, VENDORS), seed=4)
    opt.global_step = 2
    refused(log, opt, "expected seed 4, received 3")


def test_another_rule(log):
    opt = optimizer(build(CONV, VENDORS), seed=3, update="adam")
    opt.global_step = 2
    refused(log, opt, "expected a run with .*'adam'.*, received .*'unit'")


def test_other_weights(log):
    opt = resumed(log)
    state = opt.marketplace[0].model.state_dict()
    opt.marketplace[0].model.load_state_dict({k: -v for k, v in state.items()})
    refused(log, opt, r"checksum \w{8} at step 2, received \w{8}, that of the weights to go on")


def test_a_log_that_ends_too_early(log):
    opt = resumed(log)
    train(opt, 1)
    refused(log, opt, "expected a log that reaches step 3, received 0 to 2")


@pytest.mark.parametrize("step", [0, 2])
def test_a_file_of_something_else(log, step):
    log.write_bytes(b"Dear diary,\ntoday I trained a network.\n")
    opt = resumed(log)
    opt.global_step = step
    refused(log, opt, r"expected a replay log, received a file that begins with b'Dear dia'")


def test_two_recorders(tmp_path, log):
    opt = resumed(log)
    with (
        replay.Recorder(log, opt),
        pytest.raises(RuntimeError, match="expected an optimizer without one"),
    ):
        replay.Recorder(tmp_path / "second", opt)
    assert not (tmp_path / "second").exists()


def test_an_update_under_way(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    opt.add_replica(*opt.probe(*batch(CONV_SHAPE)))
    with pytest.raises(RuntimeError, match="expected an optimizer between two updates"):
        replay.Recorder(tmp_path / "log", opt)
    assert not (tmp_path / "log").exists()


def test_steps_that_count_backwards(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with replay.Recorder(tmp_path / "log", opt):
        train(opt, 2)
        opt.global_step = 1
        weights = opt.marketplace[0].model.state_dict()["layers.0.weight"]
        with pytest.raises(RuntimeError, match="expected global_step of at least 2, as recorded"):
            train(opt, 1)
        assert np.array_equal(opt.marketplace[0].model.state_dict()["layers.0.weight"], weights)
        opt.global_step = 2
        train(opt, 1)
    assert replay.read(tmp_path / "log").last_step == 3


def test_a_closed_recorder_records_no_more(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    recorder = replay.Recorder(tmp_path / "log", opt)
    recorder.close()
    recorder.close()
    train(opt, 1)
    assert replay.read(tmp_path / "log").last_step == 0


# Files


def test_a_folder_that_is_not_there(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    with pytest.raises(FileNotFoundError):
        replay.Recorder(tmp_path / "no" / "log", opt)
    assert opt.recorder is None


def test_a_full_disk_costs_the_log_only(tmp_path):
    opt = optimizer(build(CONV, VENDORS), seed=3)
    recorder = replay.Recorder(tmp_path / "log", opt)
    train(opt, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "log").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
    try:
        with pytest.warns(RuntimeWarning, match="step 1: the replay log ends here: .*large"):
            train(opt, 1)
        train(opt, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert opt.global_step == 3
    recorder.close()
    assert recorder.error.filename == str(tmp_path / "log") and opt.recorder is None
    log = replay.read(tmp_path / "log")
    assert log.last_step == 1 and "ends within the record" in log.damage
    replay.rebuild(tmp_path / "log", 1)


@pytest.mark.parametrize("length", [0, 5, 11])
def test_a_log_without_its_beginning(log, length):
    log.write_bytes(log.read_bytes()[:length])
    with pytest.raises(ValueError, match="replay log .*: expected (a replay log|version 1)"):
        replay.read(log)


def test_a_log_cut_within_its_header(log):
    log.write_bytes(log.read_bytes()[:40])
    with pytest.raises(ValueError, match="a replay log with a header, received it ends within"):
        replay.read(log)


def test_another_version(log):
    content = bytearray(log.read_bytes())
    content[8] = 2
    log.write_bytes(content)
    with pytest.raises(ValueError, match="expected version 1, received version 2"):
        replay.read(log)


def append(log, kind, flags, payload):
    """Append a sound record of any kind."""
    chain = list(replay.read(log).frames())[-1].checksum
    record = _format._FRAME.pack(kind, flags, 0, len(payload)) + payload
    record += zlib.crc32(record, chain).to_bytes(4, "little")
    log.write_bytes(log.read_bytes() + record)


def test_a_kind_of_the_future_is_refused(log):
    append(log, 77, 0, _format.point(2, 0))
    with pytest.raises(ValueError, match="received kind 77 at byte .*: a newer version wrote it"):
        replay.rebuild(log, 2)


def test_a_kind_of_the_future_may_be_passed_over(log):
    append(log, 77, _format.MAY_BE_SKIPPED, b"whatever")
    assert replay.rebuild(log, 2)["global_step"] == 2


HEAD = b"\x02\x01\x00" + bytes(12)  # as_is, one term, three rates


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (_format.Kind.STEP, b""),
        (_format.Kind.STEP, bytes(400)),
        (_format.Kind.STEP, b"\x07\x01\x00"),
        (_format.Kind.UPDATE, HEAD + b"\x07"),
        (_format.Kind.UPDATE, HEAD + b"\x02\x05\x00\x00\x00\x00"),
        (_format.Kind.UPDATE, HEAD + b"\x02\x01\x01\x00\x00\x00\xff\xff\xff\xff" + bytes(4)),
        (_format.Kind.STATISTICS, bytes(8)),
    ],
)
def test_records_of_another_size(log, kind, body):
    """Sound by their checksums, but not what this version writes."""
    last = [record for record in replay.read(log).records()][-1]
    append(log, kind, 0, _format.point(2, last.point[1]) + body)
    append(log, _format.Kind.MARK, 0, _format.point(3, 0))
    with pytest.raises(ValueError, match="expected records of this version, received"):
        replay.rebuild(log, 3)


def test_a_header_of_nonsense(log):
    start = _format.file_start()
    record, _ = _format.frame(_format.Kind.HEADER, b"{}", zlib.crc32(start))
    log.write_bytes(start + record)
    with pytest.raises(ValueError, match="its header cannot be read"):
        replay.read(log)


# Command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "1"], "expected --step and --out together"),
        (["--step", "9", "--out", "out"], "expected a step from 0 to 2, received step 9"),
        (["--step", "1", "--out", "no/where"], "No such file or directory"),
        (["--step", "1", "--out", "out", "--threads", "0"], "threads of at least 1"),
    ],
)
def test_command_errors_are_one_line(monkeypatch, log, capsys, arguments, message):
    monkeypatch.chdir(log.parent)
    assert __main__.main(["replay", "log", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("marketplace replay: error: ") and message in error
    assert error.count("\n") == 1
