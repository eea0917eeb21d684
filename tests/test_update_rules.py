"""Update rules against their formulas, and what a resumed run needs of them."""

import json

import marketplace as mp
import numpy as np
import pytest
import reference_market as oracle
from markets import (
    MLP,
    MLP_SHAPE,
    MODES,
    VENDORS,
    batch,
    build,
    close,
    close_parameters,
    optimizer,
    same_states,
    states,
)
from refusals import refusal
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

RULES = ("unit", "momentum", "clipup", "adam")
PLANS = ("tree", "star", "scatter", "node")
RATE, MASTER = 0.05, 11


def flat(specs):
    """Directions by spec as flat vectors, keys in order."""
    return [np.concatenate([np.ravel(d[k]) for k in sorted(d)]).astype(np.float64) for d in specs]


def unit(vectors, mode):
    norms = [np.linalg.norm(v) for v in vectors]
    if mode == "whole":
        norms = [np.linalg.norm(norms)] * len(norms)
    return [v / n if n > 0 else v for v, n in zip(vectors, norms, strict=True)]


class Rule:
    """The formulas, element by element."""

    def __init__(self, kind, momentum, mode):
        self.kind, self.b1, self.mode = kind, np.float64(np.float32(momentum)), mode
        self.steps, self.first, self.second = 0, None, None

    def __call__(self, d):
        if self.kind in ("unit", "clipup"):
            d = unit(d, self.mode)
        if self.kind == "unit":
            return d
        zeros = [np.zeros_like(v) for v in d]
        self.first, self.second = self.first or zeros, self.second or zeros
        self.steps += 1
        if self.kind == "adam":
            return self.adam(d)
        self.first = [self.b1 * m + v for m, v in zip(self.first, d, strict=True)]
        if self.kind == "clipup":
            whole = np.linalg.norm([np.linalg.norm(v) for v in self.first])
            norms = [whole if self.mode == "whole" else np.linalg.norm(v) for v in self.first]
            self.first = [v * min(1, 2 / n) for v, n in zip(self.first, norms, strict=True)]
        return self.first

    def adam(self, d):
        b1, b2 = self.b1, 0.99
        self.first = [b1 * m + (1 - b1) * v for m, v in zip(self.first, d, strict=True)]
        self.second = [b2 * s + (1 - b2) * v**2 for s, v in zip(self.second, d, strict=True)]
        return [
            m / (1 - b1**self.steps) / (np.sqrt(s / (1 - b2**self.steps)) + 1e-8)
            for m, s in zip(self.first, self.second, strict=True)
        ]


def ruled(update, plan="star", counts=VENDORS, **options):
    built = build(MLP, counts)
    options = {"learning_rate": RATE, "seed": MASTER, "momentum": 0.8} | options
    return built, optimizer(built, plan=plan, update=update, **options)


def raw_direction(opt, built, loss, paths, mode):
    """What the rule is given: unit vectors."""
    return unit(flat(opt.compute_direction_vectors(loss, paths, mode)), mode)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("mode", [m.value for m in MODES])
@pytest.mark.parametrize("update", RULES)
def test_steps_follow_the_formula(update, mode, momentum):
    built, opt = ruled(update, momentum=momentum)
    rule = Rule(update, momentum, mode)
    assert (opt.update, opt.momentum) == (update, momentum)
    for step in range(6):
        x, y = batch(MLP_SHAPE, seed=step)
        loss, paths = opt.probe(x, y)
        change = rule(raw_direction(opt, built, loss, paths, mode))
        before = flat(built.weights)
        opt.step(loss, paths, mode)
        moved = [a - b for a, b in zip(flat(built.weights), before, strict=True)]
        for actual, expected, base in zip(moved, change, before, strict=True):
            # adam divides by roots of small numbers, and weights are rounded once
            room = RATE * 2e-5 * max(1.0, np.abs(expected).max()) + 2**-23 * np.abs(base).max()
            assert np.abs(actual - RATE * expected).max() <= room


