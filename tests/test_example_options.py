"""Options of the MNIST example that change what an update is, what is trained, and how fast."""

import json

import numpy as np
import pytest
from marketplace import data, schedules
from marketplace.examples import _arguments, _cli, _digits, _markets, _run, _setup, mnist
from marketplace.optimizers import Optimizer
from safetensors.numpy import load_file

pytestmark = pytest.mark.usefixtures("small_data")

TINY = ["--vendors", "2,3,4", "--batch-size", "4", "--threads", "1", "--quiet"]
BARE = ["--batch-size", "2", "--threads", "1", "--quiet"]


def run(*arguments, tiny=TINY):
    return mnist.main([*tiny, *map(str, arguments)])


def run_json(tmp_path, *arguments, tiny=TINY):
    assert run(*arguments, "--json", tmp_path / "out.json", tiny=tiny) == 0
    return json.loads((tmp_path / "out.json").read_text())


def options_of(*arguments):
    return _digits.parse("prog", "Do.", mnist.DEFAULTS, [*TINY, *map(str, arguments)])


def trained(tmp_path, *arguments, name="state"):
    """The weights after three updates."""
    path = tmp_path / f"{name}.safetensors"
    assert run("--steps", 3, "--checkpoint", path, *arguments) == 0
    return {key: value for key, value in load_file(path).items() if key.startswith("spec")}


def same_weights(one, other):
    assert one.keys() == other.keys()
    return all(np.array_equal(one[key], other[key]) for key in one)


# -- updates ---------------------------------------------------------------------------------------


def test_forward_pass_and_replicas_do_what_they_say(tmp_path, monkeypatch):
    calls = []
    original = Optimizer.train_step

    def spy(self, x, y, **settings):
        calls.append((x.shape, y.shape, settings))
        return original(self, x, y, **settings)

    monkeypatch.setattr(Optimizer, "train_step", spy)
    arguments = ["--forward-pass", 3, "--marketplace-replica", 2, "--unit-vector-mode", "whole"]
    result = run_json(tmp_path, "--steps", 2, *arguments)
    settings = {"unit_vector_mode": "whole", "forward_pass": 3, "marketplace_replica": 2}
    assert calls == [((12, 1, 28, 28), (12,), settings)] * 2
    assert result["options"]["forward_pass"] == 3
    assert result["options"]["marketplace_replica"] == 2
    assert result["options"]["unit_vector_mode"] == "whole"
    plain = run_json(tmp_path, "--steps", 0)
    assert result["flops_per_step"] == 6 * plain["flops_per_step"]


@pytest.mark.parametrize("plan", ["star", "tree"])
@pytest.mark.parametrize(
    "change",
    [
        ["--forward-pass", 2],
        ["--marketplace-replica", 2],
        ["--unit-vector-mode", "whole"],
        ["--algorithm", "v1"],
    ],
    ids=lambda change: change[0],
)
def test_every_kind_of_update_trains_otherwise(tmp_path, plan, change):
    plain = trained(tmp_path, "--plan", plan)
    assert not same_weights(plain, trained(tmp_path, "--plan", plan, *change))


@pytest.mark.parametrize(
    "options",
    [
        ["--forward-pass", 2, "--marketplace-replica", 2],
        ["--forward-pass", 2, "--marketplace-replica", 2, "--meta-lr", 0.2, "--plan", "tree"],
        ["--algorithm", "v1", "--forward-pass", 2],
        ["--lr-schedule", "cosine", "--schedule-steps", 8],
        ["--lr-schedule", "cosine", "--schedule-steps", 8, "--lr", 0.2],
        ["--market", "depth-1", "--vendors", 3, "--plan", "star"],
        ["--norm", "batch", "--forward-pass", 2],
        ["--plan", "tree", "--upstream-sampling", "0,1,2"],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_resume_is_the_same_to_the_bit(tmp_path, options):
    whole, half, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "rest"))
    assert run(*options, "--steps", 4, "--checkpoint", whole) == 0
    assert run(*options, "--steps", 2, "--checkpoint", half) == 0
    assert run(*options, "--steps", 4, "--checkpoint", rest, "--resume", half) == 0
    assert rest.read_bytes() == whole.read_bytes()
    assert half.read_bytes() != whole.read_bytes()


