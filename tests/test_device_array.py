"""Results that stay on the GPU: taken without a copy, in the order of streams."""

import gc

import marketplace as mp
import numpy as np
import pytest
from emulated import (
    BUSY_WORK,
    EMULATED,
    GPUS,
    VENDORS,
    InterfaceArray,
    Memory,
    Stream,
    Taken,
    call,
    deferred,
    live_blocks,
    make,
    read,
    several,
)
from markets import CONV, CONV_SHAPE, MLP, MLP_SHAPE, batch, build, same_bits
from refusals import refusal

pytestmark = pytest.mark.skipif(not EMULATED, reason="needs the emulated GPU")


@pytest.fixture
def results():
    """Give results on the GPU, and the same in NumPy's memory."""
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    there, paths = mp.forward(built.specs, x, opt.vendors, out="device")
    expected, known = mp.forward(built.specs, x, opt.vendors)
    same_bits(paths, known)
    return there, np.asarray(expected)


@pytest.mark.parametrize("layers, shape", [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)])
def test_results_have_the_bits_of_those_in_numpys_memory(layers, shape):
    built, opt = make(layers)
    x, _ = batch(shape)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    there, _ = mp.forward(built.specs, x, opt.vendors, out="device")
    same_bits(there.numpy(), expected)
    same_bits(
        mp.straight_forward(built.specs, x, out="device").numpy(),
        mp.straight_forward(built.specs, x),
    )


@pytest.mark.parametrize("most", [1 << 17, 1 << 18])
def test_results_of_work_that_was_cut(most):
    (built, opt), (other, uncut) = make(max_memory_bytes=most), make()
    x, _ = batch((600, 6))
    expected, _ = mp.forward(other.specs, x, uncut.vendors)
    there, _ = mp.forward(built.specs, x, opt.vendors, out="device")
    same_bits(there.numpy(), expected)


@several
@pytest.mark.parametrize("count", [2, 4])
def test_results_of_several_devices_come_together_on_the_first(count):
    built, opt = make(CONV, device=GPUS[:count])
    x, _ = batch(CONV_SHAPE)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    with deferred():
        there, _ = mp.forward(built.specs, InterfaceArray(x), opt.vendors, out="device")
        assert there.device == "cuda:0"
        same_bits(there.numpy(), expected)
        stream = Stream()
        there, _ = mp.forward(
            built.specs, InterfaceArray(x), opt.vendors, out="device", stream=stream.handle
        )
        same_bits(read(0, there.__cuda_array_interface__["data"][0], there.shape, stream), expected)


def test_specs_one_by_one():
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    expected, paths = mp.forward(built.specs, x, opt.vendors)
    data, known = InterfaceArray(x), None
    for spec, vendors in zip(built.specs, opt.vendors, strict=True):
        data, known = mp.produce(spec, data, vendors, known, out="device")
        assert isinstance(data, mp.DeviceArray)
    same_bits(data.numpy(), expected)
    same_bits(known, paths)


def test_results_go_in_again_without_a_copy():
    built = build(MLP, VENDORS)
    x, y = batch(MLP_SHAPE)
    hidden = mp.straight_forward(built.specs[:1], x, out="device")
    opt = mp.Optimizer(built.specs[1:], 0.125, device="cuda:0", seed=2)
    same_bits(opt.probe(hidden, y)[0], opt.probe(hidden.numpy(), y)[0])
    interface = InterfaceArray(np.zeros(hidden.shape, np.float32))
    interface.changed = hidden.__cuda_array_interface__  # as a library would pass it on
    same_bits(opt.probe(interface, y)[0], opt.probe(hidden.numpy(), y)[0])


def test_what_an_array_says_of_itself(results):
    there, expected = results
    assert (there.shape, there.ndim, there.size) == (expected.shape, 3, expected.size)
    assert (there.dtype, there.nbytes, len(there)) == (np.float32, expected.nbytes, len(expected))
    assert repr(there) == f"DeviceArray(shape={there.shape}, dtype=float32, device='cuda:0')"
    interface = there.__cuda_array_interface__
    assert interface["shape"] == there.shape
    assert interface["typestr"] == "<f4"
    assert interface["strides"] is None
    assert interface["version"] == 3
    assert interface["stream"] > 2
    same_bits(read(0, interface["data"][0], there.shape, Stream()), expected)


def test_numpy_gets_a_copy(results):
    there, expected = results
    same_bits(there.numpy(), expected)
    same_bits(np.asarray(there), expected)
    assert np.asarray(there, dtype=np.float64).dtype == np.float64
    with refusal(ValueError, "DeviceArray", "copy None or True"):
        there.__array__(copy=False)
    host = there.__dlpack__(dl_device=(1, 0), max_version=(1, 0))
    assert Taken(host).device == (1, 0)
    with refusal(BufferError, "__dlpack__", "copy None or True to the host"):
        there.__dlpack__(dl_device=(1, 0), copy=False)
    with refusal(ValueError, "__dlpack__", "no stream on the host"):
        there.__dlpack__(dl_device=(1, 0), stream=1)


def test_arrays_are_not_made_by_hand():
    with refusal(TypeError, "DeviceArray", "what forward(..., out='device') gives"):
        mp.DeviceArray(np.zeros(3))
    with refusal(ValueError, "forward", "out 'numpy' or 'device'", "'gpu'"):
        mp.forward(make()[0].specs, batch(MLP_SHAPE)[0], out="gpu")


