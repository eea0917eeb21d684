"""The machine that runs PTX, by small kernels: fragments, copies, and what it must refuse."""

import ctypes
import os

import numpy as np
import pytest

if "MARKETPLACE_PTX_MACHINE" not in os.environ:
    pytest.skip("needs the machine: MARKETPLACE_PTX_MACHINE", allow_module_level=True)

import ptx_machine
import ptx_text

_arrays: list[np.ndarray] = []


@ptx_machine.FIND_ALLOCATION
def _find(address, low, high):
    for array in _arrays:
        if array.ctypes.data <= address < array.ctypes.data + array.nbytes:
            low[0], high[0] = array.ctypes.data, array.ctypes.data + array.nbytes
            return 1
    return 0


@pytest.fixture(autouse=True)
def memory():
    """Let kernels use the arrays of this file."""
    before = ptx_machine.use_allocations(_find)
    yield
    ptx_machine.use_allocations(before)


KERNEL = """
.version 9.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.entry kernel(
    .param .u64 from,
    .param .u64 to
)
{
    .reg .pred  %p<20>;
    .reg .b16   %rs<20>;
    .reg .f32   %f<20>;
    .reg .b32   %r<40>;
    .reg .b64   %rd<20>;

    ld.param.u64    %rd1, [from];
    ld.param.u64    %rd2, [to];
    mov.u32     %r1, %tid.x;
    mul.wide.u32    %rd3, %r1, 4;
    add.s64     %rd1, %rd1, %rd3;
    add.s64     %rd2, %rd2, %rd3;
    mov.u32     %r2, dynamic;
    shl.b32     %r3, %r1, 2;
    add.s32     %r3, %r2, %r3;
    ld.global.u32   %r4, [%rd1];
BODY
    ret;
}
"""


def aligned(shape, dtype):
    """Give an array at a multiple of 256 bytes, all ones."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 256, 0xFF, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + size].view(dtype).reshape(shape)


def run(body, given=None, threads=32, results=32, shared=4096, blocks=1):
    """Run the body, in which %r4 is the thread's word of `given` and %rd2 where its result goes."""
    inputs = aligned(max(threads, 1024), np.uint32)
    inputs[:] = np.arange(len(inputs))
    if given is not None:
        inputs[: given.size] = given.reshape(-1)
    outputs = aligned(results, np.uint32)
    _arrays[:] = [inputs, outputs]
    kernel = ptx_machine.load(ptx_text.Module(KERNEL.replace("BODY", body)), "kernel")
    pointers = (ctypes.c_uint64 * 2)(inputs.ctypes.data, outputs.ctypes.data)
    places = (ctypes.c_void_p * 2)(*(ctypes.addressof(pointers) + 8 * i for i in range(2)))
    kernel.run(blocks, threads, shared, kernel.pack(places))
    return outputs


def refused(body, **options):
    with pytest.raises(RuntimeError) as error:
        run(body, **options)
    return str(error.value)


STORE = "st.global.u32 [%rd2], %r5;"


def one(instruction):
    """Run `instruction`, which makes %r5 of %r4."""
    return run(f"{instruction}\n{STORE}", results=32)


