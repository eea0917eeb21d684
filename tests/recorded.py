"""Short runs under a replay recorder, for the tests of replay."""

from marketplace import replay
from markets import (
    CONV,
    CONV_SHAPE,
    FLATTEN,
    POOL,
    RELU,
    VENDORS,
    batch,
    build,
    conv,
    linear,
    norm,
    optimizer,
    same_bits,
)

NORMED = [
    [conv(1, 3, 3), norm(3, "batch_norm"), RELU, POOL],
    [conv(3, 4, 3), norm(4, "batch_norm"), RELU, FLATTEN],
    [linear(4, 3)],
]
STEPS = 5


def train(opt, steps, mode="per_spec", shape=CONV_SHAPE):
    """Take steps with decaying rates; give the market's arrays before each and after the last."""
    seen = [[spec.model.state_dict() for spec in opt.marketplace]]
    for _ in range(steps):
        opt.train_step(*batch(shape, seed=opt.global_step), unit_vector_mode=mode)
        opt.learning_rate *= 0.9
        seen.append([spec.model.state_dict() for spec in opt.marketplace])
    return seen


def same_arrays(rebuilt, specs, step):
    """Assert that rebuilt arrays are those of some specs' state dicts."""
    expected = {f"spec.{i}.{key}": v for i, spec in enumerate(specs) for key, v in spec.items()}
    assert rebuilt.keys() == expected.keys() | {"global_step"}
    assert int(rebuilt["global_step"]) == step
    for key, value in expected.items():
        same_bits(rebuilt[key], value)


def record(path, description=CONV, shape=CONV_SHAPE, mode="per_spec", steps=STEPS, **options):
    """Train under a recorder; give the arrays of every step."""
    opt = optimizer(build(description, VENDORS), **({"seed": 3} | options))
    with replay.Recorder(path, opt):
        return train(opt, steps, mode, shape)
