"""What is too large, or too little, is refused by name before anything is made of it."""

import marketplace as mp
import numpy as np
import pytest
from marketplace import _core, nn
from marketplace import functional as F
from refusals import refusal

IMAGES = np.zeros((2, 1, 4, 4), np.float32)


def test_a_misfit_names_its_spec():
    market = [mp.Spec(nn.Linear(6, 6), 2), mp.Spec(nn.Linear(6, 4), 2), mp.Spec(nn.Linear(6, 3), 2)]
    x, y = np.ones((4, 6), np.float32), np.zeros(4, np.int64)
    for call in (
        lambda: mp.straight_forward(market, x),
        lambda: mp.Optimizer(market, 0.1, seed=1, plan="star").probe(x, y),
        lambda: mp.Optimizer(market, 0.1, seed=1, plan="node").probe(x, y),
        lambda: mp.Optimizer(market, 0.1, seed=1).flops_per_step((6,), 4),
    ):
        with refusal(ValueError, "spec 2: linear: layers.0 (Linear)", "(B, ..., 6)", "(B, 4)"):
            call()


def test_a_padded_image_has_a_size_too():
    most = 2**31 - 1
    with refusal(ValueError, "conv2d", "padded", "at most 2^31 elements"):
        F.conv2d(IMAGES, np.ones((1, 1, 1, 1)), stride=most, padding=most)


@pytest.mark.parametrize("extents", [(10**7, 10**7), (2**31 - 1, 2**31 - 1)])
def test_a_parameter_has_a_size(extents):
    with refusal(ValueError, "Linear", "a parameter of at most 2147483648 elements"):
        nn.Linear(*extents)
    with refusal(ValueError, "parameter weight", "at most 2^31 elements"):
        _core.Graph().parameter("weight", extents)


def test_vendors_have_a_number():
    assert mp.Spec(nn.Linear(2, 2), 2**20).vendor_count == 2**20
    with refusal(ValueError, "Spec", "vendor_count of at most 1048576", "99999999999"):
        mp.Spec(nn.Linear(2, 2), 99999999999)


@pytest.mark.parametrize("extents", [(-1, 2**62, 4), (-1, 0), (2**40, 2**40)])
def test_a_reshape_whose_elements_overflow(extents):
    graph = _core.Graph()
    with pytest.raises(ValueError, match=r"reshape.*: expected as many elements as"):
        graph.set_output(graph.reshape(0, list(extents), layer="layers.0"))
        _core.Model(graph).flops((16,))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_a_batch_norm_of_one_value(shape):
    market = [mp.Spec(nn.Model(nn.BatchNorm(3), nn.flatten, nn.Linear(3, 2)), 3)]
    opt = mp.Optimizer(market, 0.1, seed=1)
    with refusal(ValueError, "batch_norm: layers.0", "more than one value a channel", "1, a batch"):
        opt.probe(np.ones(shape, np.float32), [0])
    assert mp.straight_forward(market, np.ones(shape, np.float32)).shape == (1, 2)
    opt.probe(np.ones((2, *shape[1:]), np.float32), [0, 1])


def test_vendors_combined_by_the_engine():
    """A direction of another length would be read beyond its end."""
    market = [mp.Spec(nn.Linear(6, 3), 2)]
    opt = mp.Optimizer(market, 0.1, seed=1)
    short = _core.VendorWeights.scaled(np.ones(3, np.float32), np.ones(2, np.float32))
    with refusal(ValueError, "vendors", "21 values for spec 0"):
        opt._market.combine(0, short, np.ones(2, np.float32))
    with refusal(ValueError, "combine", "2 coefficients"):
        opt._market.combine(0, opt._native.weights(0), np.ones(3, np.float32))


class Foreign:
    """An array of another library that NumPy cannot read."""

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **_):
        raise BufferError("gradients are wanted")


def test_arrays_that_cannot_be_read():
    with refusal(TypeError, "relu", "an array that NumPy reads", "Foreign", "gradients are wanted"):
        F.relu(Foreign())
    with refusal(TypeError, "linear", "weight as an array of numbers", "None"):
        F.linear(np.ones((2, 3)), None)
    with refusal(TypeError, "conv2d", "weight as an array of numbers", "None"):
        F.conv2d(IMAGES, None)
    with refusal(ValueError, "cross_entropy", "logits (..., B, K)", "(2, 0)"):
        F.cross_entropy(np.zeros((2, 0)), [0, 0])


def test_numbers_beyond_float32():
    layer = nn.Model(nn.Linear(2, 2))
    before = layer.state_dict()
    with refusal(ValueError, "load_state_dict", "within float32", "1e+300"):
        layer.load_state_dict({**before, "layers.0.bias": np.array([0.0, 1e300])})
    np.testing.assert_array_equal(layer.state_dict()["layers.0.bias"], before["layers.0.bias"])
    with refusal(ValueError, "mutate", "jitter within float32"):
        mp.training.mutate([mp.Spec(layer, 2)], [0], 1e300)
    layer.load_state_dict({**before, "layers.0.bias": np.array([0.0, np.inf])})  # as it is given
