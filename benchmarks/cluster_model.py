"""How far Marketplace scales over a cluster, beside gradient all-reduce: modelled, not measured.

What one worker computes is measured (``results/peers_cpu.json``, ``results/step_cost.json``);
links, jitter and failures are assumptions, the last two drawn by Monte Carlo from a fixed seed.
``docs/scale.md`` has the formulas. Reproduce its tables and picture with::

    python -m benchmarks.cluster_model --json benchmarks/results/cluster_model.json \
        --text benchmarks/results/cluster_model.txt --plot docs/images/scale.png
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
WORKERS = (1, 10, 100, 1_000, 10_000)
GIGABITS = (1, 10, 100, 400)
HEADER_BYTES = 64
LOSS_BYTES = 8
GRADIENT_BYTES = 4
METHODS = ("samples", "paths", "all-reduce")


@dataclass(frozen=True)
class Device:
    """What one worker computes with: operations and updated random numbers per second."""

    name: str
    flops: float
    numbers: float


@dataclass(frozen=True)
class Model:
    """A model cut into ``specs`` equal parts; a sample uses every weight ``positions`` times."""

    name: str
    parameters: float
    positions: int
    batch: int = 64
    specs: int = 3
    vendors: int = 64

    @property
    def paths(self) -> int:
        """Paths of a star."""
        return 1 + self.specs * (self.vendors - 1)

    @property
    def forward_flops(self) -> float:
        """Operations of one forward pass over a worker's batch."""
        return 2 * self.parameters * self.positions * self.batch

    @property
    def probe_flops(self) -> float:
        """A star on shared prefixes: the leader, and per deviation the specs from its own on."""
        return self.forward_flops * (1 + (self.vendors - 1) * (self.specs + 1) / 2)


@dataclass(frozen=True)
class Cluster:
    """Links between the workers, and what goes wrong in them."""

    gigabits: float
    latency: float = 20e-6
    jitter: float = 0.05
    failures_per_hour: float = 1e-3
    detection: float = 1.0

    def seconds(self, size_bytes: float) -> float:
        """Time on a worker's link."""
        return size_bytes * 8 / (self.gigabits * 1e9)


MODELS = (
    Model("88 k", 88e3, 150),  # the beautiful-MNIST network: 26.4 MFLOP a sample, forward
    Model("10 M", 10e6, 512),
    Model("1 B", 1e9, 512),
    Model("10 B", 10e9, 512),
)


def measured_device() -> Device:
    """Two CPU cores, as the committed benchmarks found them.

    The MLP's rate in bfloat16: of plain products, which no filtering of convolutions flatters.
    """
    rows = json.loads((RESULTS / "peers_cpu.json").read_text())["rows"]
    rate = next(
        row["gflops"]
        for row in rows
        if (row["case"], row["contender"], row["dtype"]) == ("mlp", "ours", "bfloat16")
    )
    step = json.loads((RESULTS / "step_cost.json").read_text())
    return Device(
        "two CPU cores, measured", rate * 1e9, step["random_numbers"] / step["step_ms"] * 1e3
    )


def all_gather(cluster: Cluster, workers: int, size_bytes: float) -> float:
    """Seconds until everyone has everyone's ``size_bytes``, by recursive doubling."""
    if workers == 1:
        return 0.0
    return math.ceil(math.log2(workers)) * cluster.latency + cluster.seconds(
        (workers - 1) * size_bytes
    )


def all_reduce(cluster: Cluster, workers: int, size_bytes: float) -> float:
    """Seconds of a sum over all: a ring, or halving and doubling, which has fewer rounds."""
    if workers == 1:
        return 0.0
    rounds = min(2 * (workers - 1), 2 * math.ceil(math.log2(workers)))
    return rounds * cluster.latency + 2 * (workers - 1) / workers * cluster.seconds(size_bytes)


@dataclass(frozen=True)
class Step:
    """Seconds of one worker's step: what is shared out, what everyone repeats, the exchange."""

    compute: float
    update: float
    exchange: float


def step_of(method: str, model: Model, device: Device, cluster: Cluster, workers: int) -> Step:
    """One step without jitter and failures."""
    update = (model.vendors - 1) * model.parameters / device.numbers
    compute = model.probe_flops / device.flops
    if method == "samples":
        message = HEADER_BYTES + LOSS_BYTES * model.paths
        return Step(compute, update, all_reduce(cluster, workers, message))
    if method == "paths":
        share = max(1, model.paths / workers)  # a worker beyond the last path has nothing to do
        message = HEADER_BYTES + LOSS_BYTES * share
        busy = min(workers, model.paths)
        return Step(compute / busy, update, all_gather(cluster, busy, message))
    if method == "all-reduce":
        exchange = all_reduce(cluster, workers, GRADIENT_BYTES * model.parameters)
        return Step(3 * model.forward_flops / device.flops, 0.0, exchange)
    raise ValueError(f"method: expected one of {', '.join(METHODS)}, received {method}")