@pytest.mark.parametrize("forward_pass", [1, 2])
def test_v1_keeps_the_best_path_of_the_mean_loss(monkeypatch, forward_pass):
    kept = []
    original = Optimizer.keep_best_of

    def spy(self, *given, **settings):
        before = [spec.model.state_dict() for spec in self.marketplace]
        deltas = [context.delta for context in self.spec_context]
        loss, paths = original(self, *given, **settings)
        best = paths[int(np.argmin(loss))]
        for spec, old, delta, vendor in zip(self.marketplace, before, deltas, best, strict=True):
            for key, value in spec.model.state_dict().items():
                np.testing.assert_allclose(value, old[key] + delta[key][vendor], atol=1e-6)
        kept.append((settings["forward_pass"], self.probe_scale, float(self.learning_rate)))
        return loss, paths

    monkeypatch.setattr(Optimizer, "keep_best_of", spy)
    v1 = ["--algorithm", "v1", "--lr-schedule", "constant", "--forward-pass", forward_pass]
    assert run("--steps", 3, *v1) == 0
    assert kept == [(forward_pass, None, mnist.DEFAULTS.jitter)] * 3


# -- learning rates --------------------------------------------------------------------------------


def rates(monkeypatch, *arguments):
    """The learning rate of every step."""
    seen = []
    original = Optimizer.train_step

    def spy(self, *given, **settings):
        seen.append(float(self.learning_rate))
        return original(self, *given, **settings)

    monkeypatch.setattr(Optimizer, "train_step", spy)
    assert run(*arguments) == 0
    return seen


@pytest.mark.parametrize(
    ("arguments", "schedule"),
    [
        ([], schedules.exponential(0.1, 0.001)),
        (["--lr-decay", 0.1], schedules.exponential(0.1, 0.1)),
        (["--lr-schedule", "constant"], schedules.constant(0.1)),
        (["--lr-schedule", "cosine"], schedules.cosine(0.1, 5, final=0.01)),
        (
            ["--lr-schedule", "cosine", "--schedule-steps", 9, "--lr-final", 0.2],
            schedules.cosine(0.1, 9, final=0.2),
        ),
    ],
    ids=["default", "decay", "constant", "cosine", "cosine 9"],
)
def test_rates_follow_their_schedule(monkeypatch, arguments, schedule):
    seen = rates(monkeypatch, "--steps", 5, "--lr", 0.1, *arguments)
    assert seen == pytest.approx([schedule(step) for step in range(5)], rel=1e-12)


def test_the_meta_learning_rate_follows_the_schedule_instead():
    options = options_of("--meta-lr", 0.4, "--lr-schedule", "cosine", "--steps", 4)
    _, opt = _setup.set_up(options, mnist.DEFAULTS, options.structure, (1, 28, 28))
    dataset = data.load()
    for _ in range(3):
        _run.take_step(opt, dataset, options)
    expected = schedules.cosine(0.4, 4, final=0.01)(3)
    assert float(opt.meta_learning_rate) == pytest.approx(expected, rel=1e-12)
    assert float(opt.learning_rate) == mnist.DEFAULTS.lr


# -- some classes ----------------------------------------------------------------------------------


def test_only_classes_trains_and_tests_on_them(tmp_path, capsys):
    full = data.load()
    wanted = [0, 1, 4]
    result = run_json(tmp_path, "--steps", 2, "--only-classes", "4,0,1")
    assert result["train_images"] == np.isin(full.y_train, wanted).sum()
    assert result["test_images"] == np.isin(full.y_test, wanted).sum()
    assert result["options"]["only_classes"] == wanted


def test_missing_classes_may_stay_out_of_the_loss(monkeypatch):
    seen = []
    original = Optimizer.train_step

    def spy(self, *given, **settings):
        seen.append(self.classes)
        return original(self, *given, **settings)

    monkeypatch.setattr(Optimizer, "train_step", spy)
    assert run("--steps", 1, "--only-classes", "0,1,4") == 0
    assert run("--steps", 1, "--only-classes", "0,1,4", "--exclude-missing-from-loss") == 0
    assert seen == [None, (0, 1, 4)]


def test_only_keeps_labels_and_order():
    full = data.load()
    some = full.only([7, 2])
    assert set(some.y_train.tolist()) == set(some.y_test.tolist()) == {2, 7}
    keep = np.isin(full.y_train, [2, 7])
    assert np.array_equal(some.x_train, full.x_train[keep])
    assert np.array_equal(some.y_train, full.y_train[keep])
    assert some.name == "MNIST, classes 2,7"


