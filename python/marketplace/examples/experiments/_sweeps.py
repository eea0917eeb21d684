"""The reference's experiments on digits and photographs, with its values.

Its older scripts (those that import ``multi_nn``) ran V1, whose learning rate is the largest change
of a weight; the newer ones V2, on the tree of all paths.
"""

from __future__ import annotations

from ._experiment import Experiment, Trial, span, trial

BATCH = 512


def _v2(values: dict[str, str | int | float], **options: object) -> Trial:
    """Run V2 as the reference's ``train`` does unless told otherwise."""
    settings: dict[str, object] = {
        "plan": "tree",
        "vendors": 8,
        "batch_size": BATCH,
        "lr_schedule": "exponential",
        "lr_decay": 1e-5,
        "steps": 1000,
        "eval_every": 10,
    }
    return trial("mnist", values, **(settings | options))


def _v1(values: dict[str, str | int | float], **options: object) -> Trial:
    """Run V1 as the reference's older scripts did."""
    settings: dict[str, object] = {
        "algorithm": "v1",
        "plan": "tree",
        "batch_size": BATCH,
        "lr": 1e-3,
        "lr_schedule": "exponential",
        "lr_decay": 1e-4,
        "steps": 10_000,
        "eval_every": 10,
    }
    return trial("mnist", values, **(settings | options))


def _beautiful_mnist() -> Experiment:
    run = _v2({"vendors": 8}, lr=0.1, probe_scale=0.1, steps=10_000)
    return Experiment("beautiful_mnist", "the market on MNIST, with its defaults", (run,))


def _mnist_backprop_cmp() -> Experiment:
    common: dict[str, object] = {"batch_size": BATCH, "steps": 1000, "eval_every": 10}
    runs = [trial("backprop", {"method": "adam", "lr": 1e-3}, optimizer="adam", lr=1e-3, **common)]
    for method in ("muon", "sgd"):
        for lr in span(0.0, 1e-3, range(1, 10)):
            values: dict[str, str | int | float] = {"method": method, "lr": lr}
            runs.append(trial("backprop", values, optimizer=method, lr=lr, **common))
    ours: dict[str, str | int | float] = {"method": "market", "lr": 0.1}
    runs.append(_v2(ours, vendors=16, lr=0.1, probe_scale=0.1, seed=42))
    return Experiment(
        "mnist_backprop_cmp",
        "backpropagation (Adam; Muon and SGD by learning rate) beside the market",
        tuple(runs),
        note="needs PyTorch for backpropagation; the same weights, norms and minibatches for all",
    )


def _lr() -> Experiment:
    runs = [
        _v2({"probe scale": scale, "lr": lr}, lr=lr, probe_scale=scale)
        for scale in span(0.1, 0.025, range(0, 10, 2))
        for lr in span(0.1, 0.025, range(0, 10, 2))
    ]
    return Experiment("lr", "learning rate by probe scale, 8 vendors", tuple(runs))


def _lr_vendor16() -> Experiment:
    runs = [
        _v2({"probe scale": scale, "lr": lr}, lr=lr, probe_scale=scale, vendors=16)
        for scale in span(0.1, 0.025, range(10))
        for lr in (0.06, 0.08, 0.2)
    ]
    return Experiment("lr_vendor16", "learning rate by probe scale, 16 vendors", tuple(runs))


def _lr_scale() -> Experiment:
    runs = []
    for lr in (1e-2, 1e-3, 1e-4):
        common: dict[str, object] = {"lr": lr, "probe_scale": 1, "lr_decay": 1e-4}
        runs.append(_v2({"lr": lr, "meta lr": "none"}, **common))
        for share in span(0.0, 0.1, range(1, 10)):
            runs.append(_v2({"lr": lr, "meta lr": share}, meta_lr=share, **common))
    return Experiment(
        "lr_scale",
        "learning rate by the range of the line search",
        tuple(runs),
        note="the reference's ranges (start, end) of scales became one number, the meta learning "
        "rate: scales within 1 - m and 1 + m",
    )


