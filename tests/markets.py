"""Small markets, built twice from one description: as the product's specs and as the oracle's.

A description is one list per spec of ``(op name, options)``, the names being those of the registry.
"""

import copy
import dataclasses
import math
from collections.abc import Callable

import marketplace as mp
import numpy as np
import reference_market
from ops import OPS

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def conv(channels, out, kernel, **options):
    """Describe a conv2d."""
    return ("conv2d", {"in": channels, "out": out, "kernel": kernel, **options})


def linear(inputs, out):
    """Describe a linear layer."""
    return ("linear", {"in": inputs, "out": out})


def norm(channels, kind="instance_norm"):
    """Describe a normalisation over channels."""
    return (kind, {"channels": channels})


RELU, TANH, POOL = ("relu", {}), ("tanh", {}), ("max_pool2d", {})
FLATTEN = ("flatten", {"dims": (1,)})

CONV = [
    [conv(1, 3, 3), RELU, norm(3), POOL],
    [conv(3, 4, 3, padding=1), RELU, FLATTEN],
    [linear(36, 3)],
]
CONV_SHAPE = (5, 1, 8, 8)
MLP = [[linear(6, 5), TANH], [linear(5, 4), TANH], [linear(4, 3)]]
MLP_SHAPE = (7, 6)
DEEP = [[linear(6, 5), TANH], [linear(5, 4), RELU], [linear(4, 4), TANH], [linear(4, 3)]]
SHALLOW = [[linear(6, 3)]]


@dataclasses.dataclass
class Built:
    """A market of the product, and the oracle's functions of the same layers."""

    specs: list
    models: list[Callable]

    @property
    def weights(self):
        """The market's present parameters, one dict per spec; no buffers."""
        return [parameters(spec.model) for spec in self.specs]

    def shapes(self, spec):
        """Parameter shapes of one spec, by key."""
        return {key: value.shape for key, value in self.weights[spec].items()}

    def deltas(self, seeds, amplitude):
        """The oracle's deltas of every spec and vendor."""
        count = len(self.specs)
        return reference_market.all_deltas(self.weights, seeds, [amplitude] * count)


def parameters(model):
    """A model's parameters without the running statistics."""
    state = model.state_dict()
    return {k: v for k, v in state.items() if not k.endswith(BUFFERS)}


def oracle_model(layers):
    """The oracle's ``f(x, weights)`` of one spec's description."""

    def run(x, weights):
        for index, (name, options) in enumerate(layers):
            prefix = f"layers.{index}."
            mine = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
            x = OPS[name].oracle(x, mine, options)
        return x

    return run


def build(description, vendor_counts, seed=0, sampling=None):
    """Make the market, with weights drawn from ``seed``."""
    sampling = sampling or [0] * len(description)
    specs = []
    for layers, count, sample in zip(description, vendor_counts, sampling, strict=True):
        model = mp.nn.Model(*(OPS[name].layer(options) for name, options in layers))
        specs.append(mp.Spec(model=model, vendor_count=count, upstream_sampling=sample))
    built = Built(specs, [oracle_model(layers) for layers in description])
    draw_weights(built, np.random.default_rng(seed))
    return built


def draw_weights(built, rng):
    """Give every parameter of the market values of a sensible size."""
    for spec in built.specs:
        state = spec.model.state_dict()
        for key, value in parameters(spec.model).items():
            state[key] = draw(key, value.shape, rng)
        spec.model.load_state_dict(state)


def draw(key, shape, rng):
    """Values for one parameter: unit variance of products, norms around ±1, small biases."""
    if key.endswith("bias"):
        return rng.normal(scale=0.3, size=shape).astype(np.float32)
    if len(shape) < 2:
        return (rng.uniform(0.5, 1.5, size=shape) * rng.choice([-1, 1], shape)).astype(np.float32)
    return rng.normal(scale=1 / math.sqrt(math.prod(shape[1:])), size=shape).astype(np.float32)


def batch(shape, classes=3, seed=1):
    """A float32 batch and its labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    return x, rng.integers(0, classes, size=shape[0]).astype(np.int32)


def fresh_seeds(vendor_counts, seed=5):
    """Seeds for every spec, the leader's 0."""
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([[0], rng.integers(1, 2**63, size=count - 1)]).astype(np.uint64)
        for count in vendor_counts
    ]


def optimizer(built, seeds=None, **options):
    """An optimizer of the product over the market."""
    options = {"learning_rate": 0.3, "probe_scale": 0.4, "threads": 1} | options
    return mp.Optimizer(marketplace=built.specs, seeds=seeds, **options)


VENDORS = (3, 4, 5)
MODES = list(mp.UnitVectorMode)
PLANS = {"tree": reference_market.tree_paths, "star": reference_market.star_paths}
AMPLITUDE = 0.3 * 0.4  # of ``optimizer``


def close(actual, expected, relative=1e-5, scale=None):
    """Assert an error of at most ``relative`` of the largest expected value, or of ``scale``."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    limit = relative * (np.abs(expected).max() if scale is None else scale)
    error = np.abs(np.float64(actual) - np.float64(expected)).max()
    assert error <= limit, f"error {error:.3g} above {limit:.3g}"


def same_bits(a, b):
    """Assert equal shape, dtype and bits."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.tobytes() == b.tobytes()


def states(built):
    """A copy of everything that training may change."""
    return copy.deepcopy([spec.model.state_dict() for spec in built.specs])


def same_states(before, after):
    """Assert the same keys and bits in two results of ``states``."""
    for a, b in zip(before, after, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            same_bits(a[key], b[key])


def close_parameters(built, expected):
    """Assert that the market's parameters are the oracle's."""
    for spec, weights in zip(built.specs, expected, strict=True):
        actual = parameters(spec.model)
        assert actual.keys() == weights.keys()
        for key, value in weights.items():
            close(actual[key], value)


def seeds_of(opt):
    """Seeds of every spec."""
    return [np.array(context.seeds) for context in opt.spec_context]
