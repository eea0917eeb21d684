"""Oracle of node perturbation, by its formula in float64, and what the tests of it share.

Every channel of every sample of a convolution or linear layer is disturbed alone and followed to
its loss by a full forward pass of everything behind it; nothing of the engine's shortcuts is used.
A market is cut into layers first, ``Layer``s in the order of the data.
"""

import dataclasses
import math

import numpy as np
import reference
import reference_market as oracle
from marketplace._flat import split
from markets import build, fresh_seeds, optimizer, parameters
from ops import OPS
from ops.registry import U32

STAGE_DOMAIN = 0x6E6F6465
NO_SAMPLE = 0xFFFFFFFF
NODES = {"scalar": 4}  # graph nodes of a layer, where they are not one
CONTRACTIONS = ("conv2d", "linear")


@dataclasses.dataclass
class Layer:
    """One layer of a market: where it is, what it computes, its parameters by short name."""

    spec: int
    index: int
    node: int
    name: str
    options: dict
    weights: dict

    def __call__(self, x, weights=None):
        return OPS[self.name].oracle(x, self.weights if weights is None else weights, self.options)

    def key(self, short):
        return f"layers.{self.index}.{short}"


def layers_of(description, weights):
    """Every layer of a market in the order of the data."""
    layers = []
    for spec, row in enumerate(description):
        node = 0
        for index, (name, options) in enumerate(row):
            node += NODES.get(name, 1)
            prefix = f"layers.{index}."
            mine = {
                key.removeprefix(prefix): np.float64(value)
                for key, value in weights[spec].items()
                if key.startswith(prefix)
            }
            layers.append(Layer(spec, index, node, name, options, mine))
    return layers


# -- signs -----------------------------------------------------------------------------------------


def sign_words(key, sample, count):
    """``count`` words: block j has counters (j, sample); all first words, then all second."""
    half = (count + 1) // 2
    first, second = oracle.threefry2x32(key, np.arange(half, dtype=np.uint64), sample)
    return np.concatenate([first, second])[:count]


def stage_key(seed, node):
    low, high = oracle.threefry2x32(int(seed), node, STAGE_DOMAIN)
    return high << 32 | low


