"""Ray actors share probes: the bits of one process, whoever dies."""

import functools
import os
import random
import re
import signal
import threading
import time
import warnings

import numpy as np
import programs
import pytest
from marketplace import nn
from marketplace.distributed import _follower, _ray, _ray_exchange, _ray_worker
from marketplace.distributed._report import Report
from rays import MARKS, cluster, in_worker, pid_of, ray

pytestmark = MARKS


def test_channels_that_cannot_be_made_are_told_and_done_without(monkeypatch):
    def refuse(*arguments):
        raise NotImplementedError("no shared memory here")

    monkeypatch.setattr(_ray_exchange, "Link", refuse)
    pattern = r"worker 0 .+ is asked by tasks, without channels: no shared memory here"
    with cluster(workers=1) as one, pytest.warns(RuntimeWarning, match=pattern) as caught:
        for _ in range(3):
            one.step()
        assert len(caught) == 1
        assert programs.checksum(one.optimizer) == programs.alone(3)


def test_four_workers_give_the_bits_of_one_process():
    with cluster(check_every=10) as four:
        for _ in range(programs.STEPS):
            loss, paths = four.step()
        assert four.optimizer.global_step == programs.STEPS
        assert len(four.worker_names) == 4
        assert programs.checksum(four.optimizer) == programs.alone()
        one = programs.make()
        for _ in range(programs.STEPS):
            expected = programs.step(one)
        np.testing.assert_array_equal(loss, expected[0])
        np.testing.assert_array_equal(paths, expected[1])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_workers_that_keep_to_cores():
    cores = sorted(os.sched_getaffinity(0))
    with cluster(workers=3, bind=True) as three:
        for _ in range(3):
            three.step()
        kept = [os.sched_getaffinity(pid_of(name)) for name in three.worker_names]
        assert sorted(map(min, kept)) == sorted(cores[k % len(cores)] for k in range(3))
        assert all(len(mine) == 1 for mine in kept)
        assert programs.checksum(three.optimizer) == programs.alone(3)
    assert sorted(os.sched_getaffinity(0)) == cores


@pytest.mark.parametrize("workers", [1, 3])
def test_a_probe_costs_at_most_eight_bytes_a_path_and_64(workers):
    with cluster(workers=workers) as some:
        for _ in range(20):
            loss, _ = some.step()
        messages = workers * (some.probes + 1)  # the next probe's are under way
        assert some.bytes_sent + some.bytes_received <= messages * (64 + 8 * loss.size)
        if workers == 1:  # the bytes that are counted are all that there is
            request = _ray_worker.Request(0, loss.size, True, loss).to_bytes()
            report = Report(0.1, 1, 2, loss).to_bytes()
            assert some.bytes_sent + some.bytes_received < messages * (len(request) + len(report))
            assert len(request) + len(report) <= 64 + 8 * loss.size