def simulate(method: str, step: Step, cluster: Cluster, workers: int, rounds: int = 200) -> float:
    """Mean seconds of a step: the slowest worker rules, and a dead one's share is done again."""
    random = np.random.default_rng(0)
    # the largest of `workers` lognormal factors, by inversion of its distribution
    quantile = random.random(rounds) ** (1 / workers)
    slowest = np.exp(cluster.jitter * normal_quantile(quantile))
    seconds = step.compute * slowest + step.update + step.exchange
    dead = random.binomial(workers, -np.expm1(-cluster.failures_per_hour * seconds / 3600))
    # lost losses are evaluated anew by whoever is left; a broken all-reduce is the whole step anew
    again = step.compute if method != "all-reduce" else step.compute + step.exchange
    waves = np.ceil(dead / np.maximum(workers - dead, 1))
    return float((seconds + np.where(dead > 0, cluster.detection + waves * again, 0)).mean())


def normal_quantile(probability: np.ndarray) -> np.ndarray:
    """Inverse of the normal distribution function, by bisection."""
    low, high = np.full_like(probability, -10.0), np.full_like(probability, 10.0)
    erf = np.vectorize(math.erf)
    for _ in range(60):
        middle = (low + high) / 2
        below = 0.5 * (1 + erf(middle / math.sqrt(2))) < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def efficiency(method: str, model: Model, device: Device, cluster: Cluster, workers: int) -> float:
    """Useful part of the workers' time: what one undisturbed worker needs for the same work."""
    alone = step_of(method, model, device, cluster, 1)
    seconds = simulate(method, step_of(method, model, device, cluster, workers), cluster, workers)
    work = alone.compute + alone.update
    return work / (seconds * workers) if method == "paths" else work / seconds


def sent_bytes(method: str, model: Model, workers: int) -> float:
    """Bytes that one worker contributes to a step."""
    if method == "all-reduce":
        return GRADIENT_BYTES * model.parameters
    share = model.paths / min(workers, model.paths) if method == "paths" else model.paths
    return HEADER_BYTES + LOSS_BYTES * share


def rows(device: Device) -> Iterator[dict[str, object]]:
    """Every model, link, method and number of workers."""
    for model in MODELS:
        for gigabits in GIGABITS:
            for method in METHODS:
                for workers in WORKERS:
                    cluster = Cluster(gigabits)
                    yield {
                        "device": device.name,
                        "model": model.name,
                        "gigabits": gigabits,
                        "method": method,
                        "workers": workers,
                        "sent_bytes": round(sent_bytes(method, model, workers)),
                        "seconds": asdict(step_of(method, model, device, cluster, workers)),
                        "efficiency": efficiency(method, model, device, cluster, workers),
                    }


def table(results: list[dict[str, object]]) -> str:
    """The efficiencies as a Markdown table, in percent."""
    head = [f"{workers:,}" for workers in WORKERS]
    lines = [
        f"| parameters | Gb/s | method | {' | '.join(head)} |",
        "|---|---|---|" + "---|" * len(WORKERS),
    ]
    for start in range(0, len(results), len(WORKERS)):
        group = results[start : start + len(WORKERS)]
        first = group[0]
        cells = " | ".join(f"{100 * float(str(row['efficiency'])):.3g} %" for row in group)
        lines.append(f"| {first['model']} | {first['gigabits']} | {first['method']} | {cells} |")
    return "\n".join(lines)


def draw(results: list[dict[str, object]], path: Path) -> None:
    """Efficiency over workers: a panel per device and model, a colour per link."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    devices = list(dict.fromkeys(str(row["device"]) for row in results))
    figure, axes = pyplot.subplots(
        len(devices), len(MODELS), figsize=(13, 6), sharey=True, squeeze=False
    )
    styles = {"samples": "-", "paths": ":", "all-reduce": "--"}
    for axis, (device, model) in zip(
        axes.flat, [(d, m) for d in devices for m in MODELS], strict=True
    ):
        for method in METHODS:
            for colour, gigabits in enumerate(GIGABITS):
                values = [
                    row["efficiency"]
                    for row in results
                    if (row["device"], row["model"], row["method"], row["gigabits"])
                    == (device, model.name, method, gigabits)
                ]
                axis.semilogx(
                    WORKERS,
                    values,
                    styles[method],
                    color=f"C{colour}",
                    label=f"{method}, {gigabits} Gb/s",
                )
        axis.set_title(f"{model.name} parameters\n{device}", fontsize=8)
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("workers")
    for axis in axes[:, 0]:
        axis.set_ylabel("efficiency")
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="lower center", ncols=6, fontsize=7
    )
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_model", description=__doc__)
    parser.add_argument(
        "--flops", type=float, default=1e14, help="of the assumed accelerator, per second"
    )
    parser.add_argument(
        "--numbers", type=float, default=1e11, help="random numbers it updates with, per second"
    )
    for name in ("--json", "--text", "--plot"):
        parser.add_argument(name, type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables; write them, the numbers and the picture where asked to."""
    options = parse(arguments)
    if options.flops <= 0 or options.numbers <= 0:
        raise SystemExit("cluster_model: expected --flops and --numbers above 0")
    assumed = Device(f"assumed, {options.flops / 1e12:g} TFLOP/s", options.flops, options.numbers)
    results: list[dict[str, object]] = []
    text = ""
    for device in (measured_device(), assumed):
        found = list(rows(device))
        results += found
        rates = f"{device.flops:.3g} FLOP/s, {device.numbers:.3g} numbers/s"
        text += f"{device.name}: {rates}\n\n{table(found)}\n\n"
    print(text, end="")
    if options.text:
        options.text.write_text(text)
    if options.json:
        options.json.write_text(json.dumps(results) + "\n")
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
