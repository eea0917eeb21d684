"""Calls that end halfway, and threads in between: what they leave is what was there before."""

import marketplace as mp
import numpy as np
import pytest
from markets import MLP, MLP_SHAPE, VENDORS, batch, build, optimizer, same_bits, same_states, states
from updates import in_threads

MASTER = 11


class Recorder:
    """What a full disk makes of a log."""

    def step(self, *_):
        raise OSError("disk full")


def interrupt(*_):
    raise KeyboardInterrupt


def searching():
    built, (x, y) = build(MLP, VENDORS), batch(MLP_SHAPE)
    return built, optimizer(built, seed=MASTER, meta_learning_rate=0.2), x, y


@pytest.mark.parametrize("ends", ["recorder", "interrupt"])
def test_a_line_search_that_ends_halfway_is_taken_back(ends, monkeypatch):
    (built, opt, x, y), (same, other, *_) = searching(), searching()
    if ends == "recorder":
        opt.recorder = Recorder()
        with pytest.raises(OSError, match="disk full"):
            opt.train_step(x, y)
        opt.recorder = None
    else:
        loss, paths = opt.probe(x, y)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(opt, "_probe_again", interrupt)
            opt.step(loss, paths)
    same_states(states(built), states(same))
    for _ in range(2):
        same_bits(opt.train_step(x, y)[0], other.train_step(x, y)[0])
    same_states(states(built), states(same))


def test_a_line_search_without_a_finite_loss_is_refused(monkeypatch):
    built, opt, x, y = searching()
    before = states(built)
    loss, paths = opt.probe(x, y)
    nothing = np.full(loss.shape, np.nan, np.float32)
    monkeypatch.setattr(opt, "_probe_again", lambda native: nothing)
    with pytest.raises(
        ValueError, match=r"step: expected a finite loss of the line search, received"
    ):
        opt.step(loss, paths)
    same_states(states(built), before)
    one = nothing.copy()
    one[3] = 0.5  # the others do not count
    monkeypatch.setattr(opt, "_probe_again", lambda native: one)
    opt.step(loss, paths)
    assert opt.global_step == 1


def test_losses_of_vendors_that_are_gone_do_not_count():
    """An interrupt can come when the engine has stepped and Python has not dropped its losses."""
    x, y = batch(MLP_SHAPE)
    opt = optimizer(build(MLP, VENDORS), seed=MASTER)
    opt.accumulate(x, y)
    loss, paths = opt.accumulate(x, y)
    opt._native.step(loss, paths, "per_spec")
    again = opt.accumulate(x, y)[0]
    same_bits(again, opt.probe(x, y)[0])


def test_replicas_that_the_caller_added_stay():
    x, y = batch(MLP_SHAPE)
    opt = optimizer(build(MLP, VENDORS), seed=MASTER)
    opt.add_replica(*opt.probe(x, y))
    seeds = opt.spec_context[0].seeds.copy()
    with pytest.raises(ValueError, match="finite"):
        opt.train_step(x * np.float32(np.nan), y)
    assert opt.replica == 1
    same_bits(opt.spec_context[0].seeds, seeds)
    with pytest.raises(ValueError, match="finite"):  # with replicas of its own
        opt.train_step(
            np.stack([x, x * np.float32(np.nan)]).reshape(-1, 6),
            [*y, *y],
            forward_pass=2,
            marketplace_replica=2,
        )
    assert opt.replica == 1


@pytest.mark.parametrize(
    ("made", "called"),
    [
        ({"meta_learning_rate": 0.2}, {}),
        ({"plan": "star"}, {"forward_pass": 2, "marketplace_replica": 2}),
    ],
    ids=["line search", "replicas"],
)
def test_threads_take_turns_with_whole_steps(made, called):
    x, y = batch((8, 6))
    opt, alone = (optimizer(build(MLP, VENDORS), seed=3, **made) for _ in range(2))

    def learn():
        for _ in range(15):
            opt.train_step(x, y, **called)

    in_threads(learn, learn, learn)
    for _ in range(45):
        alone.train_step(x, y, **called)
    assert opt.global_step == 45
    for mine, theirs in zip(opt.marketplace, alone.marketplace, strict=True):
        for key, value in theirs.model.state_dict().items():
            same_bits(mine.model.state_dict()[key], value)


@pytest.mark.parametrize("shaping", ["z", "rank", "sign"])
@pytest.mark.parametrize("mode", ["per_spec", "whole"])
def test_paths_that_tell_a_star_nothing(shaping, mode):
    """Of a path that deviates in every spec a star's scores per spec hold nothing at all."""
    built = build(MLP, VENDORS)
    opt = optimizer(built, seed=MASTER, plan="star", shaping=shaping)
    before = states(built)
    with pytest.warns(RuntimeWarning, match="none is of a path that the plan compares"):
        opt.step([1.5], [[1, 1, 1]], mode)
    same_states(states(built), before)


def test_vendors_of_another_market_are_refused():
    first, second = build(MLP, VENDORS), build(MLP, VENDORS)
    opt, (x, _) = optimizer(first, seed=MASTER), batch(MLP_SHAPE)
    with pytest.raises(ValueError, match="forward: expected vendors of the spec .*received Vendor"):
        mp.training.forward(second.specs, x, opt.vendors)
    with pytest.raises(ValueError, match="produce: expected vendors of the spec"):
        mp.training.produce(first.specs[1], x, opt.vendors[0])


def test_a_search_that_nobody_ended_is_not_gone_back_to():
    """An interrupt can come before Python knows that a search began; new vendors end it."""
    _, opt, x, y = searching()
    loss, paths = opt.probe(x, y)
    opt._native.start_search(loss, paths, "per_spec")
    opt.update_seeds()
    seeds = opt.spec_context[0].seeds.copy()
    opt.probe(x, y)
    with pytest.raises(ValueError, match="finite losses"):
        opt.step(loss * np.float32(np.nan), paths)
    same_bits(opt.spec_context[0].seeds, seeds)
    assert opt._vendors_are_seeded()
