"""The comparison of methods: tiny runs, and what is common ground to all of them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
OURS = ("control", "tree", "star", "node", "node-2")
BACKPROP = ("sgd", "adam")


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Make ``benchmarks`` importable."""
    monkeypatch.syspath_prepend(str(ROOT))


def quick(tmp_path, *arguments):
    """Run the comparison as a program, tiny; its JSON and what it printed."""
    out = tmp_path / "runs" / "learning"
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "benchmarks.learning"]
    done = subprocess.run(
        [*command, "--quick", "--threads", "1", "--out", str(out), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".txt").read_text().strip() in done.stdout
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return json.loads(out.with_suffix(".json").read_text()), done.stdout


def check_runs(result, names):
    runs = [run for run in result["runs"] if run["kind"] == "run"]
    assert [run["method"] for run in runs] == list(names)
    assert len({run["curve"][0]["test_accuracy"] for run in runs}) == 1  # the same first weights
    for run in runs:
        assert [point["step"] for point in run["curve"]] == [0, 1, 2]
        assert run["diverged_at_step"] is None and run["test_images"] == 200
        last = run["curve"][-1]
        assert last["tflop"] == pytest.approx(2 * run["flops_per_step"] / 1e12)
        assert last["seconds"] > 0 and np.isfinite(last["loss"])
        assert run["commit"] and run["date"] and len(run["load_average_before"]) == 3


# -- tiny runs -------------------------------------------------------------------------------------


def test_ours(tmp_path):
    result, printed = quick(tmp_path, "--methods", "tree,star,node,node-2")
    check_runs(result, OURS)
    assert "goal <= 8" in printed and "control 1,1,1,1,1" in printed
    again, printed = quick(tmp_path, "--methods", "star")
    assert again["runs"] == result["runs"]
    assert printed.count("(kept)") == 2  # the control always runs beside


def test_backprop(tmp_path):
    pytest.importorskip("torch")
    result, printed = quick(tmp_path, "--methods", "sgd,adam")
    check_runs(result, ("control", *BACKPROP))
    assert "grid of sgd (2 steps, seed 1000003)" in printed
    grid = [run for run in result["runs"] if (run["kind"], run["method"]) == ("grid", "adam")]
    assert {run["settings"]["lr"] for run in grid} == {3e-4, 1e-3, 3e-3, 1e-2}
    best = max(grid, key=lambda run: run["final_accuracy"])
    assert result["runs"][-1]["settings"] == best["settings"]


def test_evolution_strategies(tmp_path):
    pytest.importorskip("torch")
    result, printed = quick(tmp_path, "--methods", "open-es-torch,eggroll", "--no-grid")
    check_runs(result, ("control", "open-es-torch", "eggroll"))
    assert "open-es-torch 4 members" in printed and "grid of" not in printed


def test_evosax(tmp_path):
    pytest.importorskip("evosax")
    result, _ = quick(tmp_path, "--methods", "open-es", "--no-grid")
    check_runs(result, ("control", "open-es"))


def test_report_alone_runs_nothing(tmp_path):
    result, _ = quick(tmp_path, "--methods", "")
    again, printed = quick(tmp_path, "--report")
    assert again["runs"] == result["runs"] and "(kept)" not in printed


# -- the common ground -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_our_markets_start_from_the_same_weights_however_they_are_cut(name):
    from benchmarks.learning import methods, network, ours

    weights = network.first_weights(5)
    trainer = ours.make(methods.BY_NAME[name].settings, weights, 1, 1)
    found = trainer.weights()
    assert found.keys() == weights.keys() and len(found) == 14
    for key, value in weights.items():
        np.testing.assert_array_equal(found[key], value)
    assert any(np.any(network.first_weights(6)[key] != value) for key, value in weights.items())


def test_work_of_forward_and_backprop():
    from benchmarks.learning import methods, network, ours

    star = {**methods.BY_NAME["star"].settings, "vendors": (1, 1, 1)}
    assert network.forward_flops(64) == ours.flops_per_step(star)
    first = 2 * 64 * 32 * 25 * 24 * 24
    assert network.backprop_flops(64) == 3 * network.forward_flops(64) - first
    assert network.backprop_flops(64) == pytest.approx(5.0e9, rel=0.01)
    # weights of the last convolution and the output layer, and the latter's input
    more = 2 * 64 * (64 * 64 * 9 * 36 + 2 * 5760)
    assert network.backprop_flops(64, 8) == network.forward_flops(64) + more


def test_plan_node_moves_the_last_layers_where_backprop_does():
    """With a column of signs for every pixel, a step without momentum is along the gradient."""
    pytest.importorskip("torch")
    from benchmarks.learning import backprop, methods, network, ours

    weights = network.first_weights(3)
    x = np.random.default_rng(1).integers(0, 256, (16, 1, 28, 28), np.uint8)
    y = np.arange(16, dtype=np.int32) % 10
    settings = {name: methods.BY_NAME[name].settings for name in ("node", "adam-last")}
    sgd = {"optimizer": "sgd", "momentum": 0.0}
    trainers = [
        ours.make({**settings["node"], "update": "momentum"}, weights, 0, 1),
        backprop.make({**settings["adam-last"], **sgd}, weights, 0, 1),
    ]
    for trainer in trainers:
        trainer.step(x, y, 1e-3)
    mine, theirs = (trainer.weights() for trainer in trainers)
    for key, value in weights.items():
        steps = [(after[key] - value).ravel() for after in (mine, theirs)]
        if network.layer_of(key) < 8:
            assert not np.any(steps)
            continue
        cosine = steps[0] @ steps[1] / np.linalg.norm(steps[0]) / np.linalg.norm(steps[1])
        assert cosine > 0.97, (key, cosine)


def test_torch_computes_the_same_network_and_its_gradient():
    torch = pytest.importorskip("torch")
    from marketplace.training import straight_forward

    from benchmarks.learning import backprop, network

    weights = network.first_weights(3)
    x = np.random.default_rng(1).integers(0, 256, (8, 1, 28, 28), np.uint8)
    y = np.arange(8, dtype=np.int32)

    def loss(values):
        specs = network.make_market("depth-1", "star", (1,), values)
        logits = torch.from_numpy(np.asarray(straight_forward(specs, x)))
        return float(torch.nn.functional.cross_entropy(logits, torch.arange(8)))

    settings = {"optimizer": "sgd", "momentum": 0.9, "lr": 1.0}
    trainer = backprop.make(settings, weights, 0, 1)
    rate = 1e-6  # small: the loss bends at once, with inputs up to 255
    assert trainer.step(x, y, rate) == pytest.approx(loss(weights), rel=1e-5)
    step = {key: trainer.weights()[key] - value for key, value in weights.items()}
    squared = sum(float(np.sum(value.astype(float) ** 2)) for value in step.values())
    assert loss(trainer.weights()) - loss(weights) == pytest.approx(-squared / rate, rel=0.05)


def mean_loss(weights, x, y):
    from marketplace.training import straight_forward

    from benchmarks.learning import network

    specs = network.make_market("depth-1", "star", (1,), weights)
    logits = np.asarray(straight_forward(specs, x)).astype(float)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]))


