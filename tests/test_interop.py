"""GPU arrays of other libraries in, results that stay on the GPU out, streams of the caller."""

import gc
import types

import marketplace as mp
import numpy as np
import pytest
from emulated import (
    DEFERS,
    EMULATED,
    GPUS,
    DlpackArray,
    InterfaceArray,
    Memory,
    OldDlpackArray,
    Stream,
    call,
    deferred,
    make,
    several,
)
from marketplace.continual import forward_with_paths
from markets import CONV, CONV_SHAPE, MLP, MLP_SHAPE, batch, same_bits
from refusals import refusal

pytestmark = pytest.mark.skipif(not EMULATED, reason="needs the emulated GPU")
KINDS = [InterfaceArray, DlpackArray, OldDlpackArray]


def host_bytes(function, *args, **options):
    """Count the bytes that a call moves between host and device."""
    before = call("host_copied_bytes")
    function(*args, **options)
    return call("host_copied_bytes") - before


# -- in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers, shape", [(CONV, CONV_SHAPE), (MLP, MLP_SHAPE)])
@pytest.mark.parametrize("plan", ["tree", "star", "scatter"])
def test_a_probe_of_gpu_arrays_gives_the_bits_of_numpy_arrays(plan, layers, shape, kind):
    _, opt = make(layers, plan=plan)
    x, y = batch(shape)
    expected, _ = opt.probe(x, y)
    with deferred():
        for _ in range(3):  # run, recorded, replayed
            same_bits(opt.probe(kind(x), kind(y.astype(np.int64)))[0], expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_labels_of_any_integer_dtype(dtype):
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    expected, _ = opt.probe(x, y, ignore_index=1)
    same_bits(opt.probe(x, DlpackArray(y.astype(dtype)), ignore_index=1)[0], expected)


def test_samples_of_uint8():
    _, opt = make(CONV)
    x, y = batch(CONV_SHAPE)
    x = np.abs(x * 50).astype(np.uint8)
    same_bits(opt.probe(InterfaceArray(x), y)[0], opt.probe(x, y)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gpu_arrays_take_no_way_through_the_host(kind):
    _, opt = make()
    x, y = batch((400, 6))
    there = kind(x), kind(y)
    usual = host_bytes(opt.probe, x, y)
    assert usual - host_bytes(opt.probe, *there) >= x.nbytes + y.nbytes - 2048  # what checks found


def test_a_training_run_like_one_from_the_host():
    markets = [make(CONV)[1] for _ in range(2)]
    for step in range(3):
        x, y = batch((6, *CONV_SHAPE[1:]), seed=step)
        there = DlpackArray(x), InterfaceArray(y)
        losses = [
            opt.train_step(*data, forward_pass=2, marketplace_replica=2)[0]
            for opt, data in zip(markets, [(x, y), there], strict=True)
        ]
        same_bits(*losses)


def test_a_line_search_keeps_the_batch():
    losses = []
    for gpu in (False, True):
        _, opt = make(meta_learning_rate=0.5)
        x, y = batch(MLP_SHAPE)
        first = opt.probe(DlpackArray(x), DlpackArray(y)) if gpu else opt.probe(x, y)
        opt.step(*first)  # the arrays are gone by now
        losses.append(opt.probe(x, y)[0])
    same_bits(*losses)


def test_losses_over_some_classes():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    y = np.minimum(y, 1)
    opt.classes = [0, 1]
    same_bits(opt.probe(DlpackArray(x), DlpackArray(y))[0], opt.probe(x, y)[0])


def test_one_path_for_every_sample():
    built, opt = make(CONV)
    x, _ = batch(CONV_SHAPE)
    paths = np.arange(15).reshape(5, 3) % 2
    expected = forward_with_paths(built.specs, x, paths, opt)
    with deferred():
        same_bits(forward_with_paths(built.specs, DlpackArray(x), paths, opt), expected)
        same_bits(forward_with_paths(built.specs, InterfaceArray(x), paths, opt), expected)


@several
def test_samples_of_another_device_with_paths_and_line_searches():
    x, y = batch(CONV_SHAPE)
    paths = np.arange(15).reshape(5, 3) % 2
    for engine in ("cuda:0", GPUS[:2]):
        built, opt = make(CONV, device=engine)
        expected = forward_with_paths(built.specs, x, paths, opt)
        with deferred():
            same_bits(
                forward_with_paths(built.specs, DlpackArray(x, device=1), paths, opt), expected
            )
        steps = []
        for samples in (x, DlpackArray(x, device=1)):
            built, opt = make(CONV, device=engine, meta_learning_rate=0.5)
            with deferred():
                opt.step(*opt.probe(samples, y))
            steps.append(opt.probe(x, y)[0])
        same_bits(*steps)


@several
@pytest.mark.parametrize("engine", ["cuda:0", "cuda:1", GPUS[:2]])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_another_device_are_copied_from_there(kind, engine):
    _, opt = make(device=engine)
    x, y = batch(MLP_SHAPE)
    expected, _ = opt.probe(x, y)
    with deferred():
        same_bits(opt.probe(kind(x, device=1), kind(y, device=0))[0], expected)


def test_what_a_producer_is_asked():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    versioned, old = DlpackArray(x), OldDlpackArray(y)
    opt.probe(versioned, old)
    ((stream, version),) = versioned.asked
    assert version == (1, 0)
    assert stream > 2  # a stream of its own
    assert old.asked == [(stream, None)]


@pytest.mark.parametrize("kind", [DlpackArray, OldDlpackArray])
def test_a_capsule_is_deleted_once(kind):
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    samples, labels = kind(x), kind(y)
    opt.probe(samples, labels)
    assert (samples.deleted, labels.deleted) == (1, 1)
    strided = kind(x, strides=(1, 7))
    with refusal(ValueError, "probe", "x as a C-contiguous array", "a strided one"):
        opt.probe(strided, y)
    assert strided.deleted == 1


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", [1, 2])
def test_streams_by_their_numbers(handle):
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    expected, _ = opt.probe(x, y)
    with deferred():
        for kind in (InterfaceArray, DlpackArray):
            same_bits(opt.probe(kind(x, Stream(handle=handle)), y)[0], expected)


def spellings(handle):
    """Give every way in which a stream says its handle."""
    stream = types.SimpleNamespace
    return [
        handle,
        np.uint64(handle),
        stream(__cuda_stream__=lambda: (0, handle)),
        stream(ptr=handle),
        stream(cuda_stream=handle),
    ]


@pytest.mark.parametrize("spelling", range(5))
@pytest.mark.parametrize("own", [True, False])
def test_a_call_follows_the_callers_stream(own, spelling):
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    expected, _ = opt.probe(x, y)
    stream = Stream() if own else Stream(handle=0)
    with deferred():
        there = InterfaceArray(x, stream, stream=None)  # whose order only the caller knows
        same_bits(opt.probe(there, y, stream=spellings(stream.handle)[spelling])[0], expected)


@pytest.mark.skipif(not DEFERS, reason="needs work that is put off")
def test_work_comes_too_early_without_an_order():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    with deferred(), refusal(ValueError, "batch: expected finite x"):
        opt.probe(InterfaceArray(x, stream=None), y)


@pytest.mark.parametrize(
    "stream, error, words",
    [
        (-1, ValueError, "a stream's handle of at least 0"),
        ("1", TypeError, "stream as an integer"),
        (1.0, TypeError, "stream as an integer"),
        (True, TypeError, "stream as an integer"),
        (types.SimpleNamespace(ptr=None), TypeError, "stream as an integer"),
        (types.SimpleNamespace(__cuda_stream__=lambda: (1, 3)), ValueError, "version 0"),
    ],
)
def test_what_is_no_stream(stream, error, words):
    _, opt = make()
    with refusal(error, "probe", words):
        opt.probe(*batch(MLP_SHAPE), stream=stream)


# -- what is refused -------------------------------------------------------------------------------


def test_values_that_are_not_finite():
    x, y = batch((300, 6))
    x[257, 3] = np.inf
    x[270, 0] = np.nan
    built, opt = make()
    for given in (x, DlpackArray(x)):
        with refusal(ValueError, "batch: expected finite x", "inf in sample 257 at element 3"):
            opt.probe(given, y)
        with refusal(ValueError, "batch: expected finite x", "inf in sample 257 at element 3"):
            mp.forward(built.specs, given, opt.vendors)
        with refusal(ValueError, "batch: expected finite x", "in sample 257 at element 3"):
            forward_with_paths(built.specs, given, np.ones((300, 3), int), opt)


@pytest.mark.parametrize("wrong", [3, -1, 2**40])
def test_labels_that_are_no_classes(wrong):
    _, opt = make()
    x, y = batch((300, 6))
    labels = y.astype(np.int64)
    labels[[261, 290]] = wrong
    words = f"labels from 0 to 2, received {wrong} at sample 261"
    with refusal(ValueError, "cross_entropy", words):
        opt.probe(x, DlpackArray(labels))
    same_bits(opt.probe(x, DlpackArray(y))[0], opt.probe(x, y)[0])


def test_labels_that_are_all_ignored():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    with refusal(ValueError, "a label other than ignore_index"):
        opt.probe(x, DlpackArray(np.full_like(y, 2)), ignore_index=2)


@pytest.mark.parametrize("kind", KINDS)
def test_gpu_arrays_with_the_cpu(kind):
    built, opt = make(device="cpu")
    x, y = batch(MLP_SHAPE)
    with refusal(TypeError, "probe", "x in host memory with device 'cpu'"):
        opt.probe(kind(x), y)
    with refusal(TypeError, "probe", "y in host memory with device 'cpu'"):
        opt.probe(x, kind(y))
    with refusal(ValueError, "forward", "out 'numpy' with device 'cpu'", "'device'"):
        mp.forward(built.specs, x, opt.vendors, out="device")
    with refusal(ValueError, "probe", "no stream with device 'cpu'"):
        opt.probe(x, y, stream=0)


def test_arrays_of_another_vendors_device():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    with refusal(TypeError, "probe", "x on a cuda device", "DLPack device type 10"):
        opt.probe(DlpackArray(x, device_type=10), y)
    with refusal(TypeError, "probe", "x in host memory", "DLPack device type 8"):
        opt.probe(DlpackArray(x, device_type=8), y)
    with refusal(TypeError, "probe", "x in memory of a cuda device"):
        opt.probe(InterfaceArray(x, data=(x.ctypes.data, False)), y)


def test_a_device_that_there_is_not():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    samples = DlpackArray(x)
    for number in (9, -1):
        samples.device = number
        with refusal(RuntimeError, "device: expected one of", str(number)):
            opt.probe(samples, y)
    samples.device = 0


@pytest.mark.parametrize(
    "changed, error, words",
    [
        ({"strides": (4, 28)}, ValueError, "x as a C-contiguous array"),
        ({"mask": object()}, ValueError, "x without a mask"),
        ({"typestr": ">f4"}, TypeError, "x of numbers in native byte order"),
        ({"typestr": "<V4"}, TypeError, "x of numbers in native byte order"),
        ({"typestr": "<i4"}, TypeError, "x of dtype uint8 or float32"),
        ({"shape": ()}, ValueError, "x of shape (B, ...)"),
        ({"stream": 0}, ValueError, "the stream of x as 1, 2 or a handle"),
    ],
)
def test_interfaces_that_are_refused(changed, error, words):
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    with refusal(error, "probe", words):
        opt.probe(InterfaceArray(x, **changed), y)


def test_strides_that_say_nothing_new():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    same_bits(opt.probe(InterfaceArray(x, strides=(24, 4)), y)[0], opt.probe(x, y)[0])
    one = InterfaceArray(x[:1], strides=(999, 4))  # of an axis that has one element
    same_bits(opt.probe(one, y[:1])[0], opt.probe(x[:1], y[:1])[0])


@pytest.mark.parametrize(
    "changed, error, words",
    [
        ({"major": 2}, ValueError, "x by version 1 of DLPack"),
        ({"lanes": 4}, TypeError, "x of dtype uint8 or float32"),
        ({"code": 4, "bits": 16}, TypeError, "bfloat16"),
    ],
)
def test_capsules_that_are_refused(changed, error, words):
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    samples = DlpackArray(x, **changed)
    with refusal(error, "probe", words):
        opt.probe(samples, y)
    gc.collect()  # of the traceback
    assert samples.deleted == 1


def test_labels_that_are_refused():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    with refusal(TypeError, "probe", "y of an integer dtype", "float32"):
        opt.probe(x, DlpackArray(x))
    with refusal(ValueError, "probe", "y of shape (7,)", "(6,)"):
        opt.probe(x, DlpackArray(y[:6]))


def test_where_only_the_host_is_served():
    x, _ = batch(MLP_SHAPE)
    with refusal(TypeError, "relu", "x in host memory"):
        mp.nn.relu(DlpackArray(x))
    with refusal(TypeError, "produce", "x in host memory"):
        mp.produce(make()[0].specs[0], DlpackArray(x), [np.tanh] * 2)
    with refusal(ValueError, "produce", "vendors of an optimizer", "functions"):
        mp.produce(make()[0].specs[0], x, [np.tanh] * 2, out="device")


def test_a_device_without_memory_left():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    there = DlpackArray(x)
    expected, _ = opt.probe(x, y)
    call("fail_allocation", 1)
    with pytest.raises(MemoryError, match="device memory"):
        mp.forward(opt.marketplace, there, opt.vendors, out="device")
    same_bits(opt.probe(there, y)[0], expected)


def test_memory_that_a_caller_keeps_is_not_written():
    _, opt = make()
    x, y = batch(MLP_SHAPE)
    there = Memory(x), DlpackArray(x)
    opt.train_step(there[1], y)
    for memory in there:
        same_bits(memory.read(memory.stream), x)
