"""Learning while answering: the learner, its weights and its streams."""

import itertools
import pathlib
import re

import marketplace as mp
import numpy as np
import pytest
import reference
import reference_market as oracle
from hypothesis import given
from hypothesis import strategies as st
from marketplace._weights import choose
from marketplace.continual import Learner, label_weights
from markets import (
    AMPLITUDE,
    MLP,
    batch,
    build,
    close,
    close_parameters,
    fresh_seeds,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)
from refusals import refusal

VENDORS = (3, 4, 2)


def make(seeds=None, **options):
    built = build(MLP, VENDORS)
    return built, optimizer(built, seeds, **({"plan": "scatter", "seed": 3} | options))


def samples(count=20, seed=1):
    return batch((count, 6), seed=seed)


# -- plan node -------------------------------------------------------------------------------------


def test_node_teaches_the_base_weights_that_answer():
    built, opt = make(plan="node")
    learner = Learner(opt, new_classes=[2])
    x, y = samples()
    answer = learner.answer(x)
    same_bits(answer.logits, np.asarray(mp.straight_forward(built.specs, x)))
    assert answer.paths is None
    y = np.where(np.arange(20) < 5, -1, y)
    lesson = learner.learn(answer, y, ignore_index=-1)
    again, other = make(plan="node")
    other.step(*other.probe(x, y, ignore_index=-1))
    same_states(states(built), states(again))
    expected = np.asarray(mp.functional.cross_entropy(answer.logits, y, "none", ignore_index=-1))
    close(lesson.loss, expected, relative=1e-6)
    assert lesson.samples.tolist() == list(range(5, 20)) and not lesson.paths.any()
    assert lesson.paths.shape == (15, 3) and not lesson.correct[:5].any()
    same_bits(lesson.scores, lesson.loss[5:])


def test_node_learns_a_class_from_a_few_of_each_batch():
    rng = np.random.default_rng(1)
    centres = 3 * rng.normal(size=(3, 6)).astype(np.float32)

    def draw(labels):
        return centres[labels] + rng.normal(size=(len(labels), 6)).astype(np.float32), labels

    opt = make(plan="node", learning_rate=0.01)[1]
    for _ in range(100):
        opt.train_step(*draw(rng.integers(0, 2, 60)))
    learner = Learner(opt, new_classes=[2])
    lessons = list(learner.follow(draw(np.repeat([0, 1, 2], [28, 28, 4])) for _ in range(100)))
    before, after = lessons[0].correct, np.mean([one.correct for one in lessons[-10:]], axis=0)
    assert before[:56].mean() > 0.9 and before[56:].mean() < 0.5
    assert after[:56].mean() > 0.9 and after[56:].mean() > 0.9


# -- weights ---------------------------------------------------------------------------------------


def test_every_label_has_the_same_say():
    y = np.array([0, 0, 0, 0, 1, 2, 2, 0])
    weights = label_weights(y)
    assert weights.dtype == np.float32
    expected = np.array([8 / (3 * np.sum(y == label)) for label in y])
    close(weights, expected, relative=1e-7)
    for label in range(3):
        assert weights[y == label].sum() == pytest.approx(8 / 3)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_the_mean_weight_is_one(labels):
    assert label_weights(np.array(labels)).mean() == pytest.approx(1, rel=1e-6)


def test_new_classes_weigh_more():
    y = np.array([0, 1, 2, 2])
    plain = label_weights(y, balance=False, new_classes=[2, 1], new_class_weight=5)
    assert plain.tolist() == [1, 5, 5, 5]
    both = label_weights(y, new_classes=[2], new_class_weight=5)
    close(both, label_weights(y) * np.array([1, 1, 5, 5]), relative=1e-7)


def test_a_label_that_does_not_count_weighs_nothing():
    y = np.array([0, -1, 1, 1, -1])
    weights = label_weights(y, ignore_index=-1)
    assert weights[[1, 4]].tolist() == [0, 0]
    close(weights[[0, 2, 3]], label_weights(np.array([0, 1, 1])), relative=1e-7)
    assert not label_weights(np.array([7, 7]), ignore_index=7).any()


@pytest.mark.parametrize(
    "y, options, error, words",
    [
        (np.zeros((2, 2), int), {}, ValueError, ("(B,)", "(2, 2)")),
        (np.zeros(3), {}, TypeError, ("integer",)),
        (np.zeros(3, int), {"new_class_weight": -1}, ValueError, ("new_class_weight",)),
        (np.zeros(3, int), {"new_class_weight": np.nan}, ValueError, ("new_class_weight",)),
    ],
)
def test_weights_of_nonsense(y, options, error, words):
    with refusal(error, "label_weights", *words):
        label_weights(y, **options)


