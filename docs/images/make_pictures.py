"""Draw the pictures of ``docs/algorithm.md``: ``python docs/images/make_pictures.py``."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

FOLDER = Path(__file__).parent
GREY, BLUE, ORANGE = "#b8b8b8", "#1f5fa8", "#d9742b"


def columns(axis: Axes, specs: int, vendors: int) -> None:
    """Draw a column of vendors per spec; the leader is at the top."""
    for spec, vendor in itertools.product(range(specs), range(vendors)):
        colour = BLUE if vendor == 0 else "white"
        axis.plot(spec, -vendor, "o", markersize=13, color=colour, markeredgecolor=BLUE, zorder=3)
    axis.set_xlim(-0.6, specs - 0.4)
    axis.set_ylim(-vendors + 0.4, 0.6)
    axis.axis("off")


def line(axis: Axes, path: tuple[int, ...], colour: str, width: float) -> None:
    """Draw one path through the columns."""
    axis.plot(
        range(len(path)), [-vendor for vendor in path], color=colour, linewidth=width, zorder=1
    )


def market() -> None:
    """Three specs with four vendors: all paths, one of them marked."""
    figure, axis = pyplot.subplots(figsize=(6, 3))
    columns(axis, 3, 4)
    for path in itertools.product(range(4), repeat=3):
        line(axis, path, GREY, 0.6)
    line(axis, (1, 3, 0), ORANGE, 3)
    for spec in range(3):
        axis.text(spec, 0.45, f"spec {spec}", ha="center")
    for vendor in range(4):
        weights = "W" if vendor == 0 else f"W + δ{vendor}"
        axis.text(-0.55, -vendor, weights, va="center", ha="left", fontsize=8)
    axis.text(2.1, -0.05, "  path (1, 3, 0)", color=ORANGE, fontsize=8)
    axis.set_xlim(-0.6, 2.9)
    axis.set_ylim(-3.4, 0.8)
    save(figure, "market")


def plans() -> None:
    """What the tree, the star and the scatter run."""
    figure, axes = pyplot.subplots(1, 3, figsize=(8, 2.6))
    tree = list(itertools.product(range(3), repeat=3))
    star = [path for path in tree if sum(vendor > 0 for vendor in path) <= 1]
    drawn = np.random.default_rng(4).integers(3, size=(6, 3))
    scatter = [tuple(int(vendor) for vendor in path) for path in drawn]
    titles = (f"tree: {len(tree)} paths", f"star: {len(star)} paths", "scatter: a path per sample")
    for axis, paths, title in zip(axes, (tree, star, scatter), titles, strict=True):
        columns(axis, 3, 3)
        for path in paths:
            line(axis, path, ORANGE, 1.2)
        axis.set_title(title, fontsize=10)
    save(figure, "plans")


def step() -> None:
    """Losses of a star of one spec, their scores, and the sum of deltas that they weigh."""
    random = np.random.default_rng(7)
    deltas = random.uniform(-1, 1, (12, 2))
    deltas[0] = 0
    gradient = np.array([0.8, 0.5])
    loss = 2.3 + deltas @ gradient * 0.2 + random.normal(0, 0.02, 12)
    score = -(loss - loss.mean()) / loss.std(ddof=1)
    direction = score @ deltas
    direction /= np.linalg.norm(direction)
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 2.8))
    axes[0].bar(range(12), loss, color=GREY)
    axes[0].set_ylim(2, 2.6)
    axes[0].set_title("losses of the paths", fontsize=10)
    axes[1].bar(range(12), score, color=[ORANGE if value > 0 else GREY for value in score])
    axes[1].set_title("their scores z", fontsize=10)
    axes[2].quiver(*np.zeros((2, 12)), *deltas.T, score, cmap="RdYlGn", scale=3, width=0.006)
    axes[2].quiver(0, 0, *direction, color=BLUE, scale=3, width=0.014)
    axes[2].quiver(
        0, 0, *(-gradient / np.linalg.norm(gradient)), color="black", scale=3, width=0.004
    )
    axes[2].set_title("deltas, their sum (blue), −gradient", fontsize=10)
    axes[2].set_xticks([])
    axes[2].set_yticks([])
    save(figure, "step")


def save(figure: "pyplot.Figure", name: str) -> None:
    """Write one picture beside this file."""
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    market()
    plans()
    step()
