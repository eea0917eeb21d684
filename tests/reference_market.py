"""Oracle of the algorithm: random numbers, deltas, paths, z-scores, directions, meta learning rate.

Written for reading: one loop per sum of the formulas, float64 throughout. A spec's weights are a
dict from state-dict key to array, its vendors' deltas a list (one such dict per vendor), a model a
function ``f(x, weights) -> y``. Random words are exact integers.
"""

import itertools
import math

import numpy as np
import reference

MASK32 = 0xFFFFFFFF
REPLICA_STREAM = 0x94D049BB133111EB
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


# -- random numbers --------------------------------------------------------------------------------


def threefry2x32(seed, x0, x1):
    """Threefry-2x32, 20 rounds (Salmon et al. 2011): two counter words in, two random words out."""
    k0, k1 = seed & MASK32, seed >> 32
    ks = (k1, k0 ^ k1 ^ 0x1BD11BDA, k0)
    x0, x1 = (x0 + ks[2]) & MASK32, (x1 + ks[0]) & MASK32
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = (x0 + x1) & MASK32
            x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) & MASK32
            x1 ^= x0
        x0 = (x0 + ks[group % 3]) & MASK32
        x1 = (x1 + ks[(group + 1) % 3] + group + 1) & MASK32
    return x0, x1


def random_words(seed, counter, count):
    """The ``count`` words of a tensor from ``counter`` on: all first words, then all second."""
    half = (count + 1) // 2
    first = (np.arange(half, dtype=np.uint64) + int(counter)) & MASK32
    words = np.concatenate(threefry2x32(int(seed), first, (first + half) & MASK32))
    return words[:count].astype(np.uint32)


def rand(shape, seed, counter=0, dtype=np.float32):
    """Uniform numbers in [0, 1) as exact float32 or float16."""
    count = math.prod(shape)
    words = random_words(seed, counter, counter_advance(shape, dtype))
    if np.dtype(dtype) == np.float32:
        return (((words >> 9) | 0x3F800000).view(np.float32) - np.float32(1)).reshape(shape)
    halves = words.astype("<u4").view("<u2")
    numbers = ((halves >> 6) | 0x3C00).view(np.float16) - np.float16(1)
    return numbers[:count].reshape(shape)


def counter_advance(shape, dtype=np.float32):
    """How many words a tensor of ``shape`` takes from the counter."""
    return math.ceil(math.prod(shape) * np.dtype(dtype).itemsize / 4)


def delta(shapes, seed, amplitude):
    """One vendor's deltas for all parameters of a spec, by key; uniform in ±``amplitude``."""
    result, counter = {}, 0
    for key in sorted(shapes):
        numbers = rand(shapes[key], seed, counter).astype(np.float64)
        result[key] = 0 * numbers if seed == 0 else 2 * amplitude * numbers - amplitude
        counter += counter_advance(shapes[key])
    return result


def counter_end(shapes):
    """The counter that follows all parameters of a spec."""
    return sum(counter_advance(shape) for shape in shapes.values())


def derive_seeds(master, generation, spec, count, replica=0):
    """Seeds of a spec's vendors: ``threefry(threefry(master, generation), (spec, vendor))``.

    Replicas after the first put ``threefry(key ^ constant, replica)`` in between.
    """
    low, high = threefry2x32(master, generation & MASK32, generation >> 32)
    key = high << 32 | low
    if replica:
        low, high = threefry2x32(key ^ REPLICA_STREAM, replica & MASK32, replica >> 32)
        key = high << 32 | low
    pairs = [threefry2x32(key, spec, vendor) for vendor in range(count)]
    seeds = [high << 32 | low for low, high in pairs]
    return [0] + [seed if seed else 1 for seed in seeds[1:]]


# -- paths -----------------------------------------------------------------------------------------


