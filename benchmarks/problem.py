"""One case with its numbers: weights, batch and expected losses, kept in a file.

Every contender reads the same file, in this process or in one of its own, so that all evaluate
the same probe. The file is made by ``marketplace``: base weights, seeds and regenerated deltas.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case

F32 = NDArray[np.float32]
LEARNING_RATE, PROBE_SCALE, SEED = 0.1, 0.1, 7


@dataclasses.dataclass(frozen=True)
class Problem:
    """A case, the file of its numbers, and the device that is to evaluate it."""

    case: Case
    path: pathlib.Path
    device: str = "cpu"

    def read(self, name: str) -> NDArray[Any]:
        """Read one array."""
        with np.load(self.path) as archive:
            array: NDArray[Any] = archive[name]
        return array

    @property
    def x(self) -> F32:
        """The batch, ``(B, ...)``: whole numbers from 0 to 255."""
        return self.read("x")

    @property
    def y(self) -> NDArray[np.int32]:
        """The labels, ``(B,)``."""
        return self.read("y")

    @property
    def losses(self) -> F32:
        """Our float32 losses, ``(P,)``."""
        return self.read("losses")

    @property
    def flops(self) -> int:
        """Multiplications and additions of all convolutions and products of one evaluation."""
        return int(self.read("flops"))

    @property
    def weight_bytes(self) -> int:
        """Size of the base weights."""
        specs = range(len(self.case.specs))
        return sum(value.nbytes for spec in specs for value in self.base(spec).values())

    def seeds(self) -> list[NDArray[np.uint64]]:
        """Read the vendors' seeds, per spec."""
        return [self.read(f"seeds.{spec}") for spec in range(len(self.case.specs))]

    def base(self, spec: int) -> dict[str, F32]:
        """Read a spec's base weights by key."""
        return self._spec(f"base.{spec}.")

    def vendors(self, spec: int) -> dict[str, F32]:
        """Read the weights of all of a spec's vendors by key, ``(V, *shape)``."""
        return self._spec(f"vendors.{spec}.")

    def _spec(self, prefix: str) -> dict[str, F32]:
        with np.load(self.path) as archive:
            return {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith(prefix)
            }


def make_problem(case: Case, folder: pathlib.Path, threads: int, device: str = "cpu") -> Problem:
    """Draw a case's numbers and write them into a folder; its losses are always the CPU's."""
    import marketplace as mp

    from benchmarks.contender_ours import make_specs

    mp.random.manual_seed(SEED)
    specs = make_specs(case)
    optimizer = mp.Optimizer(
        specs,
        LEARNING_RATE,
        probe_scale=PROBE_SCALE,
        plan=case.plan,
        seed=SEED,
        threads=threads,
        device="cpu",
    )
    rng = np.random.default_rng(SEED)
    x = rng.integers(0, 256, size=(case.batch, *case.sample)).astype(np.float32)
    y = rng.integers(0, case.classes, size=case.batch).astype(np.int32)
    losses, paths = optimizer.probe(x, y)
    if not np.array_equal(paths, case.paths()):
        raise RuntimeError(f"{case.name}: expected the paths of cases.py, received others")
    arrays: dict[str, Any] = {"x": x, "y": y, "losses": losses}
    arrays["flops"] = optimizer.flops_per_step(case.sample, case.batch)
    for index, spec in enumerate(specs):
        base = spec.model.state_dict()
        delta = optimizer.spec_context[index].delta
        arrays[f"seeds.{index}"] = optimizer.spec_context[index].seeds
        for key, value in base.items():
            arrays[f"base.{index}.{key}"] = value
            arrays[f"vendors.{index}.{key}"] = value[None] + delta[key]
    path = folder / f"{case.name}.npz"
    np.savez(path, **arrays)
    return Problem(case, path, device)
