"""Bad input, one case at a time: a clear error, and nothing lost.

Every message names the operation, what it expected and what it received; afterwards weights, seeds
and the next probe have the same bits as if the call had never been made.
"""

import marketplace as mp
import numpy as np
import pytest
from markets import CONV, CONV_SHAPE, MLP, MLP_SHAPE
from refusals import Trained, refusal


@pytest.fixture
def conv():
    trained = Trained(CONV, CONV_SHAPE)
    yield trained
    trained.assert_unchanged()


@pytest.fixture
def mlp():
    trained = Trained(MLP, MLP_SHAPE)
    yield trained
    trained.assert_unchanged()


# -- the batch -------------------------------------------------------------------------------------

WRONG_X = [
    pytest.param(np.zeros((5, 64), np.float32), ("(B, 1, H, W)", "(B, 64)"), id="rank-too-low"),
    pytest.param(np.zeros((5, 1, 1, 8, 8), np.float32), ("(B, 1, 1, 8, 8)",), id="rank-too-high"),
    pytest.param(np.zeros((5, 2, 8, 8), np.float32), ("(B, 2, 8, 8)",), id="channels"),
    pytest.param(np.zeros((5, 1, 10, 8), np.float32), ("36",), id="features-of-a-later-spec"),
    pytest.param(np.zeros((5, 1, 2, 8), np.float32), ("(B, 1, 2, 8)",), id="smaller-than-kernel"),
]

ENTRIES = {
    "probe": lambda t, x: t.opt.probe(x, t.y[: len(x)]),
    "train_step": lambda t, x: t.opt.train_step(x, t.y[: len(x)]),
    "forward": lambda t, x: mp.forward(t.specs, x, vendors=t.opt.vendors),
    "straight_forward": lambda t, x: mp.straight_forward(t.specs, x),
    "forward_with_paths": lambda t, x: mp.continual.forward_with_paths(
        t.specs, x, np.zeros((len(x), 3), np.int32), t.opt
    ),
}
every_entry = pytest.mark.parametrize("enter", ENTRIES.values(), ids=ENTRIES)


@every_entry
@pytest.mark.parametrize("x, words", WRONG_X)
def test_wrong_shape(conv, enter, x, words):
    with refusal(ValueError, *words):
        enter(conv, x)


@every_entry
def test_wrong_shape_names_the_layer(conv, enter):
    with refusal(ValueError, "conv2d", "layers.0 (Conv2d)", "(B, 1, H, W)", "(B, 3, 8, 8)"):
        enter(conv, np.zeros((5, 3, 8, 8), np.float32))


@every_entry
@pytest.mark.parametrize("dtype", [np.complex64, object, "U4", "M8[s]"])
def test_wrong_dtype(conv, enter, dtype):
    received = "ndarray" if dtype is object else str(np.dtype(dtype))
    with refusal(TypeError, "x", received):
        enter(conv, np.ones(conv.x.shape, np.int64).astype(dtype))


@every_entry
@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
def test_too_large_for_float32(conv, enter, dtype):
    x = conv.x.astype(dtype)
    x[3, 0, 1, 2] = 1e39
    with refusal(ValueError, "finite", "inf in sample 3"):
        enter(conv, x)


def test_an_empty_batch_teaches_nothing(conv):
    x = np.zeros((0, 1, 8, 8), np.float32)
    for call in (conv.opt.probe, conv.opt.train_step, conv.opt.accumulate, conv.opt.keep_best_of):
        with refusal(ValueError, "at least one sample", "an empty batch"):
            call(x, conv.y[:0])


@every_entry
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_input_that_is_not_finite(conv, enter, bad):
    x = conv.x.copy()
    x[3, 0, 1, 2] = bad
    with refusal(ValueError, "finite", "sample 3"):
        enter(conv, x)


@every_entry
def test_input_that_is_no_array(conv, enter):
    with refusal(TypeError):
        enter(conv, ["a", "b"])


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_label_out_of_range(conv, label):
    y = conv.y.copy()
    y[2] = label
    for call in (conv.opt.probe, conv.opt.train_step):
        with refusal(ValueError, "labels from 0 to 2", str(label), "sample 2"):
            call(conv.x, y)


