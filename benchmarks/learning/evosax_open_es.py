"""Open-ES of evosax (Salimans et al. 2017): mirrored Gaussian noise on all weights at once.

evosax asks for a population and is told its losses; it ranks them. The update is Adam's (optax).
Every member sees the same batch. Members run one after another, which here is as fast as ``vmap``
and needs the memory of one.
"""

from typing import Any

import numpy as np

from benchmarks import forest
from benchmarks.contender_jax import Ops
from benchmarks.contender_jax import load as load_jax
from benchmarks.learning import network
from benchmarks.learning.methods import Settings
from benchmarks.learning.network import Weights


def load(threads: int, device: str = "cpu") -> None:
    """Import the library and what it stands on."""
    load_jax(threads)
    import evosax.algorithms  # noqa: F401
    import optax  # noqa: F401


def _loss(population: Any, index: Any, x: Any, y: Any) -> Any:
    """Mean cross-entropy of one member."""
    import jax
    import jax.numpy as jnp

    weights = {key: value[index] for key, value in population.items()}
    scores = jax.nn.log_softmax(forest.run_layers(network.LAYERS, x, weights, Ops()))
    return -scores[jnp.arange(len(y)), y].mean()


class EvosaxOpenES:
    """A search distribution around the weights, and evosax's state of it."""

    def __init__(self, settings: Settings, weights: Weights, seed: int) -> None:
        import jax
        import optax
        from evosax.algorithms import Open_ES

        self.jax, self.settings = jax, settings
        self.es = Open_ES(
            population_size=settings["population"],
            solution=weights,
            optimizer=optax.inject_hyperparams(optax.adam)(learning_rate=settings["lr"]),
            std_schedule=optax.constant_schedule(settings["sigma"]),
        )
        self.params = self.es.default_params
        self.key, first = jax.random.split(jax.random.key(seed))
        self.state = self.es.init(first, weights, self.params)
        self.loss = jax.jit(_loss)
        self._compile()

    def _compile(self) -> None:
        """Run a generation that is forgotten, so that compiling is no part of the first step."""
        key, state = self.key, self.state
        batch = self.settings["batch"]
        self.step(np.zeros((batch, 1, 28, 28), np.uint8), np.zeros(batch, np.int32), 0.0)
        self.key, self.state = key, state

    def step(self, x: Any, y: Any, rate: float) -> float:
        """Ask, evaluate, tell; the population's mean loss."""
        jnp = self.jax.numpy
        self.state.opt_state.hyperparams["learning_rate"] = jnp.asarray(rate, jnp.float32)
        self.key, asking, telling = self.jax.random.split(self.key, 3)
        population, state = self.es.ask(asking, self.state, self.params)
        images, labels = jnp.asarray(x, jnp.float32), jnp.asarray(y)
        members = range(self.settings["population"])
        losses = jnp.stack([self.loss(population, i, images, labels) for i in members])
        self.state, _ = self.es.tell(telling, population, losses, state, self.params)
        return float(losses.mean())

    def weights(self) -> Weights:
        """Give the distribution's mean."""
        mean = self.es.get_mean(self.state)
        return {key: np.asarray(value, np.float32) for key, value in mean.items()}


def flops_per_step(settings: Settings) -> int:
    """Count every member's forward pass."""
    return int(settings["population"]) * network.forward_flops(settings["batch"])


def make(settings: Settings, weights: Weights, seed: int, threads: int) -> EvosaxOpenES:
    """Start a run."""
    return EvosaxOpenES(settings, weights, seed)
