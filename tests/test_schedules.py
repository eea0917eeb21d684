"""Learning-rate schedules by their formulas, and what they refuse."""

import math

import numpy as np
import pytest
from marketplace import schedules
from markets import MLP, build


def test_constant():
    assert [schedules.constant(0.3)(step) for step in (0, 7, 10**9)] == [0.3] * 3


def test_exponential():
    rate = schedules.exponential(0.2, 0.25)
    assert [rate(step) for step in range(4)] == pytest.approx([0.2, 0.15, 0.1125, 0.084375])


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_cosine(final):
    rate = schedules.cosine(0.4, 8, final=final)
    for step in range(9):
        wave = (1 + math.cos(math.pi * step / 8)) / 2
        assert rate(step) == pytest.approx(0.4 * (final + (1 - final) * wave), abs=1e-15)
    assert rate(0) == 0.4
    assert rate(8) == rate(9) == rate(10**6) == pytest.approx(0.4 * final, abs=1e-15)


def test_cosine_after_a_warmup():
    rate = schedules.cosine(0.4, 12, warmup=4)
    assert [rate(step) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    plain = schedules.cosine(0.4, 8)
    assert [rate(step + 4) for step in range(9)] == [plain(step) for step in range(9)]


def test_distance():
    specs = build(MLP, (2, 2, 2)).specs
    rate = schedules.distance(specs, start=0.5)
    before = joined(specs)
    assert rate(0) == pytest.approx(0.5 * np.linalg.norm(before) / math.sqrt(3))
    assert rate(3) == pytest.approx(0.5 * np.linalg.norm(before) / math.sqrt(12))
    state = specs[1].model.state_dict()
    for factor, expected in ((5.0, 4.0), (1.0, 4.0)):  # the way back does not count
        specs[1].model.load_state_dict({key: factor * value for key, value in state.items()})
        moved = expected * np.linalg.norm(np.concatenate([v.ravel() for v in state.values()]))
        assert moved > 0.5 * np.linalg.norm(before)
        assert rate(4) == pytest.approx(moved / math.sqrt(15))


def joined(specs):
    values = [value for spec in specs for value in spec.model.state_dict().values()]
    return np.concatenate([value.ravel() for value in values])


def test_distance_of_nothing():
    specs = build(MLP, (2, 2, 2)).specs
    with pytest.raises(ValueError, match="distance: expected start above 0, received 0"):
        schedules.distance(specs, start=0)
    with pytest.raises(ValueError, match="distance: expected at least one Spec"):
        schedules.distance([])
    for spec in specs:
        state = spec.model.state_dict()
        spec.model.load_state_dict({key: np.zeros_like(value) for key, value in state.items()})
    with pytest.raises(ValueError, match="distance: expected weights that are not all 0"):
        schedules.distance(specs)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: schedules.constant(-1), ValueError, "constant: expected rate of at least 0"),
        (lambda: schedules.constant("a"), TypeError, "constant: expected rate as a number"),
        (lambda: schedules.exponential(0.1, 1), ValueError, "exponential: expected decay below 1"),
        (lambda: schedules.exponential(0.1, math.nan), ValueError, "exponential: expected decay"),
        (lambda: schedules.cosine(0.1, 0), ValueError, "cosine: expected steps of at least 1"),
        (lambda: schedules.cosine(0.1, 2.5), TypeError, "cosine: expected steps as an integer"),
        (lambda: schedules.cosine(0.1, 5, final=2), ValueError, "cosine: expected final from 0"),
        (lambda: schedules.cosine(0.1, 5, warmup=5), ValueError, "cosine: expected warmup below 5"),
    ],
)
def test_refusals(make, error, words):
    with pytest.raises(error, match=f"{words}.*, received "):
        make()
