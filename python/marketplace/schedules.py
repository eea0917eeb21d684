"""Learning-rate schedules: functions of the step, for loops of one's own.

>>> from marketplace import schedules
>>> rate = schedules.cosine(0.1, steps=2000, warmup=100)
>>> rate(0), rate(100), round(rate(2000), 12)
(0.001, 0.1, 0.0)

A schedule is asked before every step, so that a run which stops and goes on takes the same rates::

    optimizer.learning_rate = rate(optimizer.global_step)
"""

import math
from collections.abc import Callable
from typing import TypeAlias

from ._arrays import integer, refusal, scalar

__all__ = ["SCHEDULES", "Schedule", "constant", "cosine", "exponential"]

Schedule: TypeAlias = Callable[[int], float]

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
            return value * (step + 1) / rise
        share = min((step - rise) / (last - rise), 1.0)
        return value * (low + (1.0 - low) * (1.0 + math.cos(math.pi * share)) / 2.0)

    return at
