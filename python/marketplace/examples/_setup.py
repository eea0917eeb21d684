"""From options to a market and its optimizer, fresh or from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from .. import random
from ..optimizers import Optimizer
from ..schedules import cosine
from ..training import Spec, allocate_vendors
from ._arguments import DEFAULT_SEED, Defaults
from ._cli import Options
from ._markets import Structure


def set_up(
    options: Options, defaults: Defaults, structure: Structure, sample_shape: Sequence[int]
) -> tuple[list[Spec], Optimizer]:
    """Build the market and its optimizer.

    Parameters
    ----------
    options : Options
        The command line. What it leaves open comes from the checkpoint when there is one,
        else from ``defaults``.
    defaults : Defaults
        The example's defaults.
    structure : Structure
        The market's; built after the random generator was seeded.
    sample_shape : sequence of int
        Shape of one image, which says what a vendor costs.

    Returns
    -------
    market : list of Spec
        Its specs.
    opt : Optimizer
        At step 0, or at the checkpoint's.

    Raises
    ------
    ValueError
        The checkpoint is no checkpoint, or of another market, plan, seed or dtype; or the market
        has no vendors as cheap as was asked for.
    OSError
        The checkpoint cannot be read.
    RuntimeError
        There is no such device.
    """
    plan = options.plan or structure.plan
    seed = DEFAULT_SEED if options.seed is None else options.seed
    random.manual_seed(seed)
    market = structure.specs(plan, options.vendor_counts, options.upstream_sampling)
    if options.auto_vendors:
        _allocate(market, plan, sample_shape, options.flops)
    if options.resume is not None:
        opt = _resume(options, market)
        opt.classes = options.loss_classes
        return market, opt
    lr, probe_scale = _default_rates(options, defaults, plan)
    opt = Optimizer(
        market,
        options.lr or lr,
        options.meta_lr,
        probe_scale=options.probe_scale or probe_scale,
        plan=plan,
        update=options.update,
        momentum=0.9 if options.momentum is None else options.momentum,
        shaping=options.shaping or "z",
        antithetic=bool(options.antithetic),
        device=options.device,
        dtype=options.dtype or "float32",
        seed=seed,
        threads=options.threads,
    )
    opt.classes = options.loss_classes
    return market, opt


def _allocate(
    market: list[Spec], plan: str, sample_shape: Sequence[int], gflops: float | None
) -> None:
    """Give every spec the vendors that the work affords; by default that of those which it has."""
    if gflops is None:
        flops = Optimizer(market, 1.0, plan=plan, seed=0).flops_per_step(sample_shape, 1)
    else:
        flops = round(gflops * 1e9)
    try:
        counts = allocate_vendors(market, sample_shape, plan=plan, flops=flops)
    except ValueError as error:  # in operations; the option is in thousands of millions
        raise ValueError(f"--flops {gflops}, {flops} operations an image: {error}") from None
    for spec, count in zip(market, counts, strict=True):
        spec.vendor_count = count


def _default_rates(options: Options, defaults: Defaults, plan: str) -> tuple[float, float | None]:
    """Give the learning rate and the probe scale of a plan."""
    if options.algorithm == "v1":
        return defaults.jitter, None
    if plan == "node":
        return defaults.node_lr, defaults.node_probe_scale
    return defaults.lr, defaults.probe_scale


def _resume(options: Options, market: list[Spec]) -> Optimizer:
    assert options.resume is not None
    opt = Optimizer.resume(options.resume, market, device=options.device, threads=options.threads)
    for name in ("plan", "seed", "dtype", "update", "momentum", "shaping", "antithetic"):
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
    if options.lr is not None:
        opt.learning_rate = _scheduled(options, options.lr, 0 if searching else opt.global_step)
    if options.meta_lr is not None:
        opt.meta_learning_rate = _scheduled(options, options.meta_lr, opt.global_step)
    if options.probe_scale is not None:
        opt.probe_scale = options.probe_scale


def rate_change(options: Options, step: int) -> float:
    """Give what the learning rate is multiplied by after ``step`` steps: its schedule's ratio.

    A run that goes on knows the rate it stopped with, not the one it started from.
    """
    if options.lr_schedule == "cosine":
        rate = cosine(1.0, options.schedule_steps, final=options.lr_final)
        return rate(step) / rate(step - 1)
    return 1.0 - options.lr_decay


def _scheduled(options: Options, rate: float, steps: int) -> float:
    """Multiply step by step, as training does: a power would round differently."""
    for step in range(1, steps + 1):
        rate *= rate_change(options, step)
    return rate
