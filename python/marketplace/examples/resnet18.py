"""ResNet-18 on colour images learns with forward passes only.

Run as ``python -m marketplace.examples.resnet18``, with ``--data DIR`` for CIFAR-10's binaries,
``--folder DIR`` for images of one's own, or on synthetic stripes. The network is that of He et
al., "Deep Residual Learning for Image Recognition", 2016. ``--norm instance`` takes instance norms
instead of its batch norms, as the reference does; before a mean over the image they leave little
for the output layer to tell classes by.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import nn
from ..data import Dataset, load_cifar10, load_image_folder, synthetic_images
from . import _cli, _program
from ._arguments import Defaults
from ._cli import Options
from ._markets import NORMS, Layers, Structure, make_norm
from ._values import whole

PROG = "python -m marketplace.examples.resnet18"
DEFAULTS = Defaults(
    steps=100,
    batch_size=16,
    lr=0.1,
    lr_decay=0.001,
    probe_scale=0.01,
    jitter=0.001,
    vendors="2,2,4,8,256 with plan star, 2,2,2,2,2 with plan tree",
)
SYNTHETIC_SIZES = (32, 64, 224)


@dataclasses.dataclass(frozen=True)
class ImageOptions(Options):
    """Options of the example."""

    data: Path | None
    folder: Path | None
    image_size: int
    width: int
    market: str
    norm: str


class Block:
    """Two convolutions beside a shortcut: ``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))``.

    Parameters
    ----------
    channels, out : int
        Channels of input and output.
    stride : int
        Of the first convolution, and of the shortcut's where there is one.
    norm : str
        ``batch`` or ``instance``.
    """

    def __init__(self, channels: int, out: int, stride: int, norm: str = "batch") -> None:
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, out)
        self.shortcut: Sequence[Callable[[Any], Any]] = ()
        if stride != 1 or channels != out:
            narrow = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            self.shortcut = (narrow, make_norm(norm, out))

    def __call__(self, x: Any) -> Any:
        """Run the block on a traced batch ``(B, C, H, W)``."""
        inner = nn.relu(self.norm1(self.conv1(x)))
        outer = self.norm2(self.conv2(inner))
        for layer in self.shortcut:
            x = layer(x)
        return nn.relu(outer + x)


def resnet_structure(
    name: str = "depth-5",
    *,
    class_count: int = 10,
    image_size: int = 32,
    width: int = 64,
    norm: str = "batch",
) -> Structure:
    """Give a way to cut ResNet-18.

    Parameters
    ----------
    name : str
        ``depth-5``: the four stages and the output layer. ``depth-3``: as the reference cuts it,
        the stem with the first stage, two stages, the last stage with the output layer.
    class_count : int
        Logits.
    image_size : int
        Height and width. From 128 on the stem is that of ImageNet (7 x 7, stride 2, pooled), below
        that of CIFAR-10 (3 x 3).
    width : int
        Channels of the first stage; the others double.
    norm : str
        ``batch`` or ``instance``.

    Returns
    -------
    Structure
        Images (B, 3, S, S) to logits (B, class_count).
    """
    sizes: dict[str, tuple[int, ...]] = {"depth-5": (1, 1, 1, 1, 1), "depth-3": (1, 2, 2)}
    vendors: dict[str, dict[str, tuple[int, ...]]] = {
        "depth-5": {"star": (2, 2, 4, 8, 256), "tree": (2, 2, 2, 2, 2)},
        "depth-3": {"star": (4, 8, 16), "tree": (4, 4, 4)},
    }
    build = functools.partial(_build, sizes[name], class_count, image_size, width, norm)
    return Structure(name, build, "star", vendors[name], (0,) * len(sizes[name]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM.

    Raises
    ------
    SystemExit
        With status 2 after a bad option, with 0 after ``--help``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parse(arguments)
    return _program.run(PROG, options, DEFAULTS, arguments, _load, _structure)


def _stem(width: int, image_size: int, norm: str) -> Layers:
    if image_size < 128:
        conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        return [conv, make_norm(norm, width), nn.relu]
    conv = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    pool = functools.partial(nn.max_pool2d, kernel_size=3, stride=2, padding=1)
    return [conv, make_norm(norm, width), nn.relu, pool]


def _stages(class_count: int, image_size: int, width: int, norm: str) -> list[Layers]:
    stages: list[Layers] = [_stem(width, image_size, norm)]
    stages[0] += [Block(width, width, 1, norm), Block(width, width, 1, norm)]
    for stage in range(1, 4):
        channels, out = width << (stage - 1), width << stage
        stages.append([Block(channels, out, 2, norm), Block(out, out, 1, norm)])
    last = width << 3
    return [*stages, [lambda x: x.mean((2, 3)), nn.Linear(last, class_count)]]


def _build(
    sizes: Sequence[int], class_count: int, image_size: int, width: int, norm: str
) -> list[Layers]:
    stages = iter(_stages(class_count, image_size, width, norm))
    return [[layer for _ in range(size) for layer in next(stages)] for size in sizes]


def parse(argv: Sequence[str]) -> ImageOptions:
    """Parse and check a command line; exits with status 2 after a bad option."""
    parser = _cli.make_parser(PROG, "Train ResNet-18 on colour images.", DEFAULTS)
    _add_images(parser.add_argument_group("data"))
    _add_network(parser.add_argument_group("network"))
    return _cli.parse(ImageOptions, parser, DEFAULTS, argv, _find_problem)


def _add_images(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="CIFAR-10's binary version: data_batch_1.bin to data_batch_5.bin and test_batch.bin",
    )
    group.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="images, one subfolder per class, in DIR/train and DIR/val (or test), or in DIR, "
        "where every fifth one is for testing; needs Pillow. Without --data and --folder the "
        "network learns synthetic stripes",
    )
    group.add_argument(
        "--image-size",
        type=whole(32, 1024),
        default=32,
        metavar="N",
        help="height and width that images are resized to (default: %(default)s)",
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--market",
        choices=("depth-5", "depth-3"),
        default="depth-5",
        help="how the network is cut into specs: the four stages and the output layer, or as the "
        "reference does in three (default: %(default)s)",
    )
    group.add_argument(
        "--width",
        type=whole(1, 1024),
        default=64,
        metavar="N",
        help="channels of the first stage, doubled from stage to stage (default: %(default)s)",
    )
    group.add_argument(
        "--norm",
        choices=NORMS,
        default="batch",
        help="batch norms, or the reference's instance norms (default: %(default)s)",
    )


def _find_problem(options: ImageOptions) -> str | None:
    if options.data is not None and options.folder is not None:
        return "argument --folder: expected no --data beside it, received both"
    if options.data is not None and options.image_size != 32:
        return f"argument --image-size: expected 32 with --data, received {options.image_size}"
    synthetic = options.data is None and options.folder is None
    if synthetic and options.image_size not in SYNTHETIC_SIZES:
        expected = ", ".join(map(str, SYNTHETIC_SIZES))
        return (
            f"argument --image-size: expected one of {expected} for synthetic stripes, "
            f"received {options.image_size}"
        )
    if options.plan == "node":
        return "argument --plan: expected star or tree for a network with branches, received node"
    structure = resnet_structure(options.market)
    return structure.find_problem(options.plan, options.vendor_counts, options.upstream_sampling)


def _load(options: ImageOptions, report: Callable[[str], None] | None) -> Dataset:
    if options.data is not None:
        return load_cifar10(options.data)
    if options.folder is not None:
        return load_image_folder(options.folder, options.image_size, report=report)
    if report is not None:
        report("no --data and no --folder: these are synthetic stripes, not photographs")
    return synthetic_images(options.image_size)


def _structure(options: ImageOptions, dataset: Dataset) -> Structure:
    return resnet_structure(
        options.market,
        class_count=dataset.class_count,
        image_size=options.image_size,
        width=options.width,
        norm=options.norm,
    )


if __name__ == "__main__":
    sys.exit(main())