@pytest.mark.parametrize(
    ("module", "package"),
    [("open_es", "torch"), ("eggroll", "torch"), ("evosax_open_es", "evosax")],
)
def test_a_population_finds_the_way_down(module, package):
    pytest.importorskip(package)
    import importlib

    from benchmarks.learning import network

    strategy = importlib.import_module(f"benchmarks.learning.{module}")
    strategy.load(1)
    weights = network.first_weights(4)
    x = np.random.default_rng(3).integers(0, 256, (8, 1, 28, 28), np.uint8)
    y = np.arange(8, dtype=np.int32)
    settings = {"batch": 8, "population": 8, "sigma": 1e-3, "lr": 1e-5, "rank": 2}
    trainer = strategy.make(settings, weights, 7, 1)
    before = mean_loss(weights, x, y)
    assert mean_loss(trainer.weights(), x, y) == before
    # steps so small that the loss is a slope: a step up instead of down would show
    seen = [trainer.step(x, y, 1e-5) for _ in range(3)]
    assert seen[0] == pytest.approx(before, abs=0.05)
    assert mean_loss(trainer.weights(), x, y) < before - 1e-3


def test_centred_ranks():
    torch = pytest.importorskip("torch")
    from benchmarks.learning import open_es

    found = open_es.centred_ranks(torch.tensor([3.0, -1.0, 9.0, 4.0, 0.5]))
    assert found.tolist() == [0.0, -0.5, 0.5, 0.25, -0.25]


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_noise_is_what_the_perturbed_matrices_would_give(rank):
    torch = pytest.importorskip("torch")
    from benchmarks import forest
    from benchmarks.contender_torch import Ops
    from benchmarks.learning import eggroll, network

    weights = {key: torch.tensor(value) for key, value in network.first_weights(2).items()}
    noise = eggroll.draw(weights, 3, rank, torch.Generator().manual_seed(1))
    pairs, signs, sigma = torch.tensor([0, 2, 1, 0]), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.05
    images = torch.randint(0, 256, (5, 1, 28, 28), generator=torch.Generator().manual_seed(2))

    def whole(key, pair):
        own = noise[key]
        if own.a is None:
            return own.b[pair]
        return (own.a[pair] @ own.b[pair].T / rank**0.5).view(weights[key].shape)

    members = eggroll.Members(weights, noise, pairs, signs, sigma)
    found = eggroll.logits(members, images.float())
    for place, (pair, sign) in enumerate(zip(pairs, signs, strict=True)):
        moved = {key: value + sign * sigma * whole(key, pair) for key, value in weights.items()}
        ops = Ops(torch.contiguous_format)
        expected = forest.run_layers(network.LAYERS, images.float(), moved, ops)
        torch.testing.assert_close(found[:, place], expected, rtol=2e-4, atol=2e-4)
    strengths = torch.tensor([0.5, -2.0, 1.0])
    for key, gradient in eggroll.gradients(weights, noise, strengths, sigma).items():
        expected = sum(s * whole(key, h) for h, s in enumerate(strengths)) / (6 * sigma)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_work_of_low_rank_noise():
    pytest.importorskip("torch")
    from benchmarks.learning import eggroll, network

    first = 2 * 5 * 32 * 25 * 24 * 24
    low = 57 * 24**2 + 832 * 20**2 + 352 * 8**2 + 640 * 6**2 + 586
    found = eggroll.flops_per_step({"batch": 5, "population": 6, "rank": 2})
    assert found == 6 * (network.forward_flops(5) + 2 * 5 * 2 * low) - 5 * first


def test_a_stand_in_steps_back_unless_it_is_named():
    from benchmarks.learning import methods

    every = [methods.BY_NAME[name] for name in ("control", "open-es", "open-es-torch")]
    names = [m.name for m in methods.without_stand_ins(every, None)]
    assert names == ["control", "open-es"]
    assert len(methods.without_stand_ins(every, "open-es,open-es-torch")) == 3
    assert len(methods.without_stand_ins(every[::2], None)) == 2


def test_accuracy_counts_right_answers_and_none_of_a_broken_network():
    from marketplace.training import straight_forward

    from benchmarks.learning import network

    weights = network.first_weights(0)
    x = np.random.default_rng(2).integers(0, 256, (20, 1, 28, 28), np.uint8)
    specs = network.make_market("depth-1", "star", (1,), weights)
    y = np.asarray(straight_forward(specs, x)).argmax(axis=1)
    y[:5] = (y[:5] + 1) % 10
    judge = network.Judge(x, y)
    assert judge.accuracy(weights) == 75.0
    weights["layers.13.bias"][3] = np.nan
    assert judge.accuracy(weights) == 0.0
