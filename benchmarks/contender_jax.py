"""JAX: the whole evaluation as one jitted function.

- ``jax-vmap``: ``jax.vmap`` over the vendors.
- ``jax-loop``: the vendors one after another, unrolled while tracing.

All vendors' weights lie ready in the dtype. On a CPU, XLA takes its number of threads from
the environment and from the cores that the process may use; ``harness.limit_threads`` sets both.
"""

from typing import Any

from benchmarks import forest
from benchmarks.cases import Case, Conv, Linear, Norm
from benchmarks.harness import Run
from benchmarks.problem import F32, Problem

PLATFORMS = {"cpu": "cpu", "cuda": "cuda", "hip": "rocm"}
MOST_UNROLLED = 64  # vendors in all; beyond, compiling takes minutes


def load(threads: int, device: str = "cpu") -> None:
    """Import the library and start its client; float32 stays float32 on a GPU."""
    import jax

    jax.config.update("jax_platforms", PLATFORMS[device.partition(":")[0]])
    if device != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")
    jax.devices()


def why_not(name: str, case: Case, dtype: str) -> str | None:
    """Say why a contender does not take part, if so."""
    if name == "jax-loop" and sum(case.vendors) > MOST_UNROLLED:
        return f"more than {MOST_UNROLLED} vendors to unroll"
    return None


class Ops:
    """The layers for one vendor's weights."""

    def conv(self, x: Any, layer: Conv, weight: Any, bias: Any) -> Any:
        from jax import lax

        strides, padding = (layer.stride,) * 2, ((layer.padding,) * 2,) * 2
        out = lax.conv_general_dilated(
            x, weight, strides, padding, feature_group_count=layer.groups
        )
        return out + bias[:, None, None]

    def linear(self, x: Any, layer: Linear, weight: Any, bias: Any) -> Any:
        return x @ weight.T + bias

    def norm(self, x: Any, layer: Norm, weight: Any, bias: Any) -> Any:
        import jax
        import jax.numpy as jnp

        full = x.astype(jnp.float32)
        centred = full - full.mean((2, 3), keepdims=True)
        scale = jax.lax.rsqrt(jnp.square(centred).mean((2, 3), keepdims=True) + 1e-5)
        return (centred * scale).astype(x.dtype) * weight[:, None, None] + bias[:, None, None]

    def relu(self, x: Any) -> Any:
        import jax

        return jax.nn.relu(x)

    def max_pool(self, x: Any) -> Any:
        import jax
        import jax.numpy as jnp

        window = (1, 1, 2, 2)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    def avg_pool(self, x: Any, kernel: int) -> Any:
        batch, channels, height, width = x.shape
        parts = (batch, channels, height // kernel, kernel, width // kernel, kernel)
        return x.reshape(parts).mean((3, 5))

    def flatten(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1)

    def add(self, a: Any, b: Any) -> Any:
        return a + b


def _all_vendors(name: str, case: Case, stacks: Any) -> forest.AllVendors:
    import jax
    import jax.numpy as jnp

    ops = Ops()

    def vmap(spec: int, x: Any) -> Any:
        run = jax.vmap(lambda w: forest.run_layers(case.specs[spec], x, w, ops))
        out = run(stacks[spec])
        return out.reshape(-1, *out.shape[2:])

    def loop(spec: int, x: Any) -> Any:
        return jnp.concatenate(
            [
                forest.run_layers(case.specs[spec], x, _vendor(stacks[spec], v), ops)
                for v in range(case.vendors[spec])
            ]
        )

    return vmap if name == "jax-vmap" else loop


def _vendor(stack: dict[str, Any], vendor: int) -> dict[str, Any]:
    return {key: value[vendor] for key, value in stack.items()}


def prepare(name: str, problem: Problem, dtype: str, threads: int) -> Run:
    """Give the function that computes all losses."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    case = problem.case
    to_jax = lambda value: jnp.asarray(value, dtype=dtype)  # noqa: E731
    weights = [jax.tree.map(to_jax, problem.vendors(i)) for i in range(len(case.specs))]
    x, y = to_jax(problem.x), jnp.asarray(problem.y)

    @jax.jit
    def evaluate(stacks: Any, x: Any, y: Any) -> Any:
        ops = Ops()

        def leader(spec: int, x: Any) -> Any:
            return forest.run_layers(case.specs[spec], x, _vendor(stacks[spec], 0), ops)

        every = _all_vendors(name, case, stacks)
        out = forest.logits(case, x, every, leader, jnp.concatenate)
        scores = jax.nn.log_softmax(out.astype(jnp.float32).reshape(-1, case.batch, case.classes))
        return -scores[:, jnp.arange(case.batch), y].mean(1)

    def run() -> F32:
        return np.asarray(evaluate(weights, x, y))

    return run