CASES = {
    "tree": {"plan": "tree"},
    "batch_norm": {"norm": nn.BatchNorm},
    "line_search": {"meta_learning_rate": 0.1},
    "momentum": {"update": "momentum"},
    "sampling": {"plan": "tree", "sampling": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_update(case):
    make = functools.partial(programs.make, **CASES[case])
    with cluster(make, workers=2, check_every=1) as two:
        for _ in range(6):
            two.step()
        assert programs.checksum(two.optimizer) == programs.alone(6, **CASES[case])


STEPS = {
    "replicas": functools.partial(programs.step, forward_pass=2, marketplace_replica=2),
    "v1": programs.keep_best,
}


@pytest.mark.parametrize("case", STEPS)
def test_other_kinds_of_steps(case):
    with cluster(step=STEPS[case], workers=2, check_every=1) as two:
        for _ in range(5):
            two.step()
        assert programs.checksum(two.optimizer) == programs.alone(5, STEPS[case])


def make_unequal(lock, **options):
    """Make an optimizer; the first worker has two threads and reports ten times its time."""
    if in_worker() and ray.get(lock.first.remote()):
        _follower.evaluate = functools.partial(programs.report_slowly, _follower.evaluate)
        options |= {"threads": 2}
    return programs.make(**options)


@ray.remote(num_cpus=0)
class Lock:
    """Tells who comes first."""

    def __init__(self):
        self.free = True

    def first(self):
        free, self.free = self.free, False
        return free


def test_shares_follow_the_speeds_of_unequal_workers():
    vendors = {"vendors": (4, 200)}
    with cluster(functools.partial(make_unequal, Lock.remote(), **vendors), workers=3) as three:
        for _ in range(40):
            three.step()
        slow, *others = sorted(np.diff(three._balance._bounds))
        assert slow < min(others) / 2
        assert programs.checksum(three.optimizer) == programs.alone(40, **vendors)


def make_on(lock, device):
    """Make an optimizer, the first worker's on another device."""
    first = in_worker() and ray.get(lock.first.remote())
    return programs.make(device=device if first else "cpu")


@pytest.mark.skipif(not programs.gpus(), reason="no GPU here, real or emulated")
def test_a_gpu_beside_a_cpu_takes_the_same_steps():
    make = functools.partial(make_on, Lock.remote(), *programs.gpus()[:1])
    with cluster(make, workers=2, check_every=1) as two:
        for _ in range(20):
            two.step()
        add_one(two)  # takes the steps again, on the CPU


def slow_step(optimizer):
    """Leave time to be killed before, within and after a probe."""
    time.sleep(0.02)
    return programs.step(optimizer)


def test_twenty_killed_workers_lose_nothing():
    rng, killed = random.Random(5), set()
    end = time.monotonic() + 400
    with warnings.catch_warnings(record=True) as caught, cluster(step=slow_step) as four:
        warnings.simplefilter("always")
        while len(killed) < 20 or len(caught) < 20:
            assert time.monotonic() < end, f"{len(killed)} killed, {len(caught)} noticed"
            four.step()
            alive = [pid_of(name) for name in four.worker_names if pid_of(name) not in killed]
            if len(killed) < 20 and len(alive) > 1:
                victim = rng.choice(alive)
                killed.add(victim)
                delay = rng.uniform(0, 0.05)
                threading.Timer(delay, os.kill, (victim, signal.SIGKILL)).start()
        for _ in range(5):
            four.step()
        steps = four.optimizer.global_step
        assert programs.checksum(four.optimizer) == programs.alone(steps)
    messages = [str(warning.message) for warning in caught]
    assert all(re.match(r"RayCluster: worker \d+ \(pid \d+ at .+is gone", m) for m in messages)
    assert {pid_of(message) for message in messages} == killed


def test_without_any_worker_this_process_goes_on(way):
    with cluster(workers=1) as one, pytest.warns(RuntimeWarning, match="will be replaced"):
        one.step()
        one.step()
        assert (one._workers[0].link is not None) == (way == "channels")
        os.kill(pid_of(one.worker_names[0]), signal.SIGKILL)
        time.sleep(0.5)
        for _ in range(5):
            one.step()
        assert programs.checksum(one.optimizer) == programs.alone(7)


def add_one(cluster):
    """Add a worker, and take steps until it has joined."""
    count = len(cluster.worker_names) + 1
    cluster.add_workers(1)
    end = time.monotonic() + 300
    while len(cluster.worker_names) < count:
        assert time.monotonic() < end
        cluster.step()
        time.sleep(0.02)
    cluster.step()


CHECKPOINTED = {  # how often a checkpoint is made
    "from the first weights": ({}, 0),
    "from a checkpoint": ({"replay_steps": 2}, 2),
    "without steps": ({"replay_steps": 0}, 3),
}


@pytest.mark.parametrize("case", CHECKPOINTED)
def test_late_workers_join(case, monkeypatch):
    options, count = CHECKPOINTED[case]
    made = []

    def counted(optimizer):
        made.append(optimizer.global_step)
        return _ray_worker.get_state(optimizer)

    monkeypatch.setattr(_ray, "get_state", counted)
    with cluster(workers=1, check_every=1, **options) as late:
        for _ in range(3):
            late.step()
        add_one(late)
        for _ in range(3):
            late.step()
        add_one(late)
        assert programs.checksum(late.optimizer) == programs.alone(late.optimizer.global_step)
    assert len(made) == count


def step_that_changes_weights(optimizer):
    result = programs.step(optimizer)
    if optimizer.global_step == 2:
        weights = optimizer.marketplace[0].model.state_dict()
        weights["layers.0.bias"] = 0 * weights["layers.0.bias"]
        optimizer.marketplace[0].model.load_state_dict(weights)
    return result


def test_weights_that_are_not_on_record_are_told_to_who_adds_a_worker():
    pattern = (
        r"expected losses, received ValueError: replay of a late worker: .+ from worker 1 \(pid"
    )
    with cluster(step=step_that_changes_weights, workers=1) as one:
        for _ in range(3):
            one.step()
        with pytest.raises(RuntimeError, match=pattern):
            add_one(one)
    with cluster(step=step_that_changes_weights, workers=1, replay_steps=0) as one:
        for _ in range(3):
            one.step()
        add_one(one)


@pytest.mark.usefixtures("way")
def test_a_worker_that_hangs_is_replaced():
    with cluster(workers=2) as two:
        two.step()
        two.timeout = 3.0
        os.kill(pid_of(two.worker_names[1]), signal.SIGSTOP)
        with pytest.warns(RuntimeWarning, match=r"no answer in 3 s"):
            for _ in range(3):
                two.step()
        assert programs.checksum(two.optimizer) == programs.alone(4)
