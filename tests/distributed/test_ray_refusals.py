"""Ray actors that go astray: errors that name them, and no hang."""

import functools
import os
import signal
import socket
import time
import warnings

import numpy as np
import programs
import pytest
from rays import MARKS, cluster, in_worker

pytestmark = MARKS


def make_otherwise(**changes):
    """Make an optimizer that differs in the workers."""
    return programs.make(**changes) if in_worker() else programs.make()


def make_other_version():
    if in_worker():
        from marketplace import _core

        _core.__version__ = "0.0.9"
    return programs.make()


MISMATCHES = {
    "market": ({"vendors": (4, 11)}, r"expected market .+\"vendor_count\": 12.+: 11"),
    "seed": ({"seed": 2}, r"expected seed 1, as here, received 2"),
    "options": ({"update": "adam"}, r"expected options .+'unit'.+received .+'adam'"),
    "plan": ({"plan": "tree"}, r"expected options .+'star'.+received .+'tree'"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_worker_with_another_market_is_refused(case):
    changes, message = MISMATCHES[case]
    with pytest.raises(RuntimeError, match=rf"RayCluster: {message}.* in worker 0 \(pid \d+"):
        cluster(functools.partial(make_otherwise, **changes), workers=1)


def test_a_worker_of_another_version_is_refused():
    pattern = r"expected version .+, as here, received 0\.0\.9 in worker 0 \(pid \d+"
    with pytest.raises(RuntimeError, match=pattern):
        cluster(make_other_version, workers=1)


def step_that_drifts(optimizer):
    result = programs.step(optimizer)
    if in_worker() and optimizer.global_step == 3:
        state = optimizer.marketplace[0].model.state_dict()
        state["layers.0.bias"] = np.nextafter(state["layers.0.bias"], np.float32(1))
        optimizer.marketplace[0].model.load_state_dict(state)
    return result


def test_drift_stops_the_run_and_names_the_worker():
    pattern = r"weights with checksum [0-9a-f]{8} at step 4, as here, .+ from worker 0 \(pid"
    with cluster(step=step_that_drifts, workers=1, check_every=2) as one:
        for _ in range(4):
            one.step()
        with pytest.raises(RuntimeError, match=pattern):
            one.step()


def step_without_memory(last, optimizer):
    if in_worker() and optimizer.global_step == last:
        raise MemoryError("cannot allocate 8 GiB")
    return programs.step(optimizer)


def test_a_worker_out_of_memory_is_named():
    pattern = r"received MemoryError: cannot allocate 8 GiB from worker 0 \(pid"
    with cluster(step=functools.partial(step_without_memory, 3), workers=2) as two:
        for _ in range(3):
            two.step()
        with pytest.raises(RuntimeError, match=pattern):
            two.step()


def make_and_die():
    if in_worker():
        os.kill(os.getpid(), signal.SIGKILL)
    return programs.make()


def test_workers_that_die_before_they_work_end_the_run():
    """As when the system's out-of-memory killer ends every one of them."""
    with (
        warnings.catch_warnings(),
        pytest.raises(RuntimeError, match=r"received 5 in a row that did not, the last one worker"),
    ):
        warnings.simplefilter("ignore")
        cluster(make_and_die, workers=1)


def make_and_fail():
    if in_worker():
        raise FileNotFoundError("no digits here")
    return programs.make()


def test_a_worker_that_cannot_start_is_named():
    with pytest.raises(RuntimeError, match=r"FileNotFoundError: .*no digits here from worker 0"):
        cluster(make_and_fail, workers=1)


def test_workers_that_find_no_place_are_missed():
    pattern = r"expected 1 workers within 2 s, received 0; the cluster has 6 CPUs"
    with pytest.raises(TimeoutError, match=pattern):
        cluster(workers=1, timeout=2.0, worker_options={"num_cpus": 100})


@pytest.mark.parametrize("plan", ["node", "scatter"])
def test_plans_that_cannot_be_shared_are_refused(plan):
    with pytest.raises(ValueError, match=rf"RayCluster: expected plan 'tree' .+'{plan}'"):
        cluster(functools.partial(programs.make, plan, vendors=(1, 3)))


def test_classes_are_refused():
    with cluster(workers=1) as one:
        one.optimizer.classes = [0, 1]
        with pytest.raises(ValueError, match="expected no classes with shared probes"):
            one.step()


def test_an_address_beside_a_running_ray_is_refused():
    with pytest.raises(ValueError, match="expected no address after ray.init"):
        cluster(address="127.0.0.1:6379")


def test_an_unreachable_address_fails_soon():
    from marketplace.distributed import _ray_connect

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"a Ray cluster at 127.0.0.1:{port}, received"):
        _ray_connect.check_reachable(f"127.0.0.1:{port}")
    assert time.monotonic() - start < 10
    with pytest.raises(ValueError, match="expected an address as host:port"):
        _ray_connect.check_reachable("nowhere")
