"""What a refused call must look like: the project's message, and a market left as it was."""

import contextlib

import pytest
from markets import (
    batch,
    build,
    fresh_seeds,
    optimizer,
    same_bits,
    same_states,
    seeds_of,
    states,
)

VENDORS = (2, 3, 2)


@contextlib.contextmanager
def refusal(error, *words):
    """Expect ``error`` in the project's form, with every word in its message."""
    with pytest.raises(error, match=r"(?s)^\w.*: expected .+, received .+") as caught:
        yield
    for word in words:
        assert word in str(caught.value), f"{word!r} not in {str(caught.value)!r}"


class Trained:
    """A market with an optimizer over it, and a check that a refused call left both alone."""

    def __init__(self, description, shape, **options):
        self.built = build(description, VENDORS)
        self.opt = optimizer(self.built, fresh_seeds(VENDORS), **options)
        self.x, self.y = batch(shape)
        self.loss, self.paths = self.opt.probe(self.x, self.y)
        self.before = states(self.built), seeds_of(self.opt), self.opt.global_step

    @property
    def specs(self):
        return self.built.specs

    def assert_unchanged(self):
        same_states(self.before[0], states(self.built))
        for a, b in zip(self.before[1], seeds_of(self.opt), strict=True):
            same_bits(a, b)
        assert self.opt.global_step == self.before[2]
        same_bits(self.opt.probe(self.x, self.y)[0], self.loss)
