"""Who takes part: every contender's name, and the module that knows how to run it."""

import argparse
import dataclasses
import importlib
import importlib.util
from types import ModuleType

OURS = "ours"


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to evaluate a case.

    Its module has ``load(threads, device)``, which imports the library; ``why_not(name, case,
    dtype)``, the reason to leave a case out, if any; and ``prepare(name, problem, dtype,
    threads)``, which gives a function that returns all losses once they are computed.
    """

    name: str
    package: str
    module_name: str
    slow: bool = False  # compiles for minutes
    gpu_only: bool = False  # says nothing new on a CPU

    @property
    def family(self) -> str:
        """The library's name."""
        return self.name.split("-")[0]

    @property
    def module(self) -> ModuleType:
        """The module, imported; the library itself is not."""
        return importlib.import_module(f"benchmarks.{self.module_name}")


def _torch(way: str, slow: bool = False) -> Contender:
    return Contender(f"torch-{way}", "torch", "contender_torch", slow)


# The cheapest to prepare come first: on a GPU each is timed before the next is prepared.
ALL = (
    Contender(OURS, "marketplace", "contender_ours"),
    Contender("ours-host", "marketplace", "contender_ours", gpu_only=True),
    _torch("loop"),
    _torch("loop-nhwc"),
    _torch("tiled"),
    _torch("grouped"),
    _torch("grouped-nhwc"),
    _torch("mixed"),
    _torch("vmap"),
    _torch("compile", slow=True),
    Contender("jax-vmap", "jax", "contender_jax"),
    Contender("jax-loop", "jax", "contender_jax"),
    Contender("tinygrad", "tinygrad", "contender_tinygrad", slow=True),
)
BY_NAME = {contender.name: contender for contender in ALL}
NAMES = [*BY_NAME, "torch", "jax"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Offer the choice of contenders."""
    parser.add_argument(
        "--contenders", metavar="NAMES", help=f"with commas; default all; of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--include-slow", action="store_true", help="also those that compile for minutes"
    )


def choose(names: str | None, include_slow: bool, device: str = "cpu") -> list[Contender]:
    """Pick contenders by name or library.

    A slow one needs its full name or ``include_slow``, one for GPUs its full name or a GPU.
    """
    wanted = names.split(",") if names else ["all"]
    for name in wanted:
        if name not in (*NAMES, "all"):
            raise SystemExit(f"--contenders: expected some of {NAMES}, received {name!r}")
    groups = [c for c in ALL if "all" in wanted or c.family in wanted]
    fast = [c for c in groups if include_slow or not c.slow]
    allowed = [c for c in fast if device != "cpu" or not c.gpu_only]
    return [c for c in ALL if c in allowed or c.name in wanted]


def load(
    contenders: list[Contender], threads: int, device: str = "cpu"
) -> tuple[list[Contender], dict[str, str]]:
    """Import the contenders' libraries; those that could be, and why the others could not."""
    failed: dict[str, str] = {}  # by package
    for contender in contenders:
        package = contender.package
        if package in failed:
            continue
        if importlib.util.find_spec(package) is None:
            failed[package] = f"{package} is not installed"
            continue
        try:
            contender.module.load(threads, device)
        except Exception as error:  # each says in its own way that it cannot
            failed[package] = f"{package} does not work here: {error}"
    notes = {c.name: failed[c.package] for c in contenders if c.package in failed}
    return [c for c in contenders if c.name not in notes], notes
