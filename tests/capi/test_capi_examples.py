"""The embedding examples, built from the installed tree in an empty folder, give Python's losses.

Each is written again here with the package, over the same seeds and data.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clibrary import LIBRARY, PREFIX
from marketplace import nn, random
from marketplace.checkpoint import write_checkpoint
from marketplace.optimizers import Optimizer
from marketplace.training import Spec, straight_forward

EXAMPLES = Path(__file__).parents[2] / "examples" / "embedding"
STRICT = ["-Wall", "-Wextra", "-Werror"]


def run(*command: object, folder: Path) -> str:
    own = {"PKG_CONFIG_PATH": str(LIBRARY.parent / "pkgconfig")}
    own |= {"LD_LIBRARY_PATH": str(LIBRARY.parent), "CMAKE_PREFIX_PATH": str(PREFIX)}
    given = [str(part) for part in command]
    done = subprocess.run(given, cwd=folder, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words(state: int) -> Iterator[int]:
    """Give the examples' own random numbers."""
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state


def from_hexadecimal(line: str) -> list[float]:
    return [float.fromhex(number) for number in line.split()]


# -- C -------------------------------------------------------------------------------------------


def images(numbers: Iterator[int]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.empty((16, 64), np.uint8), np.empty(16, np.int32)
    for row in range(16):
        drawn = [next(numbers) for _ in range(64)]
        x[row] = [number >> 26 for number in drawn]
        y[row] = (drawn[-1] >> 24) % 3
        x[row, y[row] * 24 : y[row] * 24 + 8] += 128
    return x.reshape(16, 1, 8, 8), y


def python_c(folder: Path) -> tuple[list[list[float]], str]:
    random.manual_seed(7)
    layers = nn.Conv2d(1, 4, 3), nn.relu, nn.InstanceNorm(4), nn.max_pool2d, nn.flatten
    market = [Spec(nn.Model(*layers), 4), Spec(nn.Model(nn.Linear(36, 3)), 9)]
    rate = np.float32(0.2)
    options = {"probe_scale": np.float32(0.1), "plan": "star", "seed": 42, "device": "cpu"}
    optimizer = Optimizer(market, rate, **options)
    losses, numbers = [], words(1)
    for _ in range(40):
        x, y = images(numbers)
        losses.append(optimizer.train_step(x, y)[0].tolist())
    right = int((np.argmax(straight_forward(market, x), axis=1) == y).sum())
    write_checkpoint(market, 40, folder / "python.safetensors")
    return losses, f"{right} of 16 right after 40 steps"


def test_c_through_pkg_config(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "c" / "train.c", tmp_path)
    flags = run("pkg-config", "--cflags", "--libs", "marketplace", folder=tmp_path).split()
    strict = ["-std=c99", "-pedantic", *STRICT]
    run("cc", *strict, "train.c", *flags, "-o", "train", folder=tmp_path)
    *lines, last = run("./train", "c.safetensors", folder=tmp_path).splitlines()
    losses, expected = python_c(tmp_path)
    assert [from_hexadecimal(line) for line in lines] == losses
    assert last == expected
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("c", "python")]
    assert files[0] == files[1]


def test_the_guide_shows_the_example() -> None:
    guide = (EXAMPLES.parents[1] / "docs" / "embedding.md").read_text()
    shown = guide.split("```c\n")[1].split("```")[0]
    assert shown == (EXAMPLES / "c" / "train.c").read_text()


# -- C++ -----------------------------------------------------------------------------------------


def points(numbers: Iterator[int], rows: int, columns: int) -> np.ndarray:
    drawn = [(next(numbers) >> 8) - 2**23 for _ in range(rows * columns)]
    return (np.array(drawn) / 2**23).astype(np.float32).reshape(rows, columns)


def residual(block: nn.Linear) -> Callable[[Any], Any]:
    return lambda x: x + nn.tanh(block(x))


def python_cpp() -> list[list[float]]:
    random.manual_seed(11)
    first, block, last = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 2)
    market = [Spec(nn.Model(first, nn.tanh, residual(block)), 5), Spec(nn.Model(last), 7)]
    options = {"plan": "tree", "update": "momentum", "shaping": "rank", "device": "cpu"}
    rate = np.float32(0.1)
    optimizer = Optimizer(market, rate, seed=3, **options)
    losses, numbers = [], words(5)
    for step in range(30):
        x = points(numbers, 12, 6)
        loss, paths = optimizer.probe(x, (x[:, 0] > x[:, 1]).astype(np.int64))
        optimizer.learning_rate = rate * np.float32(30 - step) / np.float32(30)
        optimizer.step(loss, paths)
        losses.append(loss.tolist())
    return losses


def test_cpp_through_find_package(tmp_path: Path) -> None:
    for name in ("CMakeLists.txt", "classify.cpp"):
        shutil.copy(EXAMPLES / "cpp" / name, tmp_path)
    run("cmake", "-S.", "-Bbuild", f"-DCMAKE_CXX_FLAGS={' '.join(STRICT)}", folder=tmp_path)
    run("cmake", "--build", "build", folder=tmp_path)
    lines = run("build/classify", folder=tmp_path).splitlines()
    assert [from_hexadecimal(line) for line in lines] == python_cpp()


# -- Rust ----------------------------------------------------------------------------------------


def python_rust() -> tuple[list[str], str]:
    random.manual_seed(19)
    market = [
        Spec(nn.Model(nn.Linear(4, 12), nn.relu), 5),
        Spec(nn.Model(nn.Linear(12, 4)), 1),
    ]
    optimizer = Optimizer(market, np.float32(0.05), plan="node", seed=1, device="cpu")
    losses, numbers = [], words(23)
    for _ in range(30):
        x = points(numbers, 10, 4)
        loss, _ = optimizer.train_step(x, np.argmax(x, axis=1))
        losses += [f"{bits:08x}" for bits in loss.view(np.uint32)]
    x = points(numbers, 10, 4)
    right = int((np.argmax(straight_forward(market, x), axis=1) == np.argmax(x, axis=1)).sum())
    return losses, f"{right} of 10 right after 30 steps"


@pytest.mark.skipif(shutil.which("rustc") is None, reason="no Rust compiler")
def test_rust_through_extern_c(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "rust" / "src", tmp_path / "src")
    link = ["-L", LIBRARY.parent, "-D", "warnings", "--edition", "2021"]
    run("rustc", *link, "-O", "src/main.rs", "-o", "train", folder=tmp_path)
    *lines, last = run("./train", folder=tmp_path).splitlines()
    losses, expected = python_rust()
    assert lines == losses
    assert last == expected
