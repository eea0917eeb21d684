"""Learning-rate schedules: functions of the step, for loops of one's own.

>>> from marketplace import schedules
>>> rate = schedules.cosine(0.1, steps=2000, warmup=100)
>>> rate(0), rate(100), round(rate(2000), 12)
(0.001, 0.1, 0.0)

A schedule is asked before every step, so that a run which stops and goes on takes the same rates::

    optimizer.learning_rate = rate(optimizer.global_step)
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._arrays import integer, refusal, scalar
from ._market import Spec, check_market
from .nn import Model

__all__ = ["SCHEDULES", "Schedule", "constant", "cosine", "distance", "exponential"]

F64: TypeAlias = NDArray[np.float64]
Schedule: TypeAlias = Callable[[int], float]
"""What every function here gives.

Parameters
----------
step : int
    Steps done so far, 0 before the first.

Returns
-------
float
    The learning rate of the step that comes.
"""

SCHEDULES = ("constant", "exponential", "cosine")


def constant(rate: float) -> Schedule:
    """Give a rate that stays.

    Parameters
    ----------
    rate : float
        The learning rate.

    Returns
    -------
    callable
        From the step, 0 at first, to its learning rate.

    Raises
    ------
    TypeError, ValueError
        For what is no number, negative or not finite.
    """
    value = scalar(rate, "constant", "rate")
    return lambda step: value


def exponential(rate: float, decay: float) -> Schedule:
    """Give ``rate * (1 - decay)**step``: what the reference does after every step.

    Parameters
    ----------
    rate : float
        The learning rate of step 0.
    decay : float
        What it loses per step, as a share, at least 0 and below 1.

    Returns
    -------
    callable
        From the step to its learning rate.

    Raises
    ------
    TypeError, ValueError
        For what is no number, or out of range.
    """
    value, lost = scalar(rate, "exponential", "rate"), scalar(decay, "exponential", "decay")
    if lost >= 1:
        raise refusal(ValueError, "exponential", "decay below 1", decay)
    return lambda step: float(value * (1.0 - lost) ** step)


def cosine(rate: float, steps: int, *, final: float = 0.0, warmup: int = 0) -> Schedule:
    """Give half a cosine wave from the rate to a share of it, after a linear rise.

    With ``s = (step - warmup) / (steps - warmup)``, at most 1:
    ``rate * (final + (1 - final) * (1 + cos(pi s)) / 2)``, and ``rate * (step + 1) / warmup``, at
    most the rate, before (Loshchilov and Hutter, SGDR, 2017, without restarts).

    Parameters
    ----------
    rate : float
        The highest learning rate.
    steps : int
        The step at which the wave ends; the rate stays from there on.
    final : float
        The last rate as a share of the highest, from 0 to 1.
    warmup : int
        Steps of the rise, below ``steps``.

    Returns
    -------
    callable
        From the step to its learning rate.

    Raises
    ------
    TypeError, ValueError
        For what is no number or step, or out of range.
    """
    value, low = scalar(rate, "cosine", "rate"), scalar(final, "cosine", "final")
    last = integer(steps, "cosine", "steps", 1)
    rise = integer(warmup, "cosine", "warmup", 0)
    if low > 1:
        raise refusal(ValueError, "cosine", "final from 0 to 1", final)
    if rise >= last:
        raise refusal(ValueError, "cosine", f"warmup below {last}, the steps", warmup)

    def at(step: int) -> float:
        if step < rise:
            return value * (max(step, 0) + 1) / rise
        share = min((step - rise) / (last - rise), 1.0)
        return value * (low + (1.0 - low) * (1.0 + math.cos(math.pi * share)) / 2.0)

    return at


def distance(marketplace: Sequence[Spec], *, start: float = 0.03) -> Schedule:
    """Give a rate that needs no tuning: how far the weights have come, over the root of the steps.

    For steps of unit length per spec, which is what the update "unit" makes of a direction. With
    ``x[t]`` all weights before step t and S specs,
    ``max(start |x[0]|, max over i <= t of |x[i] - x[0]|) / sqrt(S (t + 1))`` (Ivgi, Hinder and
    Carmon, "DoG is SGD's best friend", 2023, for gradients of length 1). A start that is too small
    grows by itself, one that is too large does not shrink.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market, with the weights that training starts from; they are copied.
    start : float
        The length of the first steps as a share of the weights' own, above 0.

    Returns
    -------
    callable
        From the step to its learning rate; to be asked once before every step, in their order,
        from 0. What it has seen is not part of an optimizer's file: a run that stops and goes on
        measures from where it went on.

    Raises
    ------
    TypeError, ValueError
        For a start that is no number, or not above 0; for weights that are all 0.

    Notes
    -----
    Deltas are ``learning_rate * probe_scale`` long. Let them keep their size::

        optimizer.learning_rate = rate(optimizer.global_step)
        optimizer.probe_scale = size / optimizer.learning_rate
    """
    share = scalar(start, "distance", "start")
    if share == 0:
        raise refusal(ValueError, "distance", "start above 0", start)
    models = [spec.model for spec in check_market(marketplace, "distance")]
    first = _weights(models)
    farthest = share * _length(first)
    if farthest == 0:
        raise refusal(ValueError, "distance", "weights that are not all 0", "none")

    def at(step: int) -> float:
        nonlocal farthest
        farthest = max(farthest, _length(_weights(models) - first))
        return farthest / math.sqrt(len(models) * (step + 1))

    return at


def _length(values: F64) -> float:
    # not by linalg: the threads of BLAS wait busily behind a product, on the engine's cores
    return math.sqrt(float(np.square(values).sum()))


def _weights(models: Sequence[Model]) -> F64:
    """Join all weights; batch norms' statistics are none."""
    natives = [model._core for model in models]
    return np.concatenate(
        [native.get(key).ravel() for native in natives for key in native.parameter_keys],
        dtype=np.float64,
    )
