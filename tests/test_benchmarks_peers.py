"""What a run of ``benchmarks.peers`` leaves when it is interrupted, and whose batch lies where."""

import json
import os
import pathlib
import signal
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
OPTIONS = ["--quick", "--cases", "mlp", "--dtype", "float32", "--threads", "1"]


@pytest.fixture
def peers(monkeypatch):
    """Make the benchmark importable, and keep it from this process's threads and from others."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import harness, peers

    monkeypatch.setattr(harness, "limit_threads", lambda threads: None)
    monkeypatch.setattr(harness, "import_times_ms", lambda *_: {"median_ms": 1.0})
    return peers


@pytest.fixture
def last(peers, monkeypatch):
    """Add a contender that comes after ours; what it does is its module's ``prepare``."""
    from benchmarks import contender_ours, contenders

    module = types.ModuleType("benchmarks.contender_last")
    module.load, module.why_not = contender_ours.load, contender_ours.why_not
    monkeypatch.setitem(sys.modules, module.__name__, module)
    one = contenders.Contender("last", "marketplace", "contender_last")
    monkeypatch.setattr(contenders, "ALL", (*contenders.ALL, one))
    monkeypatch.setattr(contenders, "NAMES", [*contenders.NAMES, "last"])
    return module


def interrupt(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def run(peers, kept, *options):
    """Run the benchmark of ours and the other; its status and what it left."""
    status = peers.main([*OPTIONS, "--contenders", "ours,last", "--json", str(kept), *options])
    return status, json.loads(kept.read_text())


def test_what_was_timed_survives_an_interrupt(peers, last, tmp_path, capsys):
    last.prepare = interrupt
    before = signal.getsignal(signal.SIGTERM)
    status, result = run(peers, tmp_path / "kept.json", "--one-by-one")
    assert status == peers.INTERRUPTED and signal.getsignal(signal.SIGTERM) is before
    assert [row["contender"] for row in result["rows"]] == ["ours"]
    assert result["rows"][0]["median_ms"] > 0 and result["rows"][0]["repeats"] == 2
    assert result["missing"] == ["last in mlp float32"]
    printed = capsys.readouterr().out
    assert "mlp        ours " in printed and "\nmissing: last in mlp float32\n" in printed


def test_a_finished_case_survives_without_one_by_one(peers, last, tmp_path):
    from benchmarks import contender_ours

    def prepare(name, problem, *options):
        if problem.case.name == "mlp":
            return contender_ours.prepare(name, problem, *options)
        return interrupt()

    last.prepare = prepare
    status, result = run(peers, tmp_path / "kept.json", "--cases", "mlp,tree-4")
    assert status == peers.INTERRUPTED
    assert {(row["case"], row["contender"]) for row in result["rows"]} == {
        ("mlp", "ours"),
        ("mlp", "last"),
    }
    assert result["missing"] == ["ours in tree-4 float32", "last in tree-4 float32"]
    printed = (tmp_path / "kept.txt").read_text().splitlines()
    assert printed[-1] == "missing: everything in tree-4 float32"


def test_the_file_is_there_while_another_is_prepared(peers, last, tmp_path):
    kept, seen = tmp_path / "kept.json", []

    def prepare(name, problem, *_):
        seen.append(json.loads(kept.read_text()))
        seen.append(kept.with_suffix(".txt").read_text())
        return lambda: problem.losses

    last.prepare = prepare
    status, result = run(peers, kept, "--one-by-one")
    assert status == 0 and result["missing"] == []
    assert [row["contender"] for row in seen[0]["rows"]] == ["ours"]
    assert seen[0]["missing"] == ["last in mlp float32"]
    assert seen[1].splitlines()[-1] == "missing: last in mlp float32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "kept.txt"]


def test_all_are_timed_together_anew(peers, last, monkeypatch, tmp_path):
    turns, right = [], peers.harness.interleaved

    def interleaved(runs, *arguments, **options):
        turns.append([name for name in runs if name != "peak"])
        return right(runs, *arguments, **options)

    monkeypatch.setattr(peers.harness, "interleaved", interleaved)
    last.prepare = lambda name, problem, *_: lambda: problem.losses
    run(peers, tmp_path / "kept.json", "--one-by-one")
    run(peers, tmp_path / "kept.json")
    assert turns == [["ours"], ["ours", "last"], ["ours", "last"]]


def test_an_interrupted_timing_leaves_the_times_of_before(peers, last, tmp_path):
    calls = []

    def prepare(name, problem, *_):
        def evaluate():
            calls.append(name)
            if len(calls) == 5:  # the first run, two to warm up, two of the first repeat
                raise KeyboardInterrupt
            return problem.losses

        return evaluate

    last.prepare = prepare
    status, result = run(peers, tmp_path / "kept.json", "--one-by-one")
    assert status == peers.INTERRUPTED
    assert [(row["contender"], row["repeats"]) for row in result["rows"]] == [("ours", 2)]


def test_a_peer_that_fails_is_noted_and_not_missing(peers, last, tmp_path):
    def prepare(*_):
        raise ValueError("no such thing: at all")

    last.prepare = prepare
    status, result = run(peers, tmp_path / "kept.json", "--one-by-one")
    assert status == 0 and result["missing"] == []
    assert result["notes"] == ["last in mlp float32: ValueError: no such thing: at all"]


# -- where the batch lies --------------------------------------------------------------------------


def test_a_batch_of_bytes_is_for_gpus_or_by_name(peers):
    from benchmarks import contenders

    def names(*arguments):
        return [contender.name for contender in contenders.choose(*arguments)]

    assert names("ours", False) == ["ours"] and "ours-host" not in names(None, True)
    assert names("ours", False, "cuda:0") == ["ours", "ours-host"]
    assert names("ours-host", False) == ["ours-host"]


def test_a_batch_of_bytes_gives_the_same_losses(peers, tmp_path):
    kept = tmp_path / "kept.json"
    assert peers.main([*OPTIONS, "--contenders", "ours,ours-host", "--json", str(kept)]) == 0
    rows = json.loads(kept.read_text())["rows"]
    assert {row["contender"] for row in rows} == {"ours", "ours-host"}
    assert all(row["loss_difference"] == 0 for row in rows)
    assert all(row["ratio_to_best_peer"] is None for row in rows)  # neither is a peer


@pytest.mark.parametrize("usable", ["torch", "cupy", None])
def test_a_gpu_has_its_batch_by_whichever_library_reaches_it(peers, monkeypatch, usable):
    from benchmarks import contender_ours

    def bring(name):
        def by(array, device):
            assert device == "cuda:7"
            if name != usable:
                raise AssertionError("not compiled with it")
            return name, array

        return by

    monkeypatch.setattr(contender_ours, "_BRING", {name: bring(name) for name in ("torch", "cupy")})
    contender_ours.device_library.cache_clear()
    x, y = np.full((2, 3), 255, np.float32), np.zeros(2, np.int32)
    try:
        given = contender_ours.give_batch(x, y, "cuda:7")
        words = contender_ours.whereabouts("cuda:7")
    finally:
        contender_ours.device_library.cache_clear()
    if usable is None:
        assert given[0] is x and given[1] is y and words.startswith("on the host, in float32")
    else:
        assert given == ((usable, x), (usable, y)) and words == f"on cuda:7, by {usable}"
    assert contender_ours.give_batch(x, y, "cpu")[0] is x
    bytes_of_x, labels = contender_ours.give_batch(x, y, "cuda:7", from_host=True)
    assert bytes_of_x.dtype == np.uint8 and (bytes_of_x == 255).all() and labels is y
