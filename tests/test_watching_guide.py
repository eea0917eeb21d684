"""The guide to watching a run: its code runs as written."""

import pathlib
import re

import numpy as np
from marketplace import plot
from marketplace.callbacks import read_rows

GUIDE = pathlib.Path(__file__).parents[1] / "docs" / "watching.md"


def test_the_guide_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, GUIDE.name, "exec"), names)
    rows = read_rows("run.csv")
    assert [row["step"] for row in rows] == list(range(1, 101))
    assert names["losses"] == [row["training/loss"] for row in rows]
    assert names["arrays"]["global_step"] == 110
    assert np.isfinite(names["arrays"]["spec.0.layers.0.weight"]).all()
    assert plot.load_run("run.csv").metrics["training/loss"].size == 100
