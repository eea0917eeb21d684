"""Peak memory of a tree probe, by number of vendors: it should not grow with the paths.

    python -m benchmarks.bench_memory [--vendors 2,4,8,16] [--batch-size 64] [--json FILE]

nor with ``--forward-pass`` minibatches and ``--marketplace-replica`` draws per update.

Each row is measured in a process of its own: training steps on the beautiful-MNIST market, then the
kernel's high-water mark of resident memory (VmHWM of /proc/self/status; the maximum that getrusage
reports would include the parent's memory).
"""

import argparse
import json
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import numpy as np

MIB = 2**20


def beautiful_mnist(vendors: int) -> list[Any]:
    """Make the market of the published experiment: two convolutional specs and a linear one."""
    import marketplace as mp
    from marketplace import nn

    def images(channels: int, out: int, kernel: int) -> list[Any]:
        first, second = nn.Conv2d(channels, out, kernel), nn.Conv2d(out, out, kernel)
        return [first, nn.relu, second, nn.relu, nn.InstanceNorm(out), nn.max_pool2d]

    return [
        mp.Spec(nn.Model(*images(1, 32, 5)), vendors),
        mp.Spec(nn.Model(*images(32, 64, 3), lambda x: x.flatten(1)), vendors),
        mp.Spec(nn.Model(nn.Linear(576, 10)), vendors),
    ]


def high_water_mark_bytes() -> int:
    """Read the most resident memory that this process has held since it started."""
    status = pathlib.Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    if found is None:
        raise RuntimeError("bench_memory: expected VmHWM in /proc/self/status, received none")
    return int(found[1]) * 1024


def probe(vendors: int, options: argparse.Namespace) -> dict[str, int]:
    """Take a few training steps in this process and report its memory."""
    import marketplace as mp

    market = beautiful_mnist(vendors)
    rng = np.random.default_rng(0)
    samples = options.batch_size * options.forward_pass
    x = rng.integers(0, 256, size=(samples, 1, 28, 28), dtype=np.uint8)
    y = rng.integers(0, 10, size=samples)
    optimizer = mp.Optimizer(
        market, 0.1, probe_scale=0.1, plan=options.plan, dtype=options.dtype,
        threads=options.threads, seed=1,
    )  # fmt: skip
    before = high_water_mark_bytes()
    for _ in range(options.steps):
        _, paths = optimizer.train_step(
            x, y, forward_pass=options.forward_pass,
            marketplace_replica=options.marketplace_replica,
        )  # fmt: skip
    peak = high_water_mark_bytes()
    return {"vendors": vendors, "paths": len(paths), "start_bytes": before, "peak_bytes": peak}


def measure(vendors: int, arguments: list[str]) -> dict[str, int]:
    """Run ``probe`` in a fresh process."""
    command = [sys.executable, __file__, *arguments, "--child", str(vendors)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"bench_memory: expected a measurement, received {done.stderr}")
    return json.loads(done.stdout)


def print_table(rows: list[dict[str, int]]) -> None:
    """Print one line per number of vendors."""
    print(f"{'vendors':>8} {'paths':>8} {'peak MiB':>9} {'more than the first, MiB':>25}")
    for row in rows:
        more = row["peak_bytes"] - rows[0]["peak_bytes"]
        print(
            f"{row['vendors']:>8} {row['paths']:>8} "
            f"{row['peak_bytes'] / MIB:>9.1f} {more / MIB:>25.1f}"
        )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--vendors", default="2,4,8,16", help="vendors of every spec, row by row")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--forward-pass", type=int, default=1, help="minibatches per update")
    parser.add_argument("--marketplace-replica", type=int, default=1, help="draws per update")
    parser.add_argument("--plan", choices=("tree", "star"), default="tree")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure, print the table, write the file."""
    options = parse(arguments)
    if options.child is not None:
        print(json.dumps(probe(options.child, options)))
        return
    rows = [measure(int(count), arguments) for count in options.vendors.split(",")]
    print_table(rows)
    if options.json:
        settings = {
            name: getattr(options, name)
            for name in (
                "batch_size",
                "forward_pass",
                "marketplace_replica",
                "steps",
                "plan",
                "dtype",
                "threads",
            )  # fmt: skip
        }
        report = {**settings, "machine": platform.machine(), "rows": rows}
        pathlib.Path(options.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
