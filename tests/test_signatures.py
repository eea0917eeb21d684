"""Names and orders of arguments that other people's code calls by."""

import inspect

import marketplace as mp
import pytest
from marketplace import nn, training
from marketplace.optimizers import Optimizer

NAMES = [
    (nn.Conv2d, "in_channels out_channels kernel_size * stride padding dilation groups bias"),
    (nn.Linear, "in_features out_features * bias"),
    (training.Spec, "model vendor_count upstream_sampling"),
    (training.produce, "spec x vendors paths"),
    (training.forward, "marketplace x vendors initial_paths"),
    (training.straight_forward, "specs x"),
    (training.mutate, "marketplace leading_path jitter * seed"),
    (
        Optimizer,
        "marketplace learning_rate meta_learning_rate seeds probe_scale "
        "* plan device dtype seed threads",
    ),
    (Optimizer.probe, "self x y"),
    (Optimizer.step, "self loss paths"),
    (Optimizer.train_step, "self x y"),
    (Optimizer.get_seeds, "self path"),
    (Optimizer.get_learning_rates, "self path"),
    (Optimizer.compute_direction_vectors, "self loss paths unit_vector_mode"),
    (Optimizer.update_weights, "self direction_delta learning_rates"),
    (Optimizer.update_seeds, "self keep_leader"),
    (Optimizer.update_lr_scales, "self direction_vectors"),
    (mp.topk, "x k largest"),
    (mp.functional.cross_entropy, "logits y reduction ignore_index"),
    (mp.random.rand, "*shape seed counter dtype"),
    (mp.checkpoint.write_checkpoint, "marketplace global_step path"),
    (mp.checkpoint.load_checkpoint, "marketplace path"),
    (mp.continual.forward_with_paths, "marketplace x paths optimizer"),
]


def spelled(parameter):
    return f"*{parameter.name}" if parameter.kind is parameter.VAR_POSITIONAL else parameter.name


def arguments(function):
    """Names in order, a star before the first that must be named."""
    names, keyword_only = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            if not any(name.startswith("*") for name in names):
                names.append("*")
        names.append(spelled(parameter))
    return names


@pytest.mark.parametrize(("function", "names"), NAMES)
def test_arguments(function, names):
    """More may follow, each with a default."""
    wanted = names.split()
    found = arguments(function)
    assert found[: len(wanted)] == wanted
    parameters = inspect.signature(function).parameters
    for name in found[len(wanted) :]:
        if name != "*":
            assert parameters[name].default is not inspect.Parameter.empty, name