def test_label_beyond_int32(conv):
    with refusal(ValueError, "int32", str(2**40)):
        conv.opt.probe(conv.x, np.full(5, 2**40))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_label_dtype(conv, dtype):
    with refusal(TypeError, "integer", np.dtype(dtype).name):
        conv.opt.probe(conv.x, conv.y.astype(dtype))


@pytest.mark.parametrize("y", [np.zeros(4, int), np.zeros(6, int), np.zeros((5, 1), int)])
def test_label_shape(conv, y):
    with refusal(ValueError, "(5,)", str(y.shape)):
        conv.opt.probe(conv.x, y)


def test_every_label_ignored(conv):
    with refusal(ValueError, "ignore_index"):
        conv.opt.probe(conv.x, np.full(5, 7), ignore_index=7)


# -- losses and paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 11, 13])
def test_number_of_losses(mlp, count):
    with refusal(ValueError, str(count)):
        mlp.opt.step(np.ones(count, np.float32), mlp.paths)


@pytest.mark.parametrize("shape", [(12,), (12, 2), (12, 4), (11, 3)])
def test_shape_of_paths(mlp, shape):
    with refusal(ValueError):
        mlp.opt.step(mlp.loss, np.zeros(shape, np.int32))


@pytest.mark.parametrize("vendor", [-1, 3, 99])
def test_vendor_of_a_path(mlp, vendor):
    paths = mlp.paths.copy()
    paths[4, 1] = vendor
    for call in (mlp.opt.step, mlp.opt.compute_direction_vectors):
        with refusal(ValueError, "spec 1", str(vendor)):
            call(mlp.loss, paths)


def test_path_dtype(mlp):
    with refusal(TypeError, "integer", "float64"):
        mlp.opt.step(mlp.loss, mlp.paths.astype(np.float64))


def test_unit_vector_mode(mlp):
    with refusal((TypeError, ValueError), "sideways"):
        mlp.opt.compute_direction_vectors(mlp.loss, mlp.paths, "sideways")


@pytest.mark.parametrize("path", [[0, 0], [0, 0, 0, 0], [2, 0, 0], [-1, 0, 0]])
def test_path_of_one(mlp, path):
    for call in (mlp.opt.get_seeds, mlp.opt.get_learning_rates):
        with refusal(ValueError):
            call(path)


def direction(trained):
    return [dict(d) for d in trained.opt.compute_direction_vectors(trained.loss, trained.paths)]


def test_direction_for_too_few_specs(mlp):
    with refusal(ValueError, "3", "2"):
        mlp.opt.update_weights(direction(mlp)[:2])


def test_direction_with_a_missing_key(mlp):
    wrong = direction(mlp)
    del wrong[2]["layers.0.bias"]
    with refusal(ValueError, "layers.0.bias"):
        mlp.opt.update_weights(wrong)


def test_direction_with_a_foreign_key(mlp):
    wrong = direction(mlp)
    wrong[2]["layers.9.bias"] = wrong[2]["layers.0.bias"]
    with refusal(ValueError, "layers.9.bias"):
        mlp.opt.update_weights(wrong)


