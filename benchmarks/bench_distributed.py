"""What sharing probes costs a step, beyond the computing: Ray actors and MPI ranks on this machine.

    python -m benchmarks.bench_distributed [--engines mpi,ray] [--workers 1,2,4] [--steps 400]

A market so small that a step in one process takes less than a tenth of a millisecond (two linear
specs, star, 16 paths) is trained by one process, and by workers with one thread each. Two figures,
medians over the steps:

overhead   the step with workers less that of one process, which computes all paths. With more
           workers than cores this holds what the workers take from each other's cores: everyone
           takes the whole of a step but its probe.
exchange   the time in the probe less that of the slowest share: messages, waiting for them, and
           putting losses together. Of MPI's ranks that of the one that waits least, probe by
           probe: the others wait for the slowest rank's step. Of Ray this process's, which waits
           for the slowest worker's.

MPI needs ``mpiexec`` beside this Python; its ranks, of one thread each, stay on a core each, and so
do the actors.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks import harness

GOAL_MS = {"ray": 2.0, "mpi": 0.2}
WARM_UP = 20
_IN, _HIDDEN, _OUT, _BATCH = 6, 8, 3, 16
_X = np.linspace(-1, 1, _BATCH * _IN, dtype=np.float32).reshape(_BATCH, _IN)
_Y = np.arange(_BATCH, dtype=np.int32) % _OUT


def make() -> Any:
    """Make the optimizer."""
    import marketplace as mp
    from marketplace import nn

    mp.random.manual_seed(1)
    market = [
        mp.Spec(nn.Model(nn.Linear(_IN, _HIDDEN), nn.relu), vendor_count=4),
        mp.Spec(nn.Model(nn.Linear(_HIDDEN, _OUT)), vendor_count=13),
    ]
    return mp.Optimizer(market, 0.1, probe_scale=0.1, plan="star", seed=1, threads=1, device="cpu")


def step(optimizer: Any) -> None:
    """Take a step on the one batch that there is."""
    optimizer.train_step(_X, _Y)


def time_steps(optimizer: Any, steps: int) -> list[float]:
    """Time some steps, in milliseconds."""
    for _ in range(WARM_UP):
        step(optimizer)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step(optimizer)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def watch_exchange(optimizer: Any) -> list[float]:
    """Let an optimizer that shares its probes fill a list with their exchanges' milliseconds."""
    sharing, exchanges = optimizer._sharing, []
    losses, note = sharing.losses, sharing._balance.note
    shares: list[float] = []

    def noted(member: Any, seconds: float) -> None:
        shares.append(seconds)
        note(member, seconds)

    def timed(*arguments: Any) -> Any:
        shares.clear()
        start = time.perf_counter()
        result = losses(*arguments)
        exchanges.append(1e3 * (time.perf_counter() - start - max(shares)))
        return result

    sharing._balance.note, sharing.losses = noted, timed
    return exchanges


def time_ray(workers: int, steps: int) -> tuple[list[float], list[float]]:
    """Time steps whose probes Ray actors share, and their exchanges."""
    from marketplace.distributed import RayCluster

    with RayCluster(make, step, workers=workers, bind=True) as cluster:
        exchanges = watch_exchange(cluster.optimizer)
        times = time_steps(cluster.optimizer, steps)
    return times, exchanges[-steps:]


def time_mpi(workers: int, steps: int) -> tuple[list[float], list[float]]:
    """Time steps whose probes MPI ranks share, as the first rank sees them, and exchanges."""
    mpiexec = pathlib.Path(sys.executable).with_name("mpiexec")
    command = [str(mpiexec), "-bind-to", "core", "-n", str(workers), sys.executable, "-m"]
    command += ["benchmarks.bench_distributed", "--as-rank", "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    times, exchanges = json.loads(done.stdout)
    return times, exchanges


def run_rank(steps: int) -> None:
    """Be one of the ranks."""
    from marketplace.distributed import mpi
    from mpi4py import MPI

    optimizer = make()
    with mpi.share(optimizer) as ranks:
        exchanges = watch_exchange(optimizer)
        times = time_steps(optimizer, steps)
        everyone = MPI.COMM_WORLD.gather(exchanges[-steps:])
        if ranks.rank == 0:
            least = [min(probe) for probe in zip(*everyone, strict=True)]
            print(json.dumps([times, least]))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time every engine with every number of workers, one process alone before each."""
    rows = []
    for engine in options.engines:
        for workers in options.workers:
            alone = float(np.median(time_steps(make(), options.steps)))
            timed = {"ray": time_ray, "mpi": time_mpi}[engine](workers, options.steps)
            median, exchange = (float(np.median(times)) for times in timed)
            rows.append(
                {"engine": engine, "workers": workers, "one_process_ms": alone,
                 "median_ms": median, "fastest_ms": min(timed[0]), "exchange_ms": exchange,
                 "overhead_ms": median - alone, "goal_ms": GOAL_MS[engine]}
            )  # fmt: skip
    return rows


def text(row: dict[str, Any]) -> str:
    """Give a row as a line."""
    met = "met" if row["overhead_ms"] <= row["goal_ms"] else "MISSED"
    return (
        f"{row['engine']:<4} {row['workers']:>3} workers: {row['median_ms']:8.3f} ms a step, "
        f"fastest {row['fastest_ms']:8.3f}, one process {row['one_process_ms']:6.3f}; "
        f"exchange {row['exchange_ms']:6.3f}; "
        f"overhead {row['overhead_ms']:8.3f} ms, goal <= {row['goal_ms']}: {met}"
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    name = "python -m benchmarks.bench_distributed"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--engines", default="mpi,ray", help="default: both")
    parser.add_argument("--workers", default="1,2,4", help="default: 1,2,4")
    parser.add_argument("--steps", type=int, default=400, help="timed steps of each; default 400")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="the result's file")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.engines = options.engines.split(",")
    if not set(options.engines) <= set(GOAL_MS):
        parser.error(f"argument --engines: expected some of {', '.join(GOAL_MS)}")
    options.workers = [int(count) for count in options.workers.split(",")]
    if options.quick:
        options.steps, options.workers = 5, [2]
    return options


def main(arguments: list[str]) -> None:
    """Measure, print, keep the result."""
    options = parse(arguments)
    harness.limit_threads(1)
    if options.as_rank:
        return run_rank(options.steps)
    made = harness.record("bench_distributed", arguments)
    rows = measure(options)
    printed = "\n\n".join([harness.heading(made), "\n".join(map(text, rows))])
    print(printed)
    path = options.json or (None if options.quick else harness.result_path("distributed", made))
    if path is not None:
        harness.write_result(path, {**made, "steps": options.steps, "rows": rows}, printed)


if __name__ == "__main__":
    main(sys.argv[1:])
