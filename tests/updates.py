"""What the tests of updates share: minibatches, and the seeds of replicas by their formula."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference_market as oracle
from markets import VENDORS, batch, same_bits, same_states, seeds_of, states

MASTER = 19


def several(shape, count):
    """Minibatches that differ."""
    return [batch(shape, seed=seed) for seed in range(count)]


def joined(minibatches):
    """The samples of all minibatches in one array."""
    return [np.concatenate(arrays) for arrays in zip(*minibatches, strict=True)]


def replica_seeds(replica, generation=0):
    """Seeds of every spec by the documented formula."""
    return [
        np.array(oracle.derive_seeds(MASTER, generation, spec, count, replica), np.uint64)
        for spec, count in enumerate(VENDORS)
    ]


@contextlib.contextmanager
def refused(opt, built, error, words):
    """Expect an error, and a market, vendors and counters left as they were."""
    before, seeds, step = states(built), seeds_of(opt), opt.global_step
    with pytest.raises(error, match=words):
        yield
    same_states(before, states(built))
    assert opt.global_step == step and opt.replica == 0
    for a, b in zip(seeds, seeds_of(opt), strict=True):
        same_bits(a, b)


def in_threads(*works):
    """Run them side by side; the first error is raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result()
