"""Continual learning: every sample of a batch takes a path of its own while the model answers."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ._arrays import market_input, paths_input, refusal
from ._market import Spec, check_market
from .optimizers import Optimizer
from .tensor import Tensor

__all__ = ["forward_with_paths"]


def forward_with_paths(
    marketplace: Sequence[Spec], x: ArrayLike, paths: ArrayLike, optimizer: Optimizer
) -> Tensor:
    """Run every sample through the vendors of its own path.

    Per-sample losses of the result, with the same paths, go to ``optimizer.step`` in ``whole``
    mode. Batch norms use their running statistics.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market that the optimizer was made for.
    x : array (B, ...)
        Samples; uint8 or float32.
    paths : integer array (B, S)
        For every sample, one vendor index per spec.
    optimizer : Optimizer
        Whose vendors to run.

    Returns
    -------
    Tensor (B, ...)
        One float32 output per sample.

    Raises
    ------
    TypeError, ValueError
        For another market, or input or paths of another dtype, shape or range.
    """
    specs = check_market(marketplace, "forward_with_paths")
    same = len(specs) == len(optimizer.marketplace) and all(
        mine.model is theirs.model
        for mine, theirs in zip(specs, optimizer.marketplace, strict=True)
    )
    if not same:
        raise refusal(ValueError, "forward_with_paths", "the optimizer's own market", "another one")
    batch = market_input(x, "forward_with_paths")
    rows = paths_input(paths, "forward_with_paths", len(specs), batch.shape[0])
    return Tensor.wrap(optimizer._forward_paths(batch, rows))
