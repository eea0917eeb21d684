"""The reference's experiments on learning while inferring, with its values.

All start from a model of 2,000 steps at 16 vendors. A stream gives 256 images at a time; each takes
a path of its own.
"""

from __future__ import annotations

import dataclasses

from ._experiment import Experiment, Trial, Value, arguments, trial

STREAM_BATCH = 256
_NINE = "0,1,2,3,4,5,6,7,8"

# What the reference does and our examples have better defaults for.
_PLAIN: dict[str, object] = {
    "plan": "scatter", "no_control_variate": True, "new_class_weight": 1,
}  # fmt: skip


def _base(**options: object) -> tuple[str, ...]:
    settings: dict[str, object] = {
        "plan": "tree",
        "vendors": 16,
        "batch_size": 512,
        "lr": 0.3,
        "lr_decay": 1e-5,
        "probe_scale": 0.01,
        "unit_vector_mode": "whole",
        "steps": 2000,
        "seed": 42,
    }
    return arguments(settings | options)


def _learn(program: str, values: dict[str, Value], **options: object) -> Trial:
    settings: dict[str, object] = {
        "vendors": 4,
        "batch_size": STREAM_BATCH,
        "lr": 0.01,
        "lr_decay": 0,
        "probe_scale": 1,
        "steps": 10_000,
        "eval_every": 10,
        "seed": 42,
    }
    run = trial(program, values, **(settings | _PLAIN | options))
    return dataclasses.replace(run, base="base")


def _digits(values: dict[str, Value], **options: object) -> Trial:
    """Learn 9, a tenth of the digits in the stream."""
    own: dict[str, object] = {"new_class": 9, "new_per_batch": 26, "no_balance_labels": True}
    return _learn("continual_digits", values, **(own | options))


def _fashion(values: dict[str, Value], **options: object) -> Trial:
    """Learn dresses, mixed into the digits."""
    own: dict[str, object] = {"new_class": 3, "new_per_batch": 16}
    return _learn("continual_fashion", values, **(own | options))


def _with_replay(run: Trial) -> Trial:
    return dataclasses.replace(run, files={"--replay": ".replay.jsonl"})


def _continual_learning() -> Experiment:
    return Experiment(
        "continual_learning",
        "a digit that the model has never seen",
        (_digits({"new class": 9}),),
        {"base": _base(only_classes=_NINE)},
    )


def _continual_learning_fashion() -> Experiment:
    return Experiment(
        "continual_learning_fashion",
        "one class of clothes among the digits",
        (_fashion({"new class": 3}),),
        {"base": _base()},
    )


def _cl_exp() -> Experiment:
    runs = [
        _digits(
            {"vendors": vendors, "minibatches": passes, "lr": lr, "probe scale": scale},
            vendors=vendors,
            batch_size=STREAM_BATCH * passes,
            new_per_batch=26 * passes,
            lr=lr,
            probe_scale=scale,
        )
        for vendors in (8, 16)
        for passes in (4, 8, 16)
        for lr in (9e-3, 1e-2, 2e-2, 3e-2, 1e-1, 2e-1)
        for scale in (1, 0.5, 0.1)
    ]
    return Experiment(
        "cl_exp",
        "vendors by minibatches by learning rate by probe scale",
        tuple(runs),
        {"base": _base(only_classes=_NINE)},
        note="n minibatches of samples with paths of their own are one batch of n times as many",
    )


def _cl_digit_exp() -> Experiment:
    runs = [
        _with_replay(
            dataclasses.replace(
                _digits({"missing class": name}, steps=100_000, eval_every=100), base=base
            )
        )
        for name, base in (("in the loss", "base"), ("out of the loss", "base-neutral"))
    ]
    bases = {
        "base": _base(only_classes=_NINE),
        "base-neutral": _base(only_classes=_NINE, exclude_missing_from_loss=True),
    }
    return Experiment(
        "cl_digit_exp",
        "base models that were told of the missing class, or not",
        tuple(runs),
        bases,
        note="the reference's ignore_index passes over samples of a class that has none; ours "
        "leaves the missing classes out of the softmax",
    )


def _cl_fashion_exp() -> Experiment:
    runs = [
        _with_replay(_fashion({"augmented": which}, augment=which, steps=100_000, eval_every=100))
        for which in ("none", "old")
    ]
    return Experiment(
        "cl_fashion_exp", "with and without old images augmented", tuple(runs), {"base": _base()}
    )


def _cl_augment() -> Experiment:
    runs = [
        _fashion(
            {"augmented": which},
            augment=which,
            new_per_batch=32,
            steps=100_000,
            eval_every=100,
        )
        for which in ("none", "new", "old", "both")
    ]
    base = _base(lr=0.1, probe_scale=0.1, unit_vector_mode="per_spec")
    return Experiment(
        "cl_augment", "which images of the stream are augmented", tuple(runs), {"base": base}
    )


def _cl_balance_labels() -> Experiment:
    runs = [
        _fashion({"balanced": name}, vendors=8, new_per_batch=32, **{option: True})
        for name, option in (("yes", "balance_labels"), ("no", "no_balance_labels"))
    ]
    base = _base(lr=0.1, probe_scale=0.1, unit_vector_mode="per_spec")
    return Experiment(
        "cl_balance_labels", "with and without labels balanced", tuple(runs), {"base": base}
    )


STREAMS = tuple(
    make()
    for make in (
        _continual_learning,
        _continual_learning_fashion,
        _cl_exp,
        _cl_digit_exp,
        _cl_fashion_exp,
        _cl_augment,
        _cl_balance_labels,
    )
)