def tree_paths(vendor_counts, chosen=None):
    """All paths in the order of ``forward``: row ``v·k + i`` is vendor v on its i-th upstream.

    ``chosen[spec]`` is ``(V, k)``, the upstream rows each vendor drew, or None for all of them.
    """
    paths = [[v] for v in range(vendor_counts[0])]
    for spec, count in enumerate(vendor_counts[1:], start=1):
        draws = None if chosen is None else chosen[spec]
        everything = range(len(paths))
        paths = [
            [*paths[row], v]
            for v in range(count)
            for row in (everything if draws is None else draws[v])
        ]
    return np.array(paths, dtype=np.int32)


def star_paths(vendor_counts):
    """The leader path, then for spec 0, 1, … each vendor that deviates only there."""
    paths = [[0] * len(vendor_counts)]
    for spec, count in enumerate(vendor_counts):
        for v in range(1, count):
            path = [0] * len(vendor_counts)
            path[spec] = v
            paths.append(path)
    return np.array(paths, dtype=np.int32)


def scatter_paths(master, generation, samples, vendor_counts):
    """A path per sample: each spec's vendors dealt out in turn, then shuffled (Fisher-Yates).

    Draw (spec, sample) is ``threefry(threefry(master ^ stream, generation), (spec, sample))``.
    """

    def number(key, c0, c1):
        low, high = threefry2x32(key, c0, c1)
        return high << 32 | low

    key = number(master ^ 0xD1B54A32D192ED03, generation & MASK32, generation >> 32)
    columns = []
    for spec, count in enumerate(vendor_counts):
        deal = [sample % count for sample in range(samples)]
        for i in range(samples):
            j = i + (number(key, spec, i) * (samples - i) >> 64)
            deal[i], deal[j] = deal[j], deal[i]
        columns.append(deal)
    return np.array(columns, dtype=np.int32).T


# -- forward ---------------------------------------------------------------------------------------


def vendor_weights(weights, vendor_delta):
    """``W + delta`` for every key."""
    return {key: np.float64(value) + vendor_delta[key] for key, value in weights.items()}


def forward_path(models, weights, deltas, x, path):
    """Evaluate one path explicitly, from the input to the logits."""
    for model, base, vendors, v in zip(models, weights, deltas, path, strict=True):
        x = model(x, vendor_weights(base, vendors[v]))
    return x


def forward(models, weights, deltas, x, paths):
    """Evaluate every path of ``paths (P, S)``, sharing nothing: ``(P, B, ...)``."""
    return np.stack([forward_path(models, weights, deltas, x, path) for path in paths])


def forward_with_paths(models, weights, deltas, x, paths):
    """One output per sample: sample b takes ``paths[b]``."""
    rows = [
        forward_path(models, weights, deltas, x[b : b + 1], path) for b, path in enumerate(paths)
    ]
    return np.concatenate(rows)


# -- directions ------------------------------------------------------------------------------------


def z_scores(loss):
    """``−(loss − mean) / std``, sample standard deviation."""
    loss = np.asarray(loss, np.float64)
    mean = sum(loss) / len(loss)
    variance = sum((value - mean) ** 2 for value in loss) / (len(loss) - 1)
    return -(loss - mean) / math.sqrt(variance)


def tree_sums(loss, paths, deltas):
    """``g_i = Σ_paths z[path] · delta_{i, path[i]}`` for every spec, by key."""
    z = z_scores(loss)
    sums = []
    for spec, vendors in enumerate(deltas):
        g = {key: np.zeros_like(value) for key, value in vendors[0].items()}
        for score, path in zip(z, paths, strict=True):
            for key in g:
                g[key] += score * vendors[path[spec]][key]
        sums.append(g)
    return sums


def star_sums(loss, paths, deltas, mode):
    """``g_i`` of the star: z over spec i's deviations and the leader; ``whole``: over all."""
    loss = np.asarray(loss, np.float64)
    sums = []
    for spec, vendors in enumerate(deltas):
        deviates = [p for p, path in enumerate(paths) if path[spec] != 0 or not any(path)]
        rows = deviates if mode == "per_spec" else list(range(len(paths)))
        g = {key: np.zeros_like(value) for key, value in vendors[0].items()}
        if len(vendors) > 1:
            for score, row in zip(z_scores(loss[rows]), rows, strict=True):
                for key in g:
                    g[key] += score * vendors[paths[row][spec]][key]
        sums.append(g)
    return sums