def test_classes_without_images_are_refused(capsys):
    full = data.load()
    with pytest.raises(ValueError, match=r"only: expected classes with .* images .* received none"):
        full.only([])
    with pytest.raises(ValueError, match=r"only: expected .* training images .* received \[12\]"):
        full.only([3, 12])
    missing = sorted(set(range(10)) - set(full.y_test.tolist()))
    if missing:
        assert run("--only-classes", missing[0], "--steps", 1) == 1
        assert "expected classes with" in capsys.readouterr().err


# -- market structures -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", _markets.NORMS)
@pytest.mark.parametrize("name", _markets.DIGIT_MARKETS)
def test_structures_are_the_same_network(name, norm):
    structure = _markets.digit_structure(name, norm)
    plan = structure.plan
    specs = structure.specs(plan)
    assert len(specs) == structure.depth
    assert sum(spec.model.parameter_count for spec in specs) == 87_850
    assert [spec.vendor_count for spec in specs] == list(structure.vendors[plan])
    shape = (1, 28, 28)
    for spec in specs:
        shape = spec.model.output_shape(shape)
    assert shape == (10,)
    layers = [type(layer).__name__ for spec in specs for layer in spec.model.layers]
    wanted = "BatchNorm" if norm == "batch" else "InstanceNorm"
    assert layers.count(wanted) == 2 and layers.count("Conv2d") == 4


@pytest.mark.parametrize("name", ["pyramid-32", "pyramid-64"])
def test_pyramids_sample_half(name):
    structure = _markets.digit_structure(name)
    specs = structure.specs("tree")
    for spec in specs[1:]:
        assert spec.upstream_sampling == spec.vendor_count // 2
    own = structure.specs("tree", vendors=(2, 2, 2, 2, 2))
    assert [spec.upstream_sampling for spec in own] == [0] * 5
    assert [spec.upstream_sampling for spec in structure.specs("star")] == [0] * 5


@pytest.mark.parametrize(
    ("arguments", "vendors", "plan"),
    [
        (["--market", "depth-1", "--vendors", "2"], [2], "node"),
        (["--market", "depth-1", "--vendors", "5", "--plan", "tree"], [5], "tree"),
        (["--market", "depth-5", "--vendors", "2"], [2] * 5, "node"),
        (["--market", "pyramid-32", "--vendors", "1,2,2,2,2"], [1, 2, 2, 2, 2], "tree"),
        (["--norm", "batch"], [2, 3, 4], "star"),
    ],
)
def test_markets_train(tmp_path, arguments, vendors, plan):
    result = run_json(tmp_path, "--steps", 2, *arguments)
    assert (result["vendors"], result["plan"]) == (vendors, plan)


def test_upstream_sampling_makes_fewer_paths(tmp_path):
    full = run_json(tmp_path, "--steps", 1, "--plan", "tree")["flops_per_step"]
    sampled = run_json(tmp_path, "--steps", 1, "--plan", "tree", "--upstream-sampling", "0,1,1")
    assert sampled["flops_per_step"] < full
    assert sampled["options"]["upstream_sampling"] == [0, 1, 1]


# -- refusals --------------------------------------------------------------------------------------

