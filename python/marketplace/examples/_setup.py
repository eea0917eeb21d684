"""From options to a market and its optimizer, fresh or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import random
from ..optimizers import Optimizer
from ..training import Spec
from ._cli import DEFAULT_PLAN, DEFAULT_SEED, DEFAULT_VENDORS, Defaults, Options

MakeMarket = Callable[[Sequence[int]], list[Spec]]


def set_up(
    options: Options, defaults: Defaults, make_market: MakeMarket
) -> tuple[list[Spec], Optimizer]:
    """Build the market and its optimizer.

    Parameters
    ----------
    options : Options
        The command line. What it leaves open comes from the checkpoint when there is one,
        else from ``defaults``.
    defaults : Defaults
        The example's defaults.
    make_market : callable
        Vendor counts to a market; called after the random generator was seeded.

    Returns
    -------
    market : list of Spec
        Its specs.
    opt : Optimizer
        At step 0, or at the checkpoint's.

    Raises
    ------
    ValueError
        The checkpoint is no checkpoint, or of another market, plan, seed or dtype.
    OSError
        The checkpoint cannot be read.
    RuntimeError
        There is no such device.
    """
    plan = options.plan or DEFAULT_PLAN
    seed = DEFAULT_SEED if options.seed is None else options.seed
    random.manual_seed(seed)
    market = make_market(options.vendors or DEFAULT_VENDORS[plan])
    if options.resume is not None:
        return market, _resume(options, market)
    opt = Optimizer(
        market,
        options.lr or defaults.lr,
        options.meta_lr,
        probe_scale=options.probe_scale or defaults.probe_scale,
        plan=plan,
        device=options.device,
        dtype=options.dtype or "float32",
        seed=seed,
        threads=options.threads,
    )
    return market, opt


def _resume(options: Options, market: list[Spec]) -> Optimizer:
    assert options.resume is not None
    opt = Optimizer.resume(options.resume, market, device=options.device, threads=options.threads)
    for name in ("plan", "seed", "dtype"):
        given, kept = getattr(options, name), getattr(opt, name)
        if given is not None and given != kept:
            raise ValueError(f"--{name}: expected {kept}, as in {options.resume}, received {given}")
    if options.meta_lr is not None and opt.meta_learning_rate is None:
        raise ValueError(f"--meta-lr: {options.resume} is of a run without a line search")
    _follow_options(opt, options)
    return opt


def _follow_options(opt: Optimizer, options: Options) -> None:
    """Given rates count as those of step 0, so that repeating a command line changes nothing."""
    searching = opt.meta_learning_rate is not None
    factor = 1.0 - options.lr_decay
    if options.lr is not None:
        opt.learning_rate = _decayed(options.lr, factor, 0 if searching else opt.global_step)
    if options.meta_lr is not None:
        opt.meta_learning_rate = _decayed(options.meta_lr, factor, opt.global_step)
    if options.probe_scale is not None:
        opt.probe_scale = options.probe_scale


def _decayed(rate: float, factor: float, steps: int) -> float:
    """Multiply step by step, as training does: a power would round differently."""
    for _ in range(steps):
        rate *= factor
    return rate
