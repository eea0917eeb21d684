"""Shares follow the speeds that were measured, and cost no more bytes than they say."""

import numpy as np
import programs
import pytest
from marketplace.distributed._balance import RECUT, Balance
from marketplace.distributed._gathered import Gathered
from marketplace.distributed._report import HEAD, Report

SHAPE = (6,)


@pytest.fixture
def native():
    return programs.make(vendors=(2, 2000))._native


def run(balance, native, speeds, probes):
    """Let members of these speeds evaluate some probes; give the last shares' sizes."""
    for _ in range(probes):
        bounds = balance.cut(native, SHAPE, list(speeds))
        costs = np.diff(bounds).astype(float)  # nearly: all but one path differ in the last spec
        for (member, speed), cost in zip(speeds.items(), costs, strict=True):
            balance.note(member, cost / speed)
    return np.diff(bounds)


def test_shares_settle_at_the_measured_speeds(native):
    balance = Balance()
    first = run(balance, native, {"a": 1.0, "b": 3.0}, 1)
    assert abs(first[0] - first[1]) <= 4  # nothing is known yet
    last = run(balance, native, {"a": 1.0, "b": 3.0}, 3 * RECUT)
    assert 2.9 < last[1] / last[0] < 3.1


def test_shares_stay_until_they_are_due(native):
    balance = Balance()
    speeds = {"a": 1.0, "b": 3.0}
    same = [tuple(run(balance, native, speeds, 1)) for _ in range(RECUT)]
    assert len(set(same)) == 1
    assert tuple(run(balance, native, speeds, 1)) != same[0]


def test_a_change_of_members_cuts_at_once_and_strangers_count_as_average(native):
    balance = Balance()
    run(balance, native, {"a": 1.0, "b": 3.0}, 2 * RECUT)
    sizes = run(balance, native, {"a": 1.0, "b": 3.0, "c": 2.0}, 1)
    np.testing.assert_allclose(sizes / sizes.sum(), [1 / 6, 3 / 6, 2 / 6], atol=0.02)


def test_who_notes_the_same_cuts_alike(native):
    one, other = Balance(), Balance()
    speeds = {"a": 1.0, "b": 2.7, "c": 0.3}
    assert (run(one, native, speeds, 40) == run(other, native, speeds, 40)).all()


def test_a_report_is_the_same_after_its_way_through_bytes():
    losses = np.array([1.5, -0.0, np.nan, np.inf], dtype=np.float32)
    data = Report(0.25, 2**32 + 7, 0xDEADBEEF, losses, failed=True).to_bytes()
    assert len(data) == HEAD.size + 4 * losses.size
    back = Report.from_bytes(data)
    assert (back.seconds, back.step, back.checksum, back.failed) == (0.25, 7, 0xDEADBEEF, True)
    assert back.losses.tobytes() == losses.tobytes()


def test_gathered_reports_lie_in_path_order_behind_their_heads():
    bounds, order = [0, 3, 3, 5], np.array([4, 0, 2, 1, 3])  # the second rank has no share
    values = np.arange(5, dtype=np.float32) + 0.5
    room = Gathered(bounds)
    messages = b""
    for rank, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        room.put(Report(0.5 * rank, 7, 11 * rank, values[first:last], failed=rank == 1))
        messages += bytes(room.mine)
    room.all[:] = messages
    assert room.heads() == [(0, 0.0, 7, 0), (1, 0.5, 7, 11), (0, 1.0, 7, 22)]
    expected = np.empty(5, dtype=np.float32)
    expected[order] = values
    np.testing.assert_array_equal(room.losses(order), expected)
