"""A small program that every worker runs, and what to compare of its end."""

import dataclasses
import zlib

import marketplace as mp
import numpy as np
from marketplace import nn

STEPS = 50


def market(vendors=(4, 12), seed=1, norm=None, sampling=0):
    """Give two linear specs, initial weights from ``seed``."""
    mp.random.manual_seed(seed)
    hidden = [nn.Linear(6, 8), nn.relu] if norm is None else [nn.Linear(6, 8), norm(8), nn.relu]
    return [
        mp.Spec(nn.Model(*hidden), vendor_count=vendors[0]),
        mp.Spec(nn.Model(nn.Linear(8, 3)), vendor_count=vendors[1], upstream_sampling=sampling),
    ]


def make(plan="star", norm=None, vendors=(4, 12), sampling=0, **options):
    """Make the optimizer."""
    options = {"probe_scale": 0.1, "seed": 1, "threads": 1, "device": "cpu"} | options
    return mp.Optimizer(market(vendors, norm=norm, sampling=sampling), 0.1, plan=plan, **options)


def batches(step, size=16):
    """Give the batch of a step."""
    rng = np.random.default_rng(step)
    return rng.normal(size=(size, 6)).astype(np.float32), rng.integers(0, 3, size)


def step(optimizer, **options):
    """Take a step, at a rate that falls."""
    optimizer.learning_rate = 0.1 * 0.99**optimizer.global_step
    return optimizer.train_step(*batches(optimizer.global_step), **options)


def keep_best(optimizer):
    """Take a step of V1."""
    result = optimizer.probe(*batches(optimizer.global_step))
    optimizer.keep_best(*result)
    return result


def gpus():
    """Name the GPUs, real or emulated."""
    return [device["name"] for device in mp.devices() if device["kind"] != "cpu"]


def report_slowly(evaluate, *arguments):
    """Evaluate a share as if it took ten times as long."""
    report = evaluate(*arguments)
    return dataclasses.replace(report, seconds=10 * report.seconds)


def checksum(optimizer):
    """Give a number that tells weights and running statistics apart to the bit."""
    arrays = [v for spec in optimizer.marketplace for v in spec.model.state_dict().values()]
    return zlib.crc32(b"".join(np.ascontiguousarray(v).tobytes() for v in arrays))


def alone(steps=STEPS, step=step, **options):
    """Give the checksum of one process."""
    optimizer = make(**options)
    for _ in range(steps):
        step(optimizer)
    return checksum(optimizer)