def test_direction_of_the_wrong_shape(mlp):
    wrong = direction(mlp)
    wrong[2]["layers.0.weight"] = wrong[2]["layers.0.weight"].T
    with refusal(ValueError, "layers.0.weight", "(3, 4)", "(4, 3)"):
        mlp.opt.update_weights(wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_direction_that_is_not_finite(mlp, bad):
    wrong = direction(mlp)
    wrong[2]["layers.0.weight"][1, 2] = bad
    with refusal(ValueError, "finite"):
        mlp.opt.update_weights(wrong)


@pytest.mark.parametrize("rates", [[0.1, 0.1], [0.1] * 4, [0.1, np.nan, 0.1], [0.1, np.inf, 0.1]])
def test_learning_rates_of_an_update(mlp, rates):
    with refusal(ValueError, "learning_rate"):
        mlp.opt.update_weights(direction(mlp), rates)


@pytest.mark.parametrize("rate", [np.nan, np.inf])
def test_learning_rate_that_went_wrong(mlp, rate):
    with refusal(ValueError, "learning_rate"):
        mlp.opt.learning_rate = rate
        mlp.opt.step(mlp.loss, mlp.paths)
    mlp.opt.learning_rate = 0.3


# -- functions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 6])
def test_topk_k(k):
    with refusal(ValueError, "topk", str(k)):
        mp.topk(np.arange(5.0), k)


def test_cross_entropy():
    logits = np.zeros((4, 3), np.float32)
    with refusal(ValueError, "cross_entropy", "labels from 0 to 2", "3"):
        mp.functional.cross_entropy(logits, np.array([0, 1, 2, 3]))
    with refusal(ValueError, "cross_entropy", "(4,)", "(5,)"):
        mp.functional.cross_entropy(logits, np.zeros(5, int))
    with refusal(ValueError, "reduction", "'max'"):
        mp.functional.cross_entropy(logits, np.zeros(4, int), reduction="max")
    with refusal(TypeError, "integer", "float64"):
        mp.functional.cross_entropy(logits, np.zeros(4))


def test_functional_conv2d():
    x = np.zeros((2, 3, 5, 5), np.float32)
    with refusal(ValueError, "conv2d", "(B, 2, H, W)", "(B, 3, 5, 5)"):
        mp.functional.conv2d(x, np.zeros((4, 2, 3, 3), np.float32))
    with refusal(ValueError, "conv2d", "weight", "(3, 3)"):
        mp.functional.conv2d(x, np.zeros((3, 3), np.float32))
    with refusal(ValueError, "conv2d", "bias (4,)", "(5,)"):
        mp.functional.conv2d(x, np.zeros((4, 3, 3, 3), np.float32), np.zeros(5, np.float32))


def test_functional_vendor_axes_must_agree():
    x = np.zeros((2, 3), np.float32)
    with refusal(ValueError, "linear", "2", "3"):
        mp.functional.linear(x, np.zeros((2, 4, 3), np.float32), np.zeros((3, 4), np.float32))


# -- produce, mutate, paths per sample -------------------------------------------------------------


def test_produce_with_rows_and_paths_that_differ(mlp):
    x = np.zeros((3, 7, 5), np.float32)
    with refusal(ValueError, "produce", "3", "2"):
        mp.produce(mlp.specs[1], x, mlp.opt.vendors[1], np.zeros((2, 1), np.int32))


def test_produce_with_too_few_vendors(mlp):
    x = np.zeros((2, 7, 5), np.float32)
    with refusal(ValueError, "produce", "3", "2"):
        mp.produce(mlp.specs[1], x, mlp.opt.vendors[1][:2], np.zeros((2, 1), np.int32))


def test_forward_with_vendors_for_too_few_specs(mlp):
    with refusal(ValueError, "3", "2"):
        mp.forward(mlp.specs, mlp.x, vendors=mlp.opt.vendors[:2])


@pytest.mark.parametrize("path", [[0, 0], [0, 3, 0], [0, -1, 0], [0, 0, 0, 0]])
def test_mutate_path(mlp, path):
    with refusal(ValueError, "mutate"):
        mp.mutate(mlp.specs, path, 0.1)


@pytest.mark.parametrize("jitter", [np.nan, np.inf])
def test_mutate_jitter(mlp, jitter):
    with refusal(ValueError, "jitter"):
        mp.mutate(mlp.specs, [1, 1, 1], jitter)


@pytest.mark.parametrize("shape", [(7,), (6, 3), (7, 2)])
def test_paths_per_sample_shape(mlp, shape):
    with refusal(ValueError, "(7, 3)", str(shape)):
        mp.continual.forward_with_paths(mlp.specs, mlp.x, np.zeros(shape, np.int32), mlp.opt)


def test_paths_per_sample_vendor(mlp):
    paths = np.zeros((7, 3), np.int32)
    paths[5, 1] = 3
    with refusal(ValueError, "spec 1", "3", "sample 5"):
        mp.continual.forward_with_paths(mlp.specs, mlp.x, paths, mlp.opt)