# -- answers ---------------------------------------------------------------------------------------


def test_paths_answer_without_a_control_variate():
    seeds = fresh_seeds(VENDORS)
    built, opt = make(seeds)
    x, _ = samples()
    answer = Learner(opt).answer(x)
    assert np.array_equal(answer.paths, oracle.scatter_paths(3, 0, 20, VENDORS))
    deltas = built.deltas(seeds, AMPLITUDE)
    expected = oracle.forward_with_paths(built.models, built.weights, deltas, x, answer.paths)
    close(answer.logits, expected)


def test_the_base_weights_answer_with_one():
    built, opt = make(control_variate=True)
    x, _ = samples()
    answer = Learner(opt).answer(x)
    same_bits(answer.logits, np.asarray(mp.straight_forward(built.specs, x)))
    assert answer.paths is None


def test_answering_changes_nothing():
    built, opt = make(control_variate=True)
    before, seeds = states(built), seeds_of(opt)
    for _ in range(2):
        Learner(opt).answer(samples()[0])
    same_states(before, states(built))
    assert all(np.array_equal(a, b) for a, b in zip(seeds, seeds_of(opt), strict=True))
    assert opt.global_step == 0


# -- lessons ---------------------------------------------------------------------------------------


class Expected:
    """A market and what the oracle says of a batch of it, in float64."""

    def __init__(self, **options):
        self.seeds = fresh_seeds(VENDORS)
        self.built, self.opt = make(self.seeds, **options)
        self.x, self.y = samples()
        self.weights = self.built.weights
        self.deltas = self.built.deltas(self.seeds, AMPLITUDE)
        self.label_weights = label_weights(self.y) * np.where(self.y == 1, 3.0, 1.0)

    def losses(self, chosen, paths):
        models, x, y = self.built.models, self.x[chosen], self.y[chosen]
        logits = oracle.forward_with_paths(models, self.weights, self.deltas, x, paths)
        rows = range(len(y))
        return np.array([reference.cross_entropy(logits[b : b + 1], y[b : b + 1]) for b in rows])

    def check_step(self, score, paths, mode):
        direction = oracle.directions(score, paths, self.deltas, mode)
        close_parameters(self.built, oracle.step(self.weights, direction, [0.3] * 3))

    def teach(self, **options):
        learner = Learner(self.opt, new_classes=[1], new_class_weight=3, **options)
        answer = learner.answer(self.x)
        lesson = learner.learn(answer, self.y)
        same_bits(lesson.logits, answer.logits)
        assert np.array_equal(lesson.correct, answer.logits.argmax(axis=1) == self.y)
        return lesson


@pytest.mark.parametrize("mode", ["whole", "per_spec"])
def test_a_lesson_from_the_paths_that_answered(mode):
    expected = Expected()
    paths = oracle.scatter_paths(3, 0, 20, VENDORS)
    lesson = expected.teach(unit_vector_mode=mode)
    own = expected.losses(np.arange(20), paths)
    close(lesson.loss, own)
    close(lesson.scores, own * expected.label_weights)
    assert lesson.samples.tolist() == list(range(20)) and np.array_equal(lesson.paths, paths)
    expected.check_step(own * expected.label_weights, paths, mode)


@pytest.mark.parametrize("mode", ["whole", "per_spec"])
@pytest.mark.parametrize("share, count", [(0.5, 10), (1.7, 34), (0.01, 2)])
@pytest.mark.parametrize("focus", [False, True])
def test_a_lesson_under_the_control_variate(mode, share, count, focus):
    expected = Expected(control_variate=True)
    base = expected.losses(np.arange(20), np.zeros((20, 3), int))
    lesson = expected.teach(unit_vector_mode=mode, probe_share=share, focus=focus)
    close(lesson.loss, base)
    weights = expected.label_weights
    shares = weights * (0.02 + 1 - np.exp(-base)) if focus else np.ones(20)
    shares /= shares.sum()
    # systematic sampling: every sample its share of the paths, rounded up or down
    times = np.bincount(lesson.samples, minlength=20)
    assert times.sum() == count and np.abs(times - count * shares).max() < 1
    assert (np.diff(lesson.samples) >= 0).all()
    paths = oracle.scatter_paths(3, 0, count, VENDORS)
    assert np.array_equal(lesson.paths, paths)
    gain = expected.losses(lesson.samples, paths) - base[lesson.samples]
    score = gain * (weights / shares / 20)[lesson.samples]
    close(lesson.scores, score, relative=1e-4)
    expected.check_step(lesson.scores, paths, mode)