BAD = [
    (["--forward-pass", "0"], "--forward-pass: expected a whole number of at least 1"),
    (["--marketplace-replica", "x"], "--marketplace-replica: expected a whole number of at least"),
    (["--unit-vector-mode", "half"], "--unit-vector-mode: invalid choice: 'half'"),
    (["--algorithm", "v3"], "--algorithm: invalid choice: 'v3'"),
    (["--algorithm", "v1", "--meta-lr", "0.1"], "--meta-lr: expected --algorithm v2"),
    (["--algorithm", "v1", "--probe-scale", "0.1"], "--probe-scale: expected --algorithm v2"),
    (["--algorithm", "v1", "--marketplace-replica", "2"], "--marketplace-replica: expected --alg"),
    (["--lr-schedule", "linear"], "--lr-schedule: invalid choice: 'linear'"),
    (["--lr-schedule", "cosine", "--lr-decay", "0.1"], "--lr-decay: expected none with --lr-sch"),
    (["--lr-final", "0"], "--lr-final: expected a number above 0 and below 1"),
    (["--lr-final", "0.1"], "--lr-final: expected --lr-schedule cosine, received expon"),
    (["--momentum", "0.5"], "--momentum: expected --update momentum, clipup or adam, received"),
    (["--plan", "node", "--update", "unit", "--momentum", "0.5"], "--momentum: expected --update"),
    (["--schedule-steps", "5"], "--schedule-steps: expected --lr-schedule cosine, received expon"),
    (["--only-classes", "1,1"], "--only-classes: expected different classes"),
    (["--only-classes", "1,two"], "--only-classes: expected different classes"),
    (["--only-classes", "3,10"], "--only-classes: expected classes below 10, received 10"),
    (["--exclude-missing-from-loss"], "--exclude-missing-from-loss: expected --only-classes"),
    (
        ["--exclude-missing-from-loss", "--only-classes", "1,2", "--plan", "node"],
        "--exclude-missing-from-loss: expected --plan star or tree, received node",
    ),
    (["--market", "flat"], "--market: invalid choice: 'flat'"),
    (["--market", "depth-5"], "--vendors: expected 5 whole numbers, one per spec of depth-5"),
    (["--norm", "group"], "--norm: invalid choice: 'group'"),
    (
        ["--upstream-sampling", "0,-1,0"],
        "--upstream-sampling: expected whole numbers of at least 0",
    ),
    (["--upstream-sampling", "0,1"], "--upstream-sampling: expected 3 whole numbers"),
    (["--upstream-sampling", "0,1,1"], "--upstream-sampling: expected --plan tree, received star"),
    (
        ["--plan", "tree", "--upstream-sampling", "0,3,0"],
        "--upstream-sampling: expected at most 2 for spec 1",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_option_is_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        mnist.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for name in vars(options_of()):
        assert f"--{name.replace('_', '-')}" in text
    assert _arguments.DEFAULT_SEED == 42 and _cli.STATUS_OK == 0


# -- vendors from a number of operations -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "vendors"),
    [
        (["--plan", "star", "--flops", 0.1, "--market", "depth-3"], [2, 9, 578]),
        (["--plan", "node", "--flops", 0.05], [1, 1, 4, 65, 1]),
        (["--plan", "node"], [1, 1, 1, 65, 1]),
    ],
    ids=["star", "node", "as many as its own cost"],
)
def test_vendors_from_operations(tmp_path, arguments, vendors):
    result = run_json(tmp_path, "--steps", 1, "--vendors", "auto", *arguments, tiny=BARE)
    assert result["vendors"] == vendors
    if "--flops" in arguments:
        budget = arguments[arguments.index("--flops") + 1]
        assert result["flops_per_step"] <= budget * 1e9 * 2  # images in a minibatch


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flops", 1], "--flops: expected --vendors auto"),
        (["--vendors", "auto", "--plan", "tree"], "expected star or node with --vendors auto"),
        (["--vendors", "auto", "--flops", 0], "expected a number above 0"),
        (["--vendors", "auto", "--flops", "nan"], "expected a number above 0"),
        (["--vendors", "automatic"], "expected whole numbers"),
        (["--plan", "node", "--shaping", "rank"], "expected star or tree with --shaping rank"),
        (["--plan", "node", "--antithetic"], "expected star or tree with --antithetic"),
        (["--antithetic", "--meta-lr", 0.1], "--antithetic: expected none with --meta-lr"),
        (["--shaping", "none"], "--shaping: invalid choice"),
    ],
)
def test_bad_shares_and_shapings(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        _digits.parse("prog", "Do.", mnist.DEFAULTS, [str(word) for word in arguments])
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_too_few_operations(capsys):
    assert run("--vendors", "auto", "--plan", "star", "--flops", 0.001, tiny=BARE) == 1
    assert "flops of at least 26438144, received 1000000" in capsys.readouterr().err


# -- how losses become scores ----------------------------------------------------------------------


@pytest.mark.parametrize("option", [["--shaping", "rank"], ["--antithetic"]], ids=lambda o: o[0])
def test_shapings_and_pairs_train_in_their_own_way_and_go_on(tmp_path, option):
    plain, other = trained(tmp_path), trained(tmp_path, *option, name="other")
    assert any(not np.array_equal(plain[key], other[key]) for key in plain)
    path = tmp_path / "half.safetensors"
    assert run("--steps", 2, "--checkpoint", path, *option) == 0
    # what is not said again is kept
    assert run("--steps", 3, "--checkpoint", path, "--resume", path) == 0
    gone_on = {key: value for key, value in load_file(path).items() if key.startswith("spec")}
    assert all(np.array_equal(other[key], gone_on[key]) for key in other)


def test_another_shaping_than_the_checkpoint_is_refused(tmp_path, capsys):
    path = tmp_path / "state.safetensors"
    assert run("--steps", 1, "--checkpoint", path) == 0
    assert run("--steps", 2, "--resume", path, "--shaping", "sign") == 1
    assert f"--shaping: expected z, as in {path}, received sign" in capsys.readouterr().err