def test_clipup_limits_its_speed():
    """The same direction again and again: without a limit the speed would go to 1 / (1 - b1)."""
    built, opt = ruled("clipup", momentum=0.9)
    direction = [{k: np.ones_like(v) for k, v in spec.items()} for spec in built.weights]
    rule = Rule("clipup", 0.9, "per_spec")
    for _ in range(30):
        speed = rule(flat(direction))
    close([np.linalg.norm(v) for v in speed], [2.0] * 3)
    lengths = []
    for _ in range(30):
        before = flat(built.weights)
        opt.step(*opt.probe(*batch(MLP_SHAPE)))
        moved = [a - b for a, b in zip(flat(built.weights), before, strict=True)]
        lengths.append(max(np.linalg.norm(v) for v in moved) / RATE)
    assert max(lengths) <= 2.0 + 1e-4 and max(lengths) > 1.2


@pytest.mark.parametrize("update", RULES)
def test_a_zero_direction_is_no_number_trouble(update):
    built, opt = ruled(update)
    paths = oracle.star_paths(VENDORS)
    before = states(built)
    with pytest.warns(RuntimeWarning, match="all losses are equal"):
        opt.step(np.ones(len(paths)), paths)
    same_states(before, states(built))
    opt.step(*opt.probe(*batch(MLP_SHAPE)))
    assert all(np.isfinite(v).all() for spec in built.weights for v in spec.values())


@pytest.mark.parametrize("update", ["momentum", "clipup"])
def test_speed_outlives_a_zero_direction(update):
    built, opt = ruled(update, momentum=0.5)
    opt.step(*opt.probe(*batch(MLP_SHAPE)))
    paths, before = oracle.star_paths(VENDORS), flat(built.weights)
    with pytest.warns(RuntimeWarning, match="all losses are equal"):
        opt.step(np.ones(len(paths)), paths)
    moved = [np.linalg.norm(a - b) for a, b in zip(flat(built.weights), before, strict=True)]
    close(moved, [0.5 * RATE] * 3, relative=1e-4)


def test_update_weights_is_no_rules_business():
    built, opt = ruled("adam")
    x, y = batch(MLP_SHAPE)
    direction = opt.compute_direction_vectors(*opt.probe(x, y))
    expected = oracle.step(built.weights, direction, [RATE] * 3)
    opt.update_weights(direction)
    close_parameters(built, expected)


@pytest.mark.parametrize("plan", PLANS)
def test_defaults(plan):
    built = build(MLP, VENDORS)
    opt = mp.Optimizer(built.specs, 0.1, plan=plan, seed=1)
    assert opt.update == ("adam" if plan == "node" else "unit") and opt.momentum == 0.9


@pytest.mark.parametrize("momentum", [1.0, 1.5, -0.1, np.nan, np.inf])
def test_momentum_is_a_fraction(momentum):
    with refusal(ValueError, "momentum"):
        ruled("momentum", momentum=momentum)


@pytest.mark.parametrize("momentum", ["much", None, [0.9]])
def test_momentum_is_a_number(momentum):
    with refusal(TypeError, "momentum"):
        ruled("momentum", momentum=momentum)


def test_unknown_rules_and_line_searches_are_refused():
    with refusal(ValueError, "'clipup'", "'sgd'"):
        ruled("sgd")
    with refusal(ValueError, "'unit' with meta_learning_rate", "'adam'"):
        ruled("adam", meta_learning_rate=0.5)
    built, opt = ruled("adam")
    opt.meta_learning_rate = 0.5
    with refusal(ValueError, "meta_learning_rate", "'adam'"):
        opt.probe(*batch(MLP_SHAPE))


# -- files -----------------------------------------------------------------------------------------


def data(step):
    return batch((9, 6), seed=step)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("update", RULES)
def test_resumed_runs_have_the_same_bits(tmp_path, plan, update):
    path, other = tmp_path / "state.safetensors", build(MLP, VENDORS, seed=9)
    built, opt = ruled(update, plan)
    for step in range(3):
        opt.train_step(*data(step))
    opt.save(path)
    again = mp.Optimizer.resume(path, other.specs)
    assert (again.update, again.momentum, again.plan) == (update, 0.8, plan)
    for step in range(3, 6):
        opt.train_step(*data(step))
        again.train_step(*data(step))
    same_states(states(built), states(other))


def test_a_rule_that_has_not_begun(tmp_path):
    path, other = tmp_path / "state.safetensors", build(MLP, VENDORS, seed=9)
    built, opt = ruled("adam")
    opt.save(path)
    again = mp.Optimizer.resume(path, other.specs)
    for one in (opt, again):
        one.train_step(*data(0))
    same_states(states(built), states(other))


