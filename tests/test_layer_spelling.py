"""How layers are written and read: signatures, unknown words, sizes as attributes, ``repr``."""

import inspect
import sys
import typing

import marketplace as mp
import numpy as np
import pytest
from marketplace import nn
from marketplace.callbacks import Callback, CSVLogger, Watch
from marketplace.continual import Learner
from marketplace.multi_model import MultiModel
from marketplace.replay import Recorder
from refusals import refusal

SIZES = {
    nn.Conv2d: ["in_channels", "out_channels", "kernel_size"],
    nn.Linear: ["in_features", "out_features"],
    nn.InstanceNorm: ["num_features"],
    nn.BatchNorm: ["num_features"],
    nn.LayerNorm: ["normalized_shape"],
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_signature_names_the_sizes(kind):
    found = inspect.signature(kind).parameters.values()
    assert [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD] == SIZES[kind]
    assert all(p.kind is p.KEYWORD_ONLY for p in found if p.name not in SIZES[kind])
    assert all(p.annotation is not inspect.Parameter.empty for p in found)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="typing.get_overloads came with 3.11")
@pytest.mark.parametrize("kind", SIZES)
def test_types_know_both_spellings(kind):
    newer, older = (inspect.signature(each) for each in typing.get_overloads(kind.__init__))
    count = len(SIZES[kind])
    newer.bind(None, *range(count), vendor_count=8)
    older.bind(None, 8, *range(count))
    for spelling, sizes in ((newer, count - 1), (newer, count + 1), (older, count)):
        with pytest.raises(TypeError):
            spelling.bind(None, *range(sizes))
    options = inspect.signature(kind).parameters
    for spelling in (newer, older):
        named = {p.name for p in spelling.parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert named - {"vendor_count"} == {
            name for name, p in options.items() if p.kind is p.KEYWORD_ONLY
        }


@pytest.mark.parametrize(
    "make, name, known",
    [
        (lambda: nn.Conv2d(3, 4, 3, strides=2), "strides", "stride, padding, dilation, groups"),
        (lambda: nn.Conv2d(3, 4, kernel=3), "kernel", "kernel_size"),
        (lambda: nn.Linear(3, 4, relu=True), "relu", "in_features, out_features, bias"),
        (lambda: nn.BatchNorm(3, eps=1e-3, epsilon=0), "epsilon", "eps, momentum, affine"),
        (lambda: nn.InstanceNorm(3, momentum=0.1), "momentum", "eps, affine"),
        (lambda: nn.LayerNorm(3, bias=False), "bias", "elementwise_affine, vendor_count"),
    ],
)
def test_an_unknown_keyword_is_refused_by_its_name(make, name, known):
    with refusal(TypeError, "expected the keywords", known, f"received {name}"):
        make()


@pytest.mark.parametrize(
    "make, received",
    [
        (lambda: nn.Conv2d(3), "1 positional sizes (3,)"),
        (lambda: nn.Conv2d(3, 4, in_channels=2), "['in_channels'] by name"),
        (lambda: nn.Conv2d(8, 3, 4, 5, 1), "5 positional sizes"),
        (lambda: nn.Conv2d(8, 3, 4, 5, vendor_count=2), "4 positional sizes"),
        (lambda: nn.Linear(in_features=3), "['in_features'] by name"),
    ],
)
def test_sizes_missing_or_given_twice(make, received):
    with refusal(TypeError, "in the older spelling after vendor_count", received):
        make()


def test_sizes_are_attributes():
    conv = nn.Conv2d(4, 6, (3, 5), stride=2, padding=(0, 1), dilation=3, groups=2)
    assert (conv.in_channels, conv.out_channels, conv.groups) == (4, 6, 2)
    assert (conv.kernel_size, conv.stride) == ((3, 5), (2, 2))
    assert (conv.padding, conv.dilation) == ((0, 1), (3, 3))
    assert conv.weight.shape == (6, 2, 3, 5)
    linear = nn.Linear(8, np.int64(3), out_features=4)
    assert (linear.vendor_count, linear.in_features, linear.out_features) == (8, 3, 4)
    assert nn.InstanceNorm(8, 5).num_features == nn.BatchNorm(5).num_features == 5
    assert nn.LayerNorm((3, 4)).normalized_shape == (3, 4)


def named(x):
    return x


REPRS = [
    (nn.Conv2d(1, 32, 5), "Conv2d(1, 32, kernel_size=5)"),
    (nn.Conv2d(3, 64, 3, 2), "Conv2d(64, 3, kernel_size=2, vendor_count=3)"),
    (
        nn.Conv2d(2, 4, (3, 1), stride=2, padding=(0, 1), dilation=2, groups=2, bias=False),
        "Conv2d(2, 4, kernel_size=(3, 1), stride=2, padding=(0, 1), dilation=2, groups=2, "
        "bias=False)",
    ),
    (nn.Linear(3, 4), "Linear(3, 4)"),
    (nn.Linear(8, 3, 4, bias=False), "Linear(3, 4, bias=False, vendor_count=8)"),
    (nn.InstanceNorm(4, eps=0.5), "InstanceNorm(4, eps=0.5)"),
    (nn.BatchNorm(4, momentum=0.5, affine=False), "BatchNorm(4, momentum=0.5, affine=False)"),
    (nn.LayerNorm((3, 4)), "LayerNorm((3, 4))"),
    (nn.LayerNorm(3, elementwise_affine=False), "LayerNorm(3, affine=False)"),
    (nn.Model(nn.Linear(3, 4), nn.relu, lambda x: x), "Model(Linear(3, 4), relu, <lambda>)"),
    (nn.Model(nn.Model(named), nn.BatchNorm(2)), "Model(Model(named), BatchNorm(2))"),
    (MultiModel([nn.Linear(3, 4)]), "MultiModel(Linear(3, 4))"),
    (mp.Spec(nn.Linear(3, 4), 2), "Spec(model=Model(Linear(3, 4)), vendor_count=2, "),
    (mp.random.RandomNumberGenerator(3, 4), "RandomNumberGenerator(3, counter=4)"),
]


@pytest.mark.parametrize("value, text", REPRS, ids=[text for _, text in REPRS])
def test_repr(value, text):
    assert repr(value).startswith(text)
    if isinstance(value, nn.Layer):
        assert repr(eval(text, vars(nn))) == text


def test_repr_of_what_trains(tmp_path):
    market = [mp.Spec(nn.Linear(3, 4), 2), mp.Spec(nn.Linear(4, 2), 3)]
    opt = mp.Optimizer(market, 0.1, plan="scatter", device="cpu", seed=1)
    text = "Optimizer(plan='scatter', vendors=[2, 3], device='cpu', step=0)"
    assert repr(opt) == text
    assert repr(opt.spec_context[1]) == "SpecContext(spec=1, vendors=3)"
    assert repr(Learner(opt, new_classes=[1])) == f"Learner({text}, new_classes=[1])"
    with Recorder(tmp_path / "log", opt) as recorder:
        assert repr(recorder) == f"Recorder({str(tmp_path / 'log')!r}, {text})"
    logger = CSVLogger("a.csv")
    assert repr(Watch(opt, [logger, print])) == f"Watch({text}, [CSVLogger('a.csv'), {print!r}])"
    assert "Callback" in repr(Watch(opt, [Callback()]))
