"""The programs of docs/distributed.md run as they stand, and end with the same weights."""

import pathlib
import re
import subprocess
import sys

import pytest
from marketplace import checkpoint
from test_mpi import start

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "distributed.md"

pytestmark = pytest.mark.slow


def programs_of(guide):
    return re.findall(r"```python\n(.*?)```", guide, re.S)


def test_both_programs_train_the_same_weights(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    monkeypatch.chdir(tmp_path)
    weights = []
    for program in programs_of(GUIDE.read_text()):
        path = tmp_path / "train.py"
        path.write_text(program)
        if "RayCluster" in program:
            job = subprocess.run(
                [sys.executable, path], capture_output=True, text=True, timeout=300
            )
        else:
            job = start(4, path)
        assert job.returncode == 0, job.stderr
        assert re.fullmatch(r"loss 0\.\d+\n", job.stdout), job.stdout
        tensors, _ = checkpoint.read_file(tmp_path / "trained.safetensors")
        weights.append({name: value.tobytes() for name, value in tensors.items()})
    assert len(weights) == 2
    assert weights[0] == weights[1]