@pytest.mark.parametrize(
    "instruction, expected",
    [
        ("shl.b32 %r5, %r4, 32;", lambda x: 0 * x),
        ("shr.s32 %r6, -8, %r4;\nmov.u32 %r5, %r6;", lambda x: np.int64(-8) >> x),
        ("shf.l.wrap.b32 %r5, %r4, %r4, 30;", lambda x: x >> 2 | (x & 3) << 30),
        ("bfi.b32 %r5, %r4, -1, 8, 4;", lambda x: 0xFFFFF0FF | (x & 15) << 8),
        ("mul.hi.u32 %r5, %r4, 0xF0000000;", lambda x: x * 0xF0000000 >> 32),
        ("prmt.b32 %r5, %r4, 0x80, 0x0C40;", lambda x: x << 24 | 0x00FF8000 | x),
        ("mov.b64 %rd5, {%r4, %r2};\nmov.b64 {%r5, _}, %rd5;", lambda x: x),
        ("mov.b32 {%rs1, %rs2}, %r4;\nmov.b32 %r5, {%rs2, %rs1};", lambda x: x << 16),
        ("div.s32 %r5, -7, 2;\nadd.s32 %r5, %r5, %r4;", lambda x: x - 3),
        ("shfl.sync.bfly.b32 %r5|%p1, %r4, 5, 31, -1;", lambda x: x ^ 5),
        ("shfl.sync.down.b32 %r5|%p1, %r4, 8, 31, -1;", lambda x: np.where(x < 24, x + 8, x)),
        ("shfl.sync.idx.b32 %r5, %r4, 1, 7199, -1;", lambda x: x // 4 * 4 + 1),
        ("setp.lt.u32 %p1, %r4, 3;\nvote.sync.ballot.b32 %r5, %p1, -1;", lambda x: 7 + 0 * x),
    ],
)
def test_integers(instruction, expected):
    x = np.arange(32, dtype=np.int64)
    np.testing.assert_array_equal(one(instruction), np.uint32(expected(x) & 0xFFFFFFFF))


def floats(instruction, x):
    bits = np.zeros(32, np.uint32)
    bits[: len(x)] = np.asarray(x, np.float32).view(np.uint32)
    body = f"mov.b32 %f1, %r4;\n{instruction}\n{STORE}"
    return run(body, bits)[: len(x)]


def test_bfloat16_to_nearest_even():
    x = [1.00390625, 1.01171875, -1.00390625, 3.4e38, float("nan"), 1e-40]
    high = floats("cvt.rn.bf16x2.f32 %r5, %f1, 0f3F800000;", x)
    assert [hex(word) for word in high] == [
        "0x3f803f80", "0x3f823f80", "0xbf803f80", "0x7f803f80", "0x7fff3f80", "0x13f80"
    ]  # fmt: skip


def test_tf32_to_nearest_away():
    x = [1 + 2.0**-11, 1 + 2.0**-12, -1 - 2.0**-11, 3.4028e38]
    rounded = floats("cvt.rna.tf32.f32 %r5, %f1;", x).view(np.float32)
    np.testing.assert_array_equal(rounded, np.float32([1 + 2.0**-10, 1, -1 - 2.0**-10, np.inf]))


def test_fma_rounds_once_and_down():
    x = np.float32([1 + 2.0**-12, -1 - 2.0**-12])
    exact = np.float64(x) * np.float64(x) * [1, -1]
    once = floats("fma.rn.f32 %f2, %f1, %f1, 0fBF800000;\nmov.b32 %r5, %f2;", x)
    np.testing.assert_array_equal(once.view(np.float32), np.float32(exact * [1, -1] - 1))
    down = floats("fma.rm.f32 %f2, %f1, 0f3F800001, 0f00000000;\nmov.b32 %r5, %f2;", x)
    product = np.float64(x) * np.float64(np.float32(1 + 2.0**-23))
    assert np.all(down.view(np.float32) <= product)
    assert np.all(np.nextafter(down.view(np.float32), np.float32(9)) > product)


def test_nan_is_the_vendors():
    (bits,) = floats("sub.rn.f32 %f2, %f1, %f1;\nmov.b32 %r5, %f2;", [float("inf")])
    assert bits == 0x7FFFFFFF


@pytest.mark.parametrize("compare, expected", [("ne", 0), ("neu", 1), ("lt", 0), ("ltu", 1)])
def test_comparisons_with_nan(compare, expected):
    text = f"setp.{compare}.f32 %p1, %f1, %f1;\nselp.u32 %r5, 1, 0, %p1;"
    assert floats(text, [float("nan")])[0] == expected


# -- matrices --------------------------------------------------------------------------------------

LOAD = """
    st.shared.u32 [%r3], %r4;
    bar.sync 0;
    mul.wide.u32 %rd4, %r1, 12;
    add.s64 %rd4, %rd2, %rd4;
"""
MATRICES = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r6];"