def coefficients(loss, paths, vendor_counts, mode, plan):
    """``c_{i,v} = Σ_{paths through v} z``: the sums where vendor v's delta is unit vector v."""
    one_hot = [[{"": np.eye(count)[v]} for v in range(count)] for count in vendor_counts]
    if plan == "star":
        return [g[""] for g in star_sums(loss, paths, one_hot, mode)]
    return [g[""] for g in tree_sums(loss, paths, one_hot)]


def unit_vectors(sums, mode):
    """Divide by the norm of each spec's vector (``per_spec``) or of all together (``whole``)."""
    squares = [sum(float((value**2).sum()) for value in g.values()) for g in sums]
    if mode == "whole":
        squares = [sum(squares)] * len(squares)
    return [
        {key: value / math.sqrt(square) if square > 0 else value for key, value in g.items()}
        for g, square in zip(sums, squares, strict=True)
    ]


def direction_sums(loss, paths, deltas, mode, plan):
    """``g_i`` of either plan."""
    if plan == "star":
        return star_sums(loss, paths, deltas, mode)
    return tree_sums(loss, paths, deltas)


def directions(loss, paths, deltas, mode="per_spec", plan="tree"):
    """Direction vectors of every spec, by key."""
    return unit_vectors(direction_sums(loss, paths, deltas, mode, plan), mode)


def replica_directions(losses, paths, deltas, mode="per_spec", plan="tree"):
    """Directions of several draws: every draw's ``g_i`` from its own z, summed, then divided."""
    each = [
        direction_sums(loss, paths, d, mode, plan) for loss, d in zip(losses, deltas, strict=True)
    ]
    total = [{key: sum(g[i][key] for g in each) for key in each[0][i]} for i in range(len(each[0]))]
    return unit_vectors(total, mode)


def step(weights, direction, learning_rates):
    """``W_i + lr_i · d_i``."""
    return [
        {key: np.float64(value) + rate * d[key] for key, value in base.items()}
        for base, d, rate in zip(weights, direction, learning_rates, strict=True)
    ]


# -- meta learning rate ----------------------------------------------------------------------------


def meta_scales(shapes, seeds, meta_learning_rate):
    """Scale of every vendor of a spec: a scalar draw after all its parameters, the leader's 0."""
    scales = [0.0]
    for seed in seeds[1:]:
        number = float(rand((), seed, counter_end(shapes)))
        scales.append(2 * meta_learning_rate * number - meta_learning_rate)
    return np.array(scales)


def meta_deltas(direction, learning_rate, scales):
    """``d · lr · (1 + s_v)`` for every vendor of a spec."""
    return [
        {key: value * learning_rate * (1 + scale) for key, value in direction.items()}
        for scale in scales
    ]


def meta_learning_rates(learning_rates, scales, path):
    """Each spec's winning ``lr · (1 + s)``."""
    return np.array(
        [rate * (1 + s[v]) for rate, s, v in zip(learning_rates, scales, path, strict=True)]
    )


# -- shorthands ------------------------------------------------------------------------------------


def all_deltas(weights, seeds, amplitudes):
    """Deltas of every spec and vendor from their seeds."""
    return [
        [delta({k: np.shape(w) for k, w in base.items()}, int(s), amplitude) for s in spec_seeds]
        for base, spec_seeds, amplitude in zip(weights, seeds, amplitudes, strict=True)
    ]


def path_losses(models, weights, deltas, x, y, paths, ignore_index=None):
    """Mean cross entropy of every path."""
    logits = forward(models, weights, deltas, x, paths)
    return np.array([reference.cross_entropy(row, y, ignore_index=ignore_index) for row in logits])


def all_vendor_combinations(vendor_counts):
    """Every path once, in no promised order: to check that an enumeration is complete."""
    return set(itertools.product(*(range(count) for count in vendor_counts)))
