"""A late worker takes the run's steps again, from its own first weights or from a checkpoint."""

import dataclasses
import functools

import marketplace as mp
import numpy as np
import programs
import pytest
from marketplace import nn, replay
from marketplace.distributed._history import History, catch_up
from marketplace.distributed._ray_worker import get_state, set_state

REPLICAS = functools.partial(programs.step, forward_pass=2, marketplace_replica=2)
CASES = {
    "star": {},
    "tree": {"plan": "tree"},
    "batch_norm": {"norm": nn.BatchNorm},
    "line_search": {"meta_learning_rate": 0.1},
    "momentum": {"update": "momentum"},
    "adam": {"update": "adam"},
    "antithetic": {"antithetic": True, "shaping": "rank"},
}


def recorded(optimizer, steps, step=programs.step, most=1000):
    """Take steps that a history listens to."""
    history = History(optimizer, most)
    optimizer._history = history
    for _ in range(steps):
        step(optimizer)
    return history


def assert_alike(one, other, step=programs.step):
    """Compare weights, and those of the steps to come."""
    for _ in range(3):
        assert programs.checksum(one) == programs.checksum(other)
        assert one.global_step == other.global_step
        step(one)
        step(other)


@pytest.mark.parametrize("case", CASES)
def test_from_the_first_weights(case):
    optimizer, late = programs.make(**CASES[case]), programs.make(**CASES[case])
    catch_up(late, recorded(optimizer, 7).present())
    assert_alike(late, optimizer)


@pytest.mark.parametrize("step", [REPLICAS, programs.keep_best], ids=["replicas", "v1"])
def test_other_kinds_of_steps(step):
    optimizer, late = programs.make(), programs.make()
    catch_up(late, recorded(optimizer, 5, step).present())
    assert_alike(late, optimizer, step)


@pytest.mark.parametrize("case", ["star", "momentum", "adam", "batch_norm"])
def test_from_a_checkpoint(case):
    optimizer, late = programs.make(**CASES[case]), programs.make(**CASES[case])
    history = recorded(optimizer, 4)
    history.begin_anew()
    checkpoint = get_state(optimizer)
    for _ in range(5):
        programs.step(optimizer)
    set_state(late, checkpoint)
    present = history.present()
    assert len(present.steps) == 5
    catch_up(late, present)
    assert_alike(late, optimizer)


def test_the_records_stay_small_and_do_not_grow_without_end():
    optimizer = programs.make(vendors=(4, 500))
    history = recorded(optimizer, 9, most=5)  # the sixth makes the first five too many
    assert history.base is None
    history.begin_anew()
    programs.step(optimizer)
    (record,) = history.present().steps
    assert len(record) < 4 * 504 + 64
    optimizer.update_weights(optimizer.compute_direction_vectors(*optimizer.probe(*batch())))
    assert history.base is None  # as large as the weights: a checkpoint says the same


def batch():
    return programs.batches(0)


def test_a_step_that_was_recorded_but_not_taken_makes_way(monkeypatch):
    optimizer, late = programs.make(), programs.make()
    history = recorded(optimizer, 2)

    class Struck:
        def step(self, *arguments):
            raise KeyboardInterrupt

    optimizer.recorder = None
    monkeypatch.setattr(type(optimizer), "_listeners", property(lambda self: [history, Struck()]))
    with pytest.raises(KeyboardInterrupt):
        programs.step(optimizer)
    monkeypatch.undo()
    programs.step(optimizer)
    catch_up(late, history.present())
    assert_alike(late, optimizer)


def test_a_recorder_may_listen_too(tmp_path):
    optimizer, late = programs.make(), programs.make()
    optimizer._history = history = History(optimizer, 10)
    with replay.Recorder(tmp_path / "run.replay", optimizer):
        for _ in range(3):
            programs.step(optimizer)
    catch_up(late, history.present())
    assert_alike(late, optimizer)
    arrays = replay.rebuild(tmp_path / "run.replay", 3)
    again = programs.make()
    for _ in range(3):
        programs.step(again)
    for name, value in again.marketplace[0].model.state_dict().items():
        np.testing.assert_array_equal(arrays[f"spec.0.{name}"], value)


def other_weights(optimizer):
    state = optimizer.marketplace[0].model.state_dict()
    state["layers.0.bias"] = np.nextafter(state["layers.0.bias"], np.float32(1))
    optimizer.marketplace[0].model.load_state_dict(state)


def test_another_checkpoint_than_the_log_begins_from_is_refused():
    optimizer, late = programs.make(), programs.make()
    present = recorded(optimizer, 3).present()
    other_weights(late)
    pattern = (
        r"expected weights with checksum \w{8} at step 0, where the log begins, received \w{8}"
    )
    with pytest.raises(ValueError, match=pattern):
        catch_up(late, present)
    with pytest.raises(ValueError, match=r"at step 0, where the log begins, received .+ at step 3"):
        catch_up(optimizer, present)


def test_weights_that_changed_outside_of_the_steps_are_told():
    optimizer, late = programs.make(), programs.make()
    history = recorded(optimizer, 2)
    other_weights(optimizer)
    programs.step(optimizer)
    pattern = r"expected weights .+ at step 3, 3 steps later, received .+ not on record"
    with pytest.raises(ValueError, match=pattern):
        catch_up(late, history.present())


def test_records_of_another_market_are_refused():
    optimizer, late = programs.make(), programs.make()
    present = recorded(optimizer, 3).present()
    cut = dataclasses.replace(present, steps=[present.steps[0], present.steps[1][:-4]])
    with pytest.raises(ValueError, match="expected steps of this market, received .+ too few"):
        catch_up(late, cut)


def test_rates_keep_their_kind():
    optimizer, late = programs.make(), programs.make()
    optimizer.learning_rate = mp.Tensor(0.3, dtype="float64")
    present = recorded(optimizer, 1, lambda one: one.train_step(*batch())).present()
    late.learning_rate = 0.3
    catch_up(late, present)
    assert late.learning_rate.dtype == np.float64
    assert float(late.learning_rate) == 0.3
