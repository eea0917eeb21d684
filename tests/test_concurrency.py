"""Threads and processes of the caller: what they share, and what they leave each other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import marketplace as mp
import numpy as np
import pytest
from emulated import IS_REAL
from markets import MLP, batch, build, linear, optimizer, same_bits
from updates import in_threads


def test_many_python_threads_at_once():
    """Calls share the default engine; separate optimizers have engines of their own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3, 9, 9)).astype(np.float32)
    weight = rng.normal(size=(5, 4, 3, 3, 3)).astype(np.float32)
    base = build(MLP, (2, 2, 2))
    rows, labels = batch((20, 6))

    def work(_):
        convolved = mp.functional.conv2d(x, weight)
        straight = mp.straight_forward(base.specs, rows)
        built = build(MLP, (2, 3, 2))
        loss, _ = optimizer(built, seed=3, threads=2).probe(rows, labels)
        return np.asarray(convolved), np.asarray(straight), loss

    expected = work(0)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(work, range(40)):
            for mine, theirs in zip(result, expected, strict=True):
                same_bits(mine, theirs)


def test_threads_take_turns_with_an_optimizer():
    shared = optimizer(build(MLP, (2, 3, 2)), seed=3, plan="star")
    rows, labels = batch((8, 6))

    def learn():
        for _ in range(60):
            shared.train_step(rows, labels)

    def look():
        for _ in range(60):
            loss, paths = shared.probe(rows, labels)
            assert (loss.shape, paths.shape) == ((5,), (5, 3))
            assert len(shared.spec_context[1].seeds) == 3
            shared.learning_rate = 0.1

    in_threads(learn, learn, look)
    assert shared.global_step == 120


INTERRUPTED = """
import signal
import numpy as np
import marketplace as mp
optimizer = mp.Optimizer([mp.Spec(mp.nn.Model(mp.nn.Linear(6, 5)), 3)], 0.1, seed=1, threads=1)
x, y = np.ones((16, 6), np.float32), np.arange(16) % 5
signal.signal(signal.SIGALRM, signal.default_int_handler)
for _ in range(30):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        while True:
            optimizer.train_step(x, y)
    except KeyboardInterrupt:
        assert optimizer.global_step == optimizer._native.generation, "a step was not counted"
assert optimizer.global_step > 0
"""


def test_steps_that_are_interrupted_are_counted_where_they_were_taken():
    run_alone(INTERRUPTED)


def test_answers_are_of_one_set_of_weights():
    built = build([[linear(64, 64)], [linear(64, 64)]], (2, 2))
    shared = mp.Optimizer(built.specs, 1.0, seed=1)
    ones = [
        {key: np.ones(value.shape, np.float32) for key, value in spec.model.state_dict().items()}
        for spec in built.specs
    ]
    for spec, values in zip(built.specs, ones, strict=True):
        spec.model.load_state_dict({key: 0 * value for key, value in values.items()})
    x = np.ones((4, 64), np.float32)

    def learn():
        for _ in range(200):
            shared.update_weights(ones, [1.0, 1.0])
            shared.update_weights(ones, [-1.0, -1.0])

    def answer():
        for _ in range(400):
            values = np.unique(np.asarray(mp.straight_forward(built.specs, x)))
            assert values.tolist() in ([0.0], [65.0 * 64 + 1])

    in_threads(learn, answer)


# -- processes ------------------------------------------------------------------------------------


FORK = """
import multiprocessing, os, sys, threading, warnings
import numpy as np
import marketplace as mp
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks with threads
weight = np.ones((4, 3, 3, 3), np.float32)
x = np.ones((64, 3, 12, 12), np.float32)
market = [mp.Spec(mp.nn.Model(mp.nn.Linear(6, 5)), 3)]
optimizer = mp.Optimizer(market, 0.1, seed=1, threads=2)
rows, labels = np.ones((16, 6), np.float32), np.arange(16) % 5

def work(_=None):
    return mp.functional.conv2d(x, weight), np.asarray(optimizer.probe(rows, labels)[0])

def same(results):
    return all(np.array_equal(a, b) for a, b in zip(results, before, strict=True))

before = work()
"""
IN_CHILD = {
    "many calls": "good = all(same(work()) for _ in range(30))",
    "a thread of its own first": """
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
good = same(work()) and same(work())""",
    "an optimizer that ends there": "good = same(work()); del optimizer, market",
    "never": "good = True",
}


on_cpu = pytest.mark.skipif(IS_REAL, reason="a GPU's runtime does not survive a fork")


@on_cpu
@pytest.mark.parametrize("name", IN_CHILD)
def test_a_forked_process_computes_too(name):
    run_alone(
        f"{FORK}\nchild = os.fork()\nif child == 0:\n"
        + "\n".join("    " + line for line in IN_CHILD[name].splitlines())
        + """
    sys.exit(0 if good else 3)
_, status = os.waitpid(child, 0)
assert same(work())
sys.exit(os.waitstatus_to_exitcode(status))"""
    )


@on_cpu
def test_a_pool_of_forked_processes_computes_too():
    run_alone(f"""{FORK}
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(same(result) for result in pool.map(work, range(6)))""")


def run_alone(program):
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
