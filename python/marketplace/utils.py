"""Checkpoint functions with the argument names of the reference's ``marketplace.utils``."""

from collections.abc import Sequence

from . import checkpoint
from ._disk import FilePath
from ._market import Spec

__all__ = ["load_checkpoint", "write_checkpoint"]


def write_checkpoint(
    marketplace: Sequence[Spec], global_step: int, output_filepath: FilePath
) -> None:
    """Write a market; see ``marketplace.checkpoint.write_checkpoint``."""
    checkpoint.write_checkpoint(marketplace, global_step, output_filepath)


def load_checkpoint(marketplace: Sequence[Spec], input_filepath: FilePath) -> int:
    """Load a market, and give its step; see ``marketplace.checkpoint.load_checkpoint``."""
    return checkpoint.load_checkpoint(marketplace, input_filepath)