def test_specs_without_parameters(tmp_path):
    description = [MLP[0], [("relu", {})], *MLP[1:]]
    path = tmp_path / "state.safetensors"
    built, other = (build(description, (2, 1, 2, 3), seed=s) for s in (0, 9))
    opt = optimizer(built, seed=1, update="adam", plan="node", learning_rate=RATE)
    opt.train_step(*data(0))
    opt.save(path)
    again = mp.Optimizer.resume(path, other.specs)
    for one in (opt, again):
        one.train_step(*data(1))
    same_states(states(built), states(other))


@pytest.fixture
def saved(tmp_path):
    """A file of an Adam run, and a way to write it anew with changes."""
    path = tmp_path / "state.safetensors"
    _, opt = ruled("adam")
    opt.train_step(*data(0))
    opt.save(path)
    with safe_open(path, "numpy") as file:
        settings = json.loads(file.metadata()["optimizer"])
    tensors = load_file(path)

    def write():
        save_file(tensors, path, {"optimizer": json.dumps(settings)})
        return path

    return tensors, settings, write


def refuse_to_resume(path, *words):
    built = build(MLP, VENDORS, seed=9)
    before = states(built)
    with refusal(ValueError, *words):
        mp.Optimizer.resume(path, built.specs)
    same_states(before, states(built))


@pytest.mark.parametrize("name", ["rule.first.0", "rule.first.2", "rule.second.1"])
def test_missing_moments_are_refused(saved, name):
    tensors, _, write = saved
    del tensors[f"optimizer.{name}"]
    refuse_to_resume(write(), "moments for spec", "received 0")


@pytest.mark.parametrize("name", ["rule.first.1", "rule.second.0"])
def test_moments_of_another_size_are_refused(saved, name):
    tensors, _, write = saved
    tensors[f"optimizer.{name}"] = tensors[f"optimizer.{name}"][:-1].copy()
    refuse_to_resume(write(), "moments for spec")


@pytest.mark.parametrize("name", ["rule.first.1", "rule.second.0"])
def test_moments_that_are_not_finite_are_refused(saved, name):
    tensors, _, write = saved
    tensors[f"optimizer.{name}"][3] = np.nan
    refuse_to_resume(write(), "finite", "nan")


def test_squares_below_zero_are_refused(saved):
    tensors, _, write = saved
    tensors["optimizer.rule.second.2"][0] = -1e-3
    refuse_to_resume(write(), "second moments for spec 2", "-0.001")


@pytest.mark.parametrize("update", ["momentum", "clipup", "unit"])
def test_moments_of_another_rule_are_refused(saved, update):
    _, settings, write = saved
    settings["update"] = update
    refuse_to_resume(write(), "optimizer state")


def test_moments_without_steps_are_refused(saved):
    _, settings, write = saved
    del settings["state"]["rule.steps"]
    refuse_to_resume(write(), "moments for spec")


@pytest.mark.parametrize("steps", [-1, "two", 0.5])
def test_a_count_of_steps_that_is_none(saved, steps):
    _, settings, write = saved
    settings["state"]["rule.steps"] = steps
    refuse_to_resume(write(), "optimizer state")


@pytest.mark.parametrize("momentum", [1.5, -1, "much"])
def test_a_momentum_that_is_none(saved, momentum):
    _, settings, write = saved
    settings["momentum"] = momentum
    refuse_to_resume(write())


def test_files_from_before_there_were_rules(tmp_path):
    """They hold neither rule nor moments, and go on with unit steps."""
    path, other = tmp_path / "state.safetensors", build(MLP, VENDORS, seed=9)
    built, opt = ruled("unit")
    opt.train_step(*data(0))
    opt.save(path)
    with safe_open(path, "numpy") as file:
        settings = json.loads(file.metadata()["optimizer"])
    for name in ("update", "momentum", "control_variate"):
        del settings[name]
    del settings["state"]["rule.steps"]
    save_file(load_file(path), path, {"optimizer": json.dumps(settings)})
    again = mp.Optimizer.resume(path, other.specs)
    assert again.update == "unit"
    for one in (opt, again):
        one.train_step(*data(1))
    same_states(states(built), states(other))
