"""A market that changes under its optimizer: refused by name, never trained and saved apart."""

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from markets import MLP, MLP_SHAPE, batch, build, optimizer, same_bits
from refusals import refusal

X, Y = batch(MLP_SHAPE)


def other_model(specs):
    specs[1].model = nn.Model(nn.Linear(5, 4), nn.tanh)
    return "the model of spec 1", "another model"


def other_count(specs):
    specs[2].vendor_count = 5
    return "vendor_count 2 of spec 2", "5"


def other_sampling(specs):
    specs[1].upstream_sampling = 1
    return "upstream_sampling 0 of spec 1", "1"


CHANGES = {change.__name__: change for change in (other_model, other_count, other_sampling)}
PATH = np.zeros(3, np.int32)


def directions(opt):
    return [{k: v * 0 for k, v in s.model.state_dict().items()} for s in opt.marketplace]


DOORS = {
    "probe": lambda opt, path: opt.probe(X, Y),
    "accumulate": lambda opt, path: opt.accumulate(X, Y),
    "train_step": lambda opt, path: opt.train_step(X, Y),
    "several": lambda opt, path: opt.train_step(X, Y, marketplace_replica=2),
    "step": lambda opt, path: opt.step(np.arange(12.0), np.zeros((12, 3), np.int32)),
    "keep_best": lambda opt, path: opt.keep_best(np.arange(12.0), np.zeros((12, 3), np.int32)),
    "keep_best_of": lambda opt, path: opt.keep_best_of(X, Y),
    "update_weights": lambda opt, path: opt.update_weights(directions(opt)),
    "update_seeds": lambda opt, path: opt.update_seeds(),
    "get_seeds": lambda opt, path: opt.get_seeds(PATH),
    "delta": lambda opt, path: opt.spec_context[1].delta,
    "vendor": lambda opt, path: opt.vendors[0][1](X),
    "flops_per_step": lambda opt, path: opt.flops_per_step((6,), 4),
    "save": lambda opt, path: opt.save(path),
}


@pytest.mark.parametrize("enter", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_door_refuses_a_changed_spec(tmp_path, change, enter):
    opt = optimizer(build(MLP, (2, 3, 2)), seed=1)
    words = change(opt.marketplace)
    path = tmp_path / "saved"
    with refusal(RuntimeError, "Optimizer", *words):
        enter(opt, path)
    assert not path.exists()


def test_a_list_of_other_length_is_refused():
    opt = optimizer(build(MLP, (2, 3, 2)), seed=1)
    opt.marketplace.append(mp.Spec(nn.Linear(3, 3), 2))
    with refusal(RuntimeError, "Optimizer", "3 specs", "4"):
        opt.probe(X, Y)


def test_a_change_taken_back_changes_nothing():
    built, same = build(MLP, (2, 3, 2)), build(MLP, (2, 3, 2))
    opt = optimizer(built, seed=1)
    built.specs[0].vendor_count = 9
    with refusal(RuntimeError, "9"):
        opt.probe(X, Y)
    built.specs[0].vendor_count = 2
    same_bits(opt.probe(X, Y)[0], optimizer(same, seed=1).probe(X, Y)[0])


def test_the_plan_cannot_be_set():
    opt = optimizer(build(MLP, (2, 3, 2)), seed=1)
    with pytest.raises(AttributeError):
        opt.plan = "star"
    assert opt.plan == "tree" and len(opt.probe(X, Y)[0]) == 12


def test_counts_are_chosen_before_the_optimizer():
    market = build(MLP, (1, 1, 1)).specs
    counts = mp.training.allocate_vendors(market, (6,), plan="star", flops=1000)
    for spec, count in zip(market, counts, strict=True):
        spec.vendor_count = count
    opt = mp.Optimizer(market, 0.1, plan="star", seed=1)
    assert [len(context.seeds) for context in opt.spec_context] == counts