def test_the_mean_over_many_choices_is_that_of_all_samples():
    """Importance sampling changes what is run, not what is estimated."""
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.1, 1, 12)
    probability /= probability.sum()
    values, totals = rng.normal(size=12), []
    for generation in range(4000):
        chosen = choose(probability, 5, 9, generation)
        totals.append((values[chosen] / probability[chosen]).mean())
    assert np.mean(totals) == pytest.approx(values.sum(), abs=5 * np.std(totals) / 4000**0.5)
    assert np.std(totals) > 0.1


def test_choices_are_a_function_of_seed_and_generation():
    probability = np.full(40, 1 / 40)
    draw = lambda *key: choose(probability, 7, *key).tolist()  # noqa: E731
    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(1, generation)) for generation in range(20)}) > 3
    assert any(draw(1, generation) != draw(2, generation) for generation in range(5))


def test_what_weighs_nothing_is_never_run():
    _, opt = make(control_variate=True)
    x, y = samples()
    learner = Learner(opt, new_classes=[1], new_class_weight=0, probe_share=3)
    lesson = learner.learn(learner.answer(x), y)
    assert (y[lesson.samples] != 1).all()


@pytest.mark.parametrize("control_variate", [False, True])
def test_all_samples_alike_are_a_training_step(control_variate):
    (one, first), (two, second) = (make(control_variate=control_variate) for _ in range(2))
    x, y = samples()
    first.train_step(x, y)
    learner = Learner(second, balance_labels=False, probe_share=1, focus=False)
    learner.learn(learner.answer(x), y)
    for a, b in zip(one.weights, two.weights, strict=True):
        for key in a:
            close(a[key], b[key])


def test_costs():
    assert Learner(make()[1]).probe_count(256) == 0
    assert Learner(make(control_variate=True)[1]).probe_count(256) == 128
    assert Learner(make(control_variate=True)[1], probe_share=0).probe_count(256) == 2


@pytest.mark.parametrize("focus", [False, True])
def test_unknown_labels_are_never_run(focus):
    _, opt = make(control_variate=True)
    x, y = samples()
    unknown = np.arange(20) % 3 == 0
    learner = Learner(opt, probe_share=2, focus=focus)
    lesson = learner.learn(learner.answer(x), np.where(unknown, -1, y), ignore_index=-1)
    assert not unknown[lesson.samples].any() and len(lesson.samples) == 40
    assert not lesson.loss[unknown].any() and not lesson.correct[unknown].any()


def test_unknown_labels_teach_nothing():
    (one, first), (two, second) = (make() for _ in range(2))
    x, y = samples()
    unknown = np.arange(20) % 3 == 0
    learner = Learner(first)
    lesson = learner.learn(learner.answer(x), np.where(unknown, -1, y), ignore_index=-1)
    assert not lesson.loss[unknown].any() and not lesson.correct[unknown].any()
    answer = Learner(second).answer(x)
    loss = mp.functional.cross_entropy(answer.logits, y, "none")[~unknown]
    second.step(loss * label_weights(y[~unknown]), answer.paths[~unknown])
    same_states(states(one), states(two))


def test_it_learns_a_new_class():
    """Old: two classes told apart by x[0]; new: a third one, far from both."""
    rng = np.random.default_rng(0)

    def stream(new):
        while True:
            x = rng.normal(size=(64, 6)).astype(np.float32)
            y = (x[:, 0] > 0).astype(np.int32)
            x[:new, 5] += 4
            y[:new] = 2
            yield x, y

    built, opt = make(control_variate=True, learning_rate=0.1, probe_scale=0.5)
    list(itertools.islice(Learner(opt).follow(stream(0)), 150))
    x, y = next(stream(32))
    before = np.asarray(mp.straight_forward(built.specs, x)).argmax(axis=1) == y
    learner = Learner(opt, new_classes=[2], new_class_weight=2)
    lessons = list(itertools.islice(learner.follow(stream(8)), 200))
    after = np.asarray(mp.straight_forward(built.specs, x)).argmax(axis=1) == y
    assert before[:32].mean() < 0.5 < 0.9 < after[:32].mean()
    assert after[32:].mean() > before[32:].mean() - 0.1 and before[32:].mean() > 0.8
    assert np.mean([lesson.correct for lesson in lessons[-10:]]) > 0.85


def test_the_guide_runs_as_written():
    guide = (pathlib.Path(__file__).parents[1] / "docs" / "continual.md").read_text()
    code = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(code) == 1
    names = {}
    exec(compile(code[0], "continual.md", "exec"), names)
    assert names["optimizer"].global_step == 20
    assert names["lesson"].correct.shape == (256,) and len(names["lesson"].samples) == 256
    assert names["lesson"].correct.mean() > 0.4  # a quarter by guessing
