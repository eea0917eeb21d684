"""A probe's memory does not grow with the number of paths, beyond its losses."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
MIB = 2**20
BENCHMARK = pathlib.Path(__file__).parents[1] / "benchmarks" / "bench_memory.py"


def measure(tmp_path, *arguments):
    """Run the benchmark on a small batch; its rows."""
    report = tmp_path / "memory.json"
    command = [sys.executable, str(BENCHMARK), "--batch-size", "4", "--json", str(report)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())["rows"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tree_of_4096_paths_needs_little_more_than_one_of_8(tmp_path, dtype):
    few, many = measure(tmp_path, "--vendors", "2,16", "--dtype", dtype)
    assert (few["paths"], many["paths"]) == (8, 4096)
    assert many["peak_bytes"] - few["peak_bytes"] <= 64 * MIB


def test_a_star_needs_little_more_for_more_vendors(tmp_path):
    """Their deltas alone, 87,850 numbers each, would take twice as much."""
    few, many = measure(tmp_path, "--vendors", "2,400", "--plan", "star")
    assert (few["paths"], many["paths"]) == (4, 1198)
    assert 400 * 87_850 * 4 > 2 * 64 * MIB
    assert many["peak_bytes"] - few["peak_bytes"] <= 64 * MIB


@pytest.mark.parametrize("plan", ["tree", "star"])
def test_more_forward_passes_per_update_need_the_memory_of_one(tmp_path, plan):
    """Beyond the samples themselves, and one number per parameter for the replicas' sum."""
    settings = ["--vendors", "8", "--plan", plan, "--threads", "1"]
    one = measure(tmp_path, *settings)[0]["peak_bytes"]
    passes = ["--forward-pass", "8", "--marketplace-replica", "4"]
    many = measure(tmp_path, *settings, *passes)[0]["peak_bytes"]
    assert many - one <= 4 * MIB


def test_the_measurement_sees_memory(tmp_path):
    """It is above what the process held before its first probe, and a few steps take no more."""
    short, long = (measure(tmp_path, "--vendors", "2", "--steps", steps)[0] for steps in "16")
    assert short["peak_bytes"] > short["start_bytes"] > 10 * MIB
    assert long["peak_bytes"] - short["peak_bytes"] <= 8 * MIB