def _unit_vector_mode() -> Experiment:
    runs = [
        _v2({"lr": lr, "mode": mode}, lr=lr, probe_scale=0.001, unit_vector_mode=mode)
        for lr in (0.09, 0.1, 0.2, 0.3)
        for mode in ("per_spec", "whole")
    ]
    return Experiment("unit_vector_mode", "learning rate by unit vector mode", tuple(runs))


def _market_depth() -> Experiment:
    sizes = ((1, 8), (1, 16), (1, 32), (1, 64), (3, 8), (3, 16))
    runs = [
        _v1({"depth": depth, "vendors": vendors}, market=f"depth-{depth}", vendors=vendors)
        for depth, vendors in sizes
    ]
    return Experiment("market_depth", "specs by vendors (V1)", tuple(runs))


def _scaling() -> Experiment:
    runs = [
        _v2(
            {"replicas": count, "minibatches": count},
            lr=1e-2,
            probe_scale=1,
            lr_decay=1e-4,
            meta_lr=0.1,
            marketplace_replica=count,
            forward_pass=count,
            steps=500,
            seed=42,
        )
        for count in (1, 64)
    ]
    return Experiment(
        "scaling",
        "64 draws of all vendors on 64 minibatches per update",
        tuple(runs),
        note="one of each as well, to compare with; in the reference's last commit both numbers do "
        "nothing",
    )


def _batch_sizes() -> Experiment:
    sizes = [
        (batch, passes)
        for batch in (32, 64, 128, 256, 512)
        for passes in (1, 2, 4, 8, 16)
        if batch * passes <= 512
    ]
    runs = [
        _v1(
            {"batch": batch, "minibatches": passes},
            market="pyramid-32",
            batch_size=batch,
            forward_pass=passes,
        )
        for batch, passes in sizes
    ]
    return Experiment("batch_sizes", "batch size by minibatches per update (V1)", tuple(runs))


def _batch_normal() -> Experiment:
    runs = [_v1({"norm": norm}, norm=norm, vendors=8) for norm in ("batch", "instance")]
    return Experiment("batch_normal", "batch norms beside instance norms (V1)", tuple(runs))


def _low_precision() -> Experiment:
    runs = [
        _v1({"dtype": dtype}, dtype=dtype, market="pyramid-64", batch_size=32, lr_decay=4.5e-4)
        for dtype in ("float32", "bfloat16")
    ]
    return Experiment(
        "low_precision",
        "bfloat16 beside float32 (V1)",
        tuple(runs),
        note="bfloat16 instead of float16, and float32 to compare with",
    )


def _long_run() -> Experiment:
    run = _v1(
        {"market": "pyramid-32"},
        market="pyramid-32",
        batch_size=32,
        lr_decay=1e-3,
        steps=100_000,
        eval_every=100,
    )
    return Experiment("long_run", "100,000 steps (V1)", (run,))


def _resnet18() -> Experiment:
    run = trial(
        "resnet18",
        {"image size": 224},
        algorithm="v1",
        market="depth-3",
        norm="instance",
        plan="tree",
        vendors=4,
        image_size=224,
        batch_size=64,
        lr=1e-3,
        lr_decay=4.5e-4,
        steps=500_000,
        eval_every=10,
    )
    return Experiment(
        "resnet18",
        "ResNet-18 (V1)",
        (run,),
        note="on synthetic stripes, unless `-- --folder DIR` names images",
    )


SWEEPS = tuple(
    make()
    for make in (
        _beautiful_mnist,
        _mnist_backprop_cmp,
        _lr,
        _lr_scale,
        _lr_vendor16,
        _unit_vector_mode,
        _market_depth,
        _scaling,
        _batch_sizes,
        _batch_normal,
        _low_precision,
        _long_run,
        _resnet18,
    )
)