def random_signs(key, samples, channels, pixels):
    """Signs ``(B, C, pixels)``: a pixel's channels lie in words of their own, lowest bit first."""
    each = (channels + 31) // 32
    words = np.stack([sign_words(key, b, pixels * each) for b in range(samples)])
    c = np.arange(channels, dtype=np.uint64)
    bits = words.reshape(samples, pixels, each)[:, :, c // 32] >> (c % 32) & 1
    return (1.0 - 2.0 * bits).transpose(0, 2, 1)


def walsh(rows):
    """Rows 0 to ``rows`` - 1 of Sylvester's matrix of the least order that has them."""
    matrix = np.ones((1, 1))
    while len(matrix) < rows:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix[:rows]


def columns(probes, parameters, pixels):
    """Columns of that matrix, of the channelwise parameters and of the pixels behind them."""
    order = walsh(probes).shape[1]
    period = order if order < 4 * parameters else order - parameters
    mine = 1 + parameters + np.arange(pixels) % period
    return np.concatenate([1 + np.arange(parameters), mine]) % order


def parameter_signs(key, count):
    """Random signs ``(count,)`` of the flat channelwise parameters."""
    words = sign_words(key, NO_SAMPLE, (count + 31) // 32)
    return np.array([1.0 - 2.0 * (int(words[i // 32]) >> (i % 32) & 1) for i in range(count)])


# -- the estimator ---------------------------------------------------------------------------------


def first_trained(counts):
    trained = [i for i, count in enumerate(counts[:-1]) if count > 1]
    return trained[0] if trained else len(counts) - 1


@dataclasses.dataclass
class Stage:
    """A contraction, the layers up to the next one, and the layers from there on."""

    contraction: Layer
    channelwise: list
    rest: list
    x: np.ndarray  # what goes into the contraction


def stages_of(layers, counts, x):
    """The stages from the first trained spec on, with their inputs; ``x`` is the market's."""
    first, stages = first_trained(counts), []
    for at, layer in enumerate(layers):
        if layer.spec >= first and layer.name in CONTRACTIONS:
            ends = [k for k in range(at + 1, len(layers)) if layers[k].name in CONTRACTIONS]
            end = ends[0] if ends else len(layers)
            stages.append(Stage(layer, layers[at + 1 : end], layers[end:], x))
        x = layer(x)
    return stages, x


def losses_of(layers, x, y, ignore_index=None):
    for layer in layers:
        x = layer(x)
    return reference.cross_entropy(x, y, reduction="none", ignore_index=ignore_index)


def noise_of(sums, scale):
    """Size of the noise by sample: in units of the sums' root mean square."""
    axes = tuple(range(1, sums.ndim))
    rms = np.sqrt((sums**2).mean(axis=axes, keepdims=True))
    return np.float64(np.float32(scale)) * np.where(rms < 1e-30, 1.0, rms)


def flat_parameters(stage):
    """The channelwise parameters of a stage in their order: layer and short name."""
    named = (
        (f"{layer.spec}.{layer.key(short)}", layer, short)
        for layer in stage.channelwise
        for short in layer.weights
    )
    return [(layer, short) for _, layer, short in sorted(named)]


def changed_parameters(stage, counts, signs, step, channel):
    """The channelwise layers with one channel's parameters moved, and the moves, by layer.

    ``signs (parameters, channels)`` are of one probe.
    """
    moves = {}
    weights = {id(layer): dict(layer.weights) for layer in stage.channelwise}
    for row, (layer, short) in zip(signs, flat_parameters(stage), strict=True):
        if counts[layer.spec] == 1:
            continue
        move = row[channel]
        moves[layer.spec, layer.key(short)] = move
        changed = layer.weights[short].copy()
        changed[channel] += step * move
        weights[id(layer)][short] = changed
    return weights, moves


def probe_stage(stage, counts, seeds, scale, y, base, ignore_index, gradients):
    """Errors ``(B, C, pixels)`` of a stage's sums; adds its channelwise parameters' gradients."""
    sums = stage.contraction(stage.x)
    samples, channels = sums.shape[:2]
    pixels = math.prod(sums.shape[2:])
    noise, spec = noise_of(sums, scale), stage.contraction.spec
    probes, parameters = counts[spec] - 1, len(flat_parameters(stage))
    key = stage_key(seeds[spec][1], stage.contraction.node)
    step = np.float64(np.float32(scale))
    errors = np.zeros((samples, channels, pixels))
    own = random_signs(key, samples, channels, pixels)
    shared = parameter_signs(key, parameters * channels).reshape(parameters, channels)
    for row in walsh(probes)[:, columns(probes, parameters, pixels)]:
        sign = own * row[parameters:]
        for c in range(channels):
            x = sums.copy()
            x[:, c] += (noise.reshape(samples, 1) * sign[:, c]).reshape(x[:, c].shape)
            moved = shared * row[:parameters, None]
            weights, moves = changed_parameters(stage, counts, moved, step, c)
            for layer in stage.channelwise:
                x = layer(x, weights[id(layer)])
            change = losses_of(stage.rest, x, y, ignore_index) - base
            errors[:, c] += sign[:, c] * change[:, None]
            for (owner, name), move in moves.items():
                gradients[owner][name][c] += change.sum() * move / (probes * step)
    return errors / (probes * noise.reshape(samples, 1, 1))


def weight_gradient(layer, x, errors):
    """The outer product of errors ``(B, O, pixels)`` and input, by parameter."""
    weight = layer.weights["weight"]
    total = {"bias": errors.sum(axis=(0, 2))} if "bias" in layer.weights else {}
    if layer.name == "linear":
        return total | {"weight": np.einsum("bop,bi->oi", errors, x)}
    (sy, sx), (py, px), (dy, dx) = (
        reference.pair(layer.options.get(name, default))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    out_h, out_w = layer(x[:1]).shape[2:]
    errors = errors.reshape(len(x), len(weight), out_h, out_w)
    gradient = np.zeros_like(weight)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            rows = slice(i * dy, i * dy + sy * (out_h - 1) + 1, sy)
            columns = slice(j * dx, j * dx + sx * (out_w - 1) + 1, sx)
            tap = padded[:, :, rows, columns]
            gradient[:, :, i, j] = np.einsum("bohw,bchw->oc", errors, tap)
    return total | {"weight": gradient}


def logit_errors(logits, y, ignore_index=None):
    """Softmax minus one-hot, zero where the label is ignored: ``(B, classes, 1)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = shifted / shifted.sum(axis=1, keepdims=True)
    keep = np.ones(len(y), bool) if ignore_index is None else y != ignore_index
    errors[keep, y[keep]] -= 1
    return (errors * keep[:, None])[:, :, None]


def counted(y, ignore_index):
    return len(y) if ignore_index is None else int((y != ignore_index).sum())


def estimate(description, weights, counts, seeds, scale, x, y, ignore_index=None):
    """Gradients of the mean loss by spec and key, and bounds of the engine's rounding errors.

    A loss change is a difference of two float32 losses, each after a forward pass; both ends of it
    are good to some units in the last place of the largest logit. Divided by the noise, that bounds
    every error, and the bound goes through the same outer product with the input's magnitude.
    """
    layers = layers_of(description, weights)
    stages, logits = stages_of(layers, counts, np.float64(x))
    base = reference.cross_entropy(logits, y, reduction="none", ignore_index=ignore_index)
    gradients = [{k: np.zeros(np.shape(v)) for k, v in spec.items()} for spec in weights]
    bounds = [{k: np.zeros(np.shape(v)) for k, v in spec.items()} for spec in weights]
    units = 32 * U32 * max(1.0, np.abs(logits).max())
    for stage in stages[:-1]:
        layer = stage.contraction
        if counts[layer.spec] == 1:
            continue
        errors = probe_stage(stage, counts, seeds, scale, y, base, ignore_index, gradients)
        noise = noise_of(layer(stage.x), scale).reshape(len(y), 1, 1)
        add(gradients, bounds, stage, errors, units / noise)
        for other in stage.channelwise:
            for short in other.weights if counts[other.spec] > 1 else ():
                bounds[other.spec][other.key(short)] += len(y) * units / scale
    add(gradients, bounds, stages[-1], logit_errors(logits, y, ignore_index), units)
    total = counted(y, ignore_index)
    return [
        [{k: v / total for k, v in spec.items()} for spec in values]
        for values in (gradients, bounds)
    ]


def add(gradients, bounds, stage, errors, error_bound):
    """Add a contraction's gradient, and its bound: of errors, of the input, of the product."""
    layer, x_bound = stage.contraction, 16 * U32 * np.abs(stage.x).max()
    magnitude = error_bound + 16 * U32 * np.abs(errors)
    for short, value in weight_gradient(layer, stage.x, errors).items():
        gradients[layer.spec][layer.key(short)] += value
    for short, value in weight_gradient(layer, np.abs(stage.x) + x_bound, magnitude).items():
        bounds[layer.spec][layer.key(short)] += value
    off = weight_gradient(layer, np.full_like(stage.x, x_bound), np.abs(errors))["weight"]
    bounds[layer.spec][layer.key("weight")] += off


# -- the engine's ----------------------------------------------------------------------------------


def node(built, seeds=None, **options):
    """An optimizer that perturbs nodes."""
    return optimizer(built, seeds, **{"plan": "node", "probe_scale": 0.3} | options)


def gradients_of(opt, x, y, ignore_index=None, scale=None):
    """Mean loss and gradients by spec and key, as the engine measures them."""
    opt._ready()
    specs = opt.marketplace
    loss, flat = opt._market.node_gradients(
        [spec.vendor_count for spec in specs],
        [np.array(context.seeds) for context in opt.spec_context],
        float(opt.probe_scale) if scale is None else scale,
        x,
        y,
        ignore_index,
    )
    return loss, [split(spec, values) for spec, values in zip(specs, flat, strict=True)]


def check(description, counts, x, y, *, scale=0.3, ignore_index=None, **options):
    """Assert that the engine's gradients are the oracle's, and that the bounds can tell."""
    built, seeds = build(description, counts), fresh_seeds(counts)
    opt = node(built, seeds, probe_scale=scale, **options)
    loss, actual = gradients_of(opt, x, y, ignore_index)
    weights = [parameters(spec.model) for spec in built.specs]
    expected, bounds = estimate(description, weights, counts, seeds, scale, x, y, ignore_index)
    layers = layers_of(description, weights)
    each = losses_of(layers, np.float64(x), y, ignore_index)
    assert abs(loss - each.sum() / counted(y, ignore_index)) <= 1e-5 * max(1.0, abs(loss))
    compare(actual, expected, bounds)
    return expected


def compare(actual, expected, bounds):
    for spec, (mine, theirs, limits) in enumerate(zip(actual, expected, bounds, strict=True)):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            assert mine[key].shape == value.shape and mine[key].dtype == np.float32
            error, limit = np.abs(np.float64(mine[key]) - value), limits[key]
            worst = np.max(error / np.maximum(limit, 1e-30))
            assert (error <= limit).all(), f"spec {spec} {key}: {worst:.3g} of its bound"
            # a bound that is as large as what it bounds would pass anything
            assert limit.max() == 0 or limit.max() < 0.1 * np.abs(value).max(), (spec, key)
