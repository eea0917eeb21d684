"""Data sets for the examples: MNIST and a bundled subset, Fashion-MNIST, colour images.

Nothing here touches the network unless it is asked to: only ``load(source="full")`` downloads.
"""

from ._cache import cache_directory
from ._load import DATASETS, SOURCES, Dataset, load, load_fashion_mnist, load_mnist
from .idx import read_idx, write_idx
from .images import ImageFiles, load_cifar10, load_image_folder, synthetic_images

__all__ = [
    "DATASETS",
    "SOURCES",
    "Dataset",
    "ImageFiles",
    "cache_directory",
    "load",
    "load_cifar10",
    "load_fashion_mnist",
    "load_image_folder",
    "load_mnist",
    "read_idx",
    "synthetic_images",
    "write_idx",
]
