"""The network trained with backpropagation: the same one, from the same weights."""

import json
import sys

import numpy as np
import pytest
from marketplace.examples import backprop, experiments

pytestmark = pytest.mark.usefixtures("small_data")

TINY = ["--batch-size", "4", "--threads", "1", "--quiet", "--steps", "3", "--eval-every", "1"]


def test_without_pytorch_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert backprop.main(TINY) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "needs PyTorch" in captured.err


def test_the_market_runs_without_pytorch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    tail = ["--", "--batch-size", "4"]
    assert experiments.main(["mnist_backprop_cmp", "--runs", "1,20", "--steps", "1", *tail]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:3] == ["adam", "0.001", "failed"]
    assert lines[3].split()[:2] == ["market", "0.1"] and "failed" not in lines[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "lion"], "--optimizer: invalid choice"),
        (["--lr", "0"], "--lr: expected a number above 0"),
        (["--json", "."], "--json: expected a file"),
    ],
)
def test_bad_option_is_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        backprop.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_it_is_the_markets_network(norm):
    torch = pytest.importorskip("torch")
    from marketplace import random
    from marketplace.examples._markets import digit_structure
    from marketplace.training import straight_forward

    options = backprop.parse(["--norm", norm])
    network, flops = backprop._make_network(torch, options)
    random.manual_seed(options.seed)
    specs = digit_structure("depth-3", norm).specs("star")
    x = np.random.default_rng(1).integers(0, 256, (5, 1, 28, 28), np.uint8)
    with torch.no_grad():
        theirs = network.eval()(torch.from_numpy(x).float()).numpy()
    ours = np.asarray(straight_forward(specs, x))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(ours).max()
    shape, total = (1, 28, 28), 0
    for spec in specs:
        total += spec.model._core.flops(shape)
        shape = spec.model.output_shape(shape)
    assert flops == total


@pytest.mark.parametrize("optimizer", backprop.OPTIMIZERS)
def test_every_optimizer_learns(tmp_path, optimizer):
    pytest.importorskip("torch")
    path = tmp_path / "out.json"
    arguments = ["--optimizer", optimizer, "--steps", "30", "--eval-every", "10", "--lr", "1e-3"]
    assert backprop.main([*TINY, *arguments, "--batch-size", "20", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    losses = [point["loss"] for point in report["history"]]
    assert losses[-1] < 0.7 * losses[0]
    assert report["steps"] == 30 and report["flops_per_step"] > 0


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch = pytest.importorskip("torch")
    for shape in ((6, 9), (9, 6)):
        matrix = torch.from_numpy(np.random.default_rng(2).normal(size=shape))
        values = np.linalg.svd(backprop.orthogonalise(matrix).numpy(), compute_uv=False)
        assert (values > 0.6).all() and (values < 1.3).all()
