"""What the ranks of the MPI tests run: ``mpiexec -n N python mpi_program.py CASE``."""

import functools
import json
import os
import signal
import sys
import time

import numpy as np
import programs
from marketplace import _core, nn
from marketplace.distributed import mpi
from mpi4py import MPI

RANK = mpi.rank()
MADE = {
    "tree": {"plan": "tree"},
    "batch_norm": {"norm": nn.BatchNorm},
    "line_search": {"meta_learning_rate": 0.1},
    "market": {"vendors": (4, 11 if RANK == 1 else 12)},
    "seed": {"seed": 2 if RANK == 1 else 1},
    "node": {"plan": "node", "vendors": (1, 3)},
    "sampling": {"plan": "tree", "sampling": 2},
    "threads": {"threads": 1 + RANK % 2},
    "devices": {"device": programs.gpus()[0] if RANK == 1 and programs.gpus() else "cpu"},
    "slow": {"vendors": (4, 200)},
}
STEPS = {
    "replicas": functools.partial(programs.step, forward_pass=2, marketplace_replica=2),
    "v1": programs.keep_best,
}


def make_for(case):
    """Make the optimizer of a case; some differ in rank 1."""
    if case == "version" and RANK == 1:
        _core.__version__ = "0.0.9"
    optimizer = programs.make(**MADE.get(case, {}))
    if case == "weights" and RANK == 1:
        shift(optimizer)
    return optimizer


def shift(optimizer):
    """Change one array's weights by the least there is."""
    state = optimizer.marketplace[0].model.state_dict()
    state["layers.0.bias"] = np.nextafter(state["layers.0.bias"], np.float32(1))
    optimizer.marketplace[0].model.load_state_dict(state)


def fail_here(*arguments):
    """Stand for an engine that finds no memory."""
    raise MemoryError("cannot allocate 8 GiB")


def disturb(case, optimizer):
    """Let rank 1 go astray at step 3."""
    if RANK != 1 or optimizer.global_step != 3:
        return
    if case == "drift":
        shift(optimizer)
    elif case == "memory":
        optimizer._sharing._evaluate.__globals__["evaluate"] = fail_here
    elif case == "hang":
        time.sleep(1000)
    elif case == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif case == "disk":
        raise OSError("no space left")


def main(case):
    """Train 50 steps; tell weights, bytes per probe, paths, and how many are this rank's."""
    optimizer = make_for(case)
    step = STEPS.get(case, programs.step)
    timeout = 4.0 if case == "hang" else 60.0
    with mpi.share(optimizer, timeout=timeout, check_every=5) as ranks:
        if case == "slow" and RANK == 1:
            inside = ranks._evaluate.__globals__
            inside["evaluate"] = functools.partial(programs.report_slowly, inside["evaluate"])
        for _ in range(programs.STEPS):
            disturb(case, optimizer)
            loss, _ = step(optimizer)
        first, last = ranks._bounds[RANK : RANK + 2]
        sent = ranks.bytes_sent / ranks.probes
        mine = programs.checksum(optimizer), sent, loss.size, last - first
    everyone = MPI.COMM_WORLD.gather(mine)
    if RANK == 0:  # lines of several ranks could mix
        print(json.dumps(everyone))


if __name__ == "__main__":
    main(sys.argv[1])
