"""Data sets for the examples: full MNIST, Fashion-MNIST, and a bundled subset of MNIST.

Nothing here touches the network unless it is asked to: only ``load(source="full")`` downloads.
"""

from ._cache import cache_directory
from ._load import DATASETS, SOURCES, Dataset, load, load_fashion_mnist, load_mnist
from .idx import read_idx, write_idx

__all__ = [
    "DATASETS",
    "SOURCES",
    "Dataset",
    "cache_directory",
    "load",
    "load_fashion_mnist",
    "load_mnist",
    "read_idx",
    "write_idx",
]
