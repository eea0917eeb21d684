"""Bad input while learning: a clear error, and nothing learnt that should not be."""

import numpy as np
import pytest
from marketplace.continual import Learner
from markets import MLP, batch, build, conv, optimizer, same_states, states
from refusals import refusal

VENDORS = (3, 4, 2)


def make(**options):
    built = build(MLP, VENDORS)
    return built, optimizer(built, **({"plan": "scatter", "seed": 3} | options))


def samples(count=20, seed=1):
    return batch((count, 6), seed=seed)


@pytest.mark.parametrize("plan", ["tree", "star"])
def test_a_learner_of_another_plan(plan):
    with refusal(ValueError, "Learner", "'node' or 'scatter'", repr(plan)):
        Learner(make(plan=plan)[1])


@pytest.mark.parametrize("options", [{"balance_labels": True}, {"new_class_weight": 2}])
def test_node_weighs_samples_alike(options):
    with refusal(ValueError, "Learner", "plan 'node'", *(f"{k}={v}" for k, v in options.items())):
        Learner(make(plan="node")[1], **options)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"new_classes": [-1]}, ValueError, ("new class", "-1")),
        ({"new_classes": ["nine"]}, TypeError, ("new class", "nine")),
        ({"new_class_weight": -2}, ValueError, ("new_class_weight",)),
        ({"probe_share": -0.5}, ValueError, ("probe_share",)),
        ({"probe_share": "half"}, TypeError, ("probe_share",)),
        ({"unit_vector_mode": "both"}, ValueError, ("'whole' or 'per_spec'", "'both'")),
    ],
)
def test_a_learner_of_nonsense(options, error, words):
    with refusal(error, "Learner", *words):
        Learner(make()[1], **options)


def test_an_unknown_class():
    learner = Learner(make()[1], new_classes=[1, 3])
    with refusal(ValueError, "answer", "new classes below 3", "[3]"):
        learner.answer(samples()[0])


def test_outputs_without_classes():
    built = build([[conv(1, 2, 3)]], (2,))
    with refusal(ValueError, "answer", "(B, classes)", "(4, 2, 3, 3)"):
        Learner(optimizer(built, plan="scatter")).answer(np.zeros((4, 1, 5, 5), np.float32))


class Taught:
    """A learner with an answer at hand, and a check that a refused lesson changed nothing."""

    def __init__(self):
        self.built, self.opt = make(control_variate=True)
        self.learner = Learner(self.opt)
        self.x, self.y = samples()
        self.answer = self.learner.answer(self.x)
        self.before = states(self.built)

    def assert_unchanged(self):
        same_states(self.before, states(self.built))
        assert self.opt.generation == self.opt.global_step == 0
        self.learner.learn(self.answer, self.y)  # still possible


@pytest.fixture
def taught():
    found = Taught()
    yield found
    found.assert_unchanged()


@pytest.mark.parametrize(
    "x, error, words",
    [
        (np.zeros((0, 6), np.float32), ValueError, ("answer", "an empty batch")),
        (np.zeros((4, 7), np.float32), ValueError, ("linear", "(B, 7)")),
        (np.full((4, 6), np.nan, np.float32), ValueError, ("finite",)),
        (np.zeros((4, 6), complex), TypeError, ("complex128",)),
    ],
)
def test_a_batch_that_cannot_be_answered(taught, x, error, words):
    with refusal(error, *words):
        taught.learner.answer(x)


@pytest.mark.parametrize(
    "y, error, words",
    [
        (np.zeros(19, int), ValueError, ("(20,)", "(19,)")),
        (np.zeros((20, 1), int), ValueError, ("(20,)", "(20, 1)")),
        (np.zeros(20), TypeError, ("integer",)),
        (np.full(20, 3), ValueError, ("labels from 0 to 2", "3 at sample 0")),
    ],
)
def test_labels_that_do_not_fit(taught, y, error, words):
    with refusal(error, *words):
        taught.learner.learn(taught.answer, y)


def test_no_label_that_counts(taught):
    with refusal(ValueError, "learn", "ignore_index", "20 labels"):
        taught.learner.learn(taught.answer, np.full(20, -1), ignore_index=-1)


def test_an_answer_of_earlier_vendors():
    _, opt = make()
    learner = Learner(opt)
    x, y = samples()
    early = learner.answer(x)
    learner.learn(learner.answer(x), y)
    with refusal(RuntimeError, "learn", "present vendors", "draw 0"):
        learner.learn(early, y)


def test_an_empty_stream():
    with refusal(ValueError, "follow", "at least one batch", "empty"):
        list(Learner(make()[1]).follow([]))


def test_a_stream_without_the_new_class():
    learner = Learner(make()[1], new_classes=[1, 2])
    x, y = samples()
    stream = [(x, y % 2), (x, y % 2)]
    lessons = learner.follow(stream)
    assert len([next(lessons), next(lessons)]) == learner.optimizer.global_step == 2
    with refusal(ValueError, "follow", "new classes [1, 2]", "2 batches without [2]"):
        next(lessons)


def test_a_stream_with_it():
    learner = Learner(make()[1], new_classes=[1, 2])
    assert len(list(learner.follow([samples(seed=1), samples(seed=2)]))) == 2