def test_ldmatrix():
    """Rows of 16 bytes, here in the order of lanes: matrix i is rows 8 i to 8 i + 7."""
    words = np.arange(128, dtype=np.uint32).reshape(4, 8, 4)
    body = f"""{LOAD}
    setp.gt.u32 %p1, %r1, 31;
    @%p1 ret;
    shl.b32 %r6, %r1, 4;
    add.s32 %r6, %r2, %r6;
    {MATRICES}
    st.global.v4.u32 [%rd4], {{%r10, %r11, %r12, %r13}};"""
    found = run(body, words, threads=128, results=128).reshape(32, 4)
    lanes = np.arange(32)
    for matrix in range(4):
        np.testing.assert_array_equal(found[:, matrix], words[matrix, lanes // 4, lanes % 4])


def fragments(depth):
    """Where elements of A, B and C lie: row and column of element i of a lane, as the ISA says."""
    lane = np.arange(32)[:, None]
    group, thread = lane // 4, lane % 4
    if depth == 16:
        i, j = np.arange(8), np.arange(4)
        a = group + 8 * ((i // 2) % 2), thread * 2 + i % 2 + 8 * (i >= 4)
        b = thread * 2 + j % 2 + 8 * (j >= 2), group + 0 * j
    else:
        i, j = np.arange(4), np.arange(2)
        a = group + 8 * (i % 2), thread + 4 * (i >= 2)
        b = thread + 4 * j, group + 0 * j
    i = np.arange(4)
    return a, b, (group + 8 * (i >= 2), thread * 2 + i % 2)


PRODUCTS = {
    16: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    8: "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
}


@pytest.mark.parametrize("depth", [16, 8])
def test_mma(depth):
    """Small integers: sums are exact."""
    rng = np.random.default_rng(depth)
    a, b, c = (
        rng.integers(-8, 9, size).astype(np.float32) for size in ((16, depth), (depth, 8), (16, 8))
    )
    at_a, at_b, at_c = fragments(depth)
    words = [words_of(x[at], depth) for x, at in ((a, at_a), (b, at_b))]
    packed = np.concatenate([*words, c[at_c].view(np.uint32)], 1)
    assert packed.shape == (32, 10)
    loads = "\n".join(f"ld.global.u32 %r{10 + i}, [%rd5+{4 * i}];" for i in range(10))
    moves = "\n".join(f"mov.b32 %f{1 + i}, %r{16 + i};" for i in range(4))
    sums = vector("f", 1, 4)
    body = f"""
    mul.wide.u32 %rd5, %r1, 36;
    add.s64 %rd5, %rd1, %rd5;
    {loads}
    {moves}
    {PRODUCTS[depth]} {vector("f", 5, 4)}, {vector("r", 10, 4)}, {vector("r", 14, 2)}, {sums};
    mul.wide.u32 %rd4, %r1, 12;
    add.s64 %rd4, %rd2, %rd4;
    st.global.v4.f32 [%rd4], {{%f5, %f6, %f7, %f8}};"""
    found = run(body, packed, results=128).view(np.float32).reshape(32, 4)
    np.testing.assert_array_equal(found, (a @ b + c)[at_c])


def vector(kind, first, count):
    return "{" + ", ".join(f"%{kind}{i}" for i in range(first, first + count)) + "}"


def words_of(elements, depth):
    bits = np.ascontiguousarray(elements).view(np.uint32)
    return bits if depth == 8 else bits[:, 0::2] >> 16 | bits[:, 1::2] & np.uint32(0xFFFF0000)


def test_matrices_need_all_lanes():
    body = f"setp.gt.u32 %p1, %r1, 30;\n@%p1 ret;\nmov.u32 %r6, dynamic;\n{MATRICES}"
    assert "some lanes are not here" in refused(body)


# -- copies ----------------------------------------------------------------------------------------

COPY = """
    and.b32 %r6, %r1, 28;
    setp.ne.s32 %p1, %r6, %r1;
    selp.b32 %r7, 16, SIZE, %p1;
    and.b64 %rd6, %rd1, -16;
    and.b32 %r8, %r3, -16;
    @!%p1 cp.async.cg.shared.global [%r8], [%rd6], 16, %r7;
    cp.async.commit_group;
"""
READ = f"bar.sync 0;\nld.shared.u32 %r5, [%r3];\n{STORE}"


def test_copies_arrive_when_waited_for():
    copy = COPY.replace("SIZE", "16")
    assert np.all(run(copy + READ) == 0xFFFFFFFF)
    assert np.all(run(copy + "cp.async.wait_group 1;\n" + READ) == 0xFFFFFFFF)
    np.testing.assert_array_equal(run(copy + "cp.async.wait_group 0;\n" + READ), np.arange(32))
    np.testing.assert_array_equal(run(copy + "cp.async.wait_all;\n" + READ), np.arange(32))


def test_copies_of_nothing_are_zeros():
    assert np.all(run(COPY.replace("SIZE", "0") + "cp.async.wait_group 0;\n" + READ) == 0)


# -- lanes that part -------------------------------------------------------------------------------


def test_lanes_meet_again():
    body = f"""
    mov.u32 %r5, 0;
$again:
    add.s32 %r5, %r5, 1;
    setp.le.u32 %p1, %r5, %r1;
    @%p1 bra $again;
    and.b32 %r6, %r1, 1;
    setp.eq.s32 %p2, %r6, 0;
    @%p2 bra $even;
    add.s32 %r5, %r5, 100;
$even:
    shfl.sync.idx.b32 %r5, %r5, 31, 31, -1;
    {STORE}"""
    assert np.all(run(body) == 132)


def test_shuffles_need_those_they_name():
    body = (
        "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra $end;\nshfl.sync.idx.b32 %r5, %r4, 0, 31, -1;\n$end:"
    )
    assert "lanes of the mask are not here" in refused(body)


def test_barriers_need_all_lanes():
    body = "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra $end;\nbar.sync 0;\n$end:"
    assert "a barrier that not all lanes have come to" in refused(body)


def test_a_part_of_a_warp():
    assert list(run(f"mov.u32 %r5, %r4;\n{STORE}", threads=5)[3:6]) == [3, 4, 0xFFFFFFFF]


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, said",
    [
        ("ld.global.u32 %r5, [%rd1+2];", "lane 0: global address"),
        ("st.shared.v2.u32 [%r3], {%r4, %r4};", "lane 1: shared address 0x404 of 8 bytes"),
        ("st.shared.u32 [%r3+4096], %r4;", "lane 0: shared address 0x1400 of 4 bytes"),
        ("ld.shared.u32 %r5, [0];", "out of bounds"),
        ("st.global.u32 [%rd2+4], %r4;", "lane 31: global address"),
        ("ld.param.u32 %r5, [from+16];", "parameter address"),
    ],
)  # fmt: skip
def test_addresses(body, said):
    assert said in refused(body)


def test_unknown_instructions_are_named():
    with pytest.raises(ValueError, match="line 27: frobnicate.b32"):
        run("frobnicate.b32 %r5, %r4;")


def test_shared_memory_is_not_zero():
    assert np.all(run(f"ld.shared.u32 %r5, [%r3];\n{STORE}") == 0xFFFFFFFF)


# -- races -----------------------------------------------------------------------------------------

NEIGHBOUR = "xor.b32 %r6, %r3, BIT;\nld.shared.u32 %r5, [%r6];"
WRITE = "st.shared.u32 [%r3], %r4;"
races = pytest.mark.skipif("MARKETPLACE_MACHINE_RACES" not in os.environ, reason="not asked for")


@races
@pytest.mark.parametrize(
    "between, bit, said",
    [
        ("", 4, "a race with thread 1, which wrote"),
        ("bar.warp.sync -1;", 4, None),
        ("bar.warp.sync -1;", 128, "a race with thread 0, which read"),
        ("bar.sync 0;", 128, None),
    ],
)
def test_reading_what_is_written(between, bit, said):
    body = f"{WRITE}\n{between}\n{NEIGHBOUR.replace('BIT', str(bit))}"
    if said is None:
        run(body, threads=64)
    else:
        assert said in refused(body, threads=64)


@races
def test_writing_what_is_read():
    body = f"{WRITE}\nbar.sync 0;\n{NEIGHBOUR.replace('BIT', '4')}\n{WRITE}"
    assert "a race with" in refused(body, threads=64)
    assert "which read" in refused(body, threads=64)