@pytest.mark.parametrize(
    "asked, name, version",
    [
        (None, b"dltensor", None),
        ((0, 8), b"dltensor", None),
        ((1, 0), b"dltensor_versioned", 1),
        ((2, 3), b"dltensor_versioned", 1),
    ],
)
def test_capsules(results, asked, name, version):
    there, expected = results
    taken = Taken(there.__dlpack__(max_version=asked))
    assert (taken.name, taken.version) == (name, version)
    assert taken.flags == (None if version is None else 0)
    assert taken.device == there.__dlpack_device__() == (2, 0)
    assert taken.shape == expected.shape
    assert taken.strides == tuple(stride // 4 for stride in expected.strides)
    assert taken.dtype == (2, 32, 1)
    assert taken.address == there.__cuda_array_interface__["data"][0]
    taken.delete()


def test_a_capsule_of_a_copy(results):
    there, expected = results
    with deferred():
        stream = Stream()
        taken = Taken(there.__dlpack__(max_version=(1, 1), copy=True, stream=stream.handle))
        assert taken.address != there.__cuda_array_interface__["data"][0]
        assert taken.flags == 2
        same_bits(read(0, taken.address, taken.shape, stream), expected)
    taken.delete()


def test_devices_that_a_capsule_cannot_be_on(results):
    there, _ = results
    Taken(there.__dlpack__(dl_device=(2, 0))).delete()
    with refusal(BufferError, "__dlpack__", "device (2, 0) or (1, 0)", "(10, 0)"):
        there.__dlpack__(dl_device=(10, 0))


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_memory_goes_back_when_the_last_owner_goes(version):
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    mp.forward(built.specs, x, opt.vendors, out="device")  # what is made once
    before = live_blocks()
    there, _ = mp.forward(built.specs, x, opt.vendors, out="device")
    assert live_blocks() == before + 1
    dropped = there.__dlpack__(max_version=version)  # nobody takes it
    del dropped
    taken = Taken(there.__dlpack__(max_version=version))
    expected = there.numpy()
    del there
    assert live_blocks() == before + 1
    same_bits(read(0, taken.address, taken.shape, Stream()), expected)
    taken.delete()
    assert live_blocks() == before


def test_a_capsule_outlives_the_optimizer():
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    taken = Taken(mp.forward(built.specs, x, opt.vendors, out="device")[0].__dlpack__())
    del opt, built
    gc.collect()
    same_bits(read(0, taken.address, taken.shape, Stream()), expected)
    taken.delete()


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [None, 0, 1, 2])
def test_results_are_there_in_the_order_of_the_callers_stream(handle):
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    stream = Stream(handle=handle)
    with deferred():
        samples = InterfaceArray(x, stream, stream=None)
        there, _ = mp.forward(built.specs, samples, opt.vendors, out="device", stream=stream.handle)
        address = there.__cuda_array_interface__["data"][0]
        same_bits(read(0, address, there.shape, stream), expected)


@pytest.mark.parametrize("asked, handle", [(None, 0), (1, 1), (2, 2)])
def test_results_are_there_in_the_order_of_the_consumers_stream(asked, handle):
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    own = Stream()
    with deferred():
        there, _ = mp.forward(built.specs, x, opt.vendors, out="device", stream=own.handle)
        taken = Taken(there.__dlpack__(stream=asked))
        same_bits(read(0, taken.address, taken.shape, Stream(handle=handle)), expected)
    taken.delete()


def test_results_are_there_in_the_order_of_the_interfaces_stream():
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    own = Stream()
    with deferred():
        there, _ = mp.forward(built.specs, x, opt.vendors, out="device", stream=own.handle)
        interface = there.__cuda_array_interface__
        stream = Stream()
        call("order", 0, interface["stream"], stream.handle)
        same_bits(read(0, interface["data"][0], there.shape, stream), expected)


def test_results_are_those_of_the_weights_before_a_step():
    built, opt = make()
    x, y = batch(MLP_SHAPE)
    loss, paths = opt.probe(x, y)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    own = Stream()
    with deferred():
        there, _ = mp.forward(built.specs, x, opt.vendors, out="device", stream=own.handle)
        opt.step(loss, paths)
        same_bits(there.numpy(), expected)
    assert not np.array_equal(mp.forward(built.specs, x, opt.vendors)[0], expected)


@pytest.mark.parametrize("stream", [0, -2])
def test_streams_that_a_device_does_not_have(results, stream):
    with refusal(ValueError, "__dlpack__", "a stream of a cuda device, None or -1"):
        results[0].__dlpack__(stream=stream)


def test_no_order_if_none_is_asked_for(results):
    taken = Taken(results[0].__dlpack__(stream=-1))
    same_bits(read(0, taken.address, taken.shape, Stream()), results[1])
    taken.delete()


def test_memory_goes_back_behind_the_default_stream():
    built, opt = make()
    x, _ = batch(MLP_SHAPE)
    expected, _ = mp.forward(built.specs, x, opt.vendors)
    default, own = Stream(handle=0), Stream()
    kept = Memory(np.zeros(expected.shape, np.float32), default)
    with deferred():
        there, _ = mp.forward(built.specs, x, opt.vendors, out="device")
        address = there.__cuda_array_interface__["data"][0]
        default.keep_busy(kept.address)
        call("copy", 0, kept.address, address, expected.nbytes, 0)  # not done yet
        del there
        for _ in range(BUSY_WORK):  # would take the memory, and write to it
            mp.forward(built.specs, x[::-1], opt.vendors, out="device", stream=own.handle)
        same_bits(kept.read(default), expected)
