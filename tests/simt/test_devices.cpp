// Devices, memory, launches, and the failures that tests ask for.
#include "gpu/doors.h"
#include "gpu/gpu_backend.h"
#include "testing.h"

namespace marketplace::gpu {
namespace {

using namespace testing;

__global__ void fill_kernel(int* out, int count, int value) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = value;
}

// What a kernel writes on the first device is copied to the second.
void check_copy(const DeviceMemory& a, const Stream& first, const DeviceMemory& b,
                const Stream& second) {
  launch(fill_kernel, Grid{1}, Block{kWarpSize}, 0, first, a.get<int>(), 10, 7);
  follow(second, first);
  copy_peer(b.get(), 1, a.get(), 0, 40, second);
  CHECK(to_host(b.get<int>(), 10, second) == std::vector<int>(10, 7));
}

TEST_CASE("a forked process is told that it is one") {
  const auto failing = [] { return error_of([] { check(cudaErrorInvalidValue, "cudaMalloc"); }); };
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(failing().find("received a forked one: ") == std::string::npos ? 1 : 0);
  int status = -1;
  waitpid(child, &status, 0);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  CHECK(failing().find("forked") == std::string::npos);
}

TEST_CASE("what a device says of itself") {
  simt::Machine small = machine(0, 3);
  small.memory_bytes = 1000;
  simt::reset(small);
  CHECK(device_count() == 3);
  const Stream stream(1);
  Pool pool(1, 0);
  const DeviceMemory block = pool.allocate(300, stream);
  const DeviceInfo info = device_info(1);
  CHECK(info.warp_size == kWarpSize);
  CHECK(info.total_bytes == 1000);
  CHECK(free_bytes(1) == 700);
  CHECK(free_bytes(0) == 1000);
  CHECK_THROWS_AS(device_info(3), Error);
}

TEST_CASE("a device too old for the kernels is refused by its name") {
  simt::Machine old = machine(0);
  old.capability = 7;
  simt::reset(old);
  CHECK(error_of([] { make_gpu_backend({0}, DType::float32, 0); }) ==
        "device: expected compute capability 8.0 or more, received 'cuda:0' (SIMT emulation on the "
        "CPU, warps of " +
            std::to_string(kWarpSize) + ")");
  simt::reset({});
}

TEST_CASE("host code cannot touch device memory") {
  simt::reset({});
  const Stream stream(0);
  Pool pool(0, 0);
  const DeviceMemory block = pool.allocate(64, stream);
  stream.synchronize();
  CHECK(dies([&] { *block.get<volatile int>() = 1; }));
}

TEST_CASE("copies between devices, with and without peer access") {
  for (const bool peers : {true, false}) {
    simt::Machine pair = machine(4, 2);
    pair.peer_access = peers;
    simt::reset(pair);
    CHECK(enable_peer_access(1, 0) == peers);
    CHECK(enable_peer_access(1, 0) == peers);  // again
    const Stream first(0), second(1);
    Pool pool0(0, 0), pool1(1, 0);
    const DeviceMemory a = pool0.allocate(40, first), b = pool1.allocate(40, second);
    check_copy(a, first, b, second);
    CHECK_THROWS_AS(copy_peer(b.get(), 0, a.get(), 1, 40, second), Error);
  }
}

TEST_CASE("a kernel sees its own device's memory; a peer's only where that is open") {
  const auto write_elsewhere = [](bool pooled, bool enabled) {
    simt::reset(machine(4, 2));
    if (enabled) enable_peer_access(1, 0);
    const Stream first(0), second(1);
    Pool pool(0, 0);
    const DeviceMemory block = pool.allocate(40, first);
    first.synchronize();
    void* plain = nullptr;
    check(cudaMalloc(&plain, 40), "cudaMalloc");
    launch(fill_kernel, Grid{1}, Block{kWarpSize}, 0, second,
           pooled ? block.get<int>() : static_cast<int*>(plain), 10, 7);
    second.synchronize();
    check(cudaFree(plain), "cudaFree");
  };
  CHECK(dies([&] { write_elsewhere(true, false); }));
  CHECK(dies([&] { write_elsewhere(true, true); }));
  CHECK(dies([&] { write_elsewhere(false, false); }));
  CHECK_FALSE(dies([&] { write_elsewhere(false, true); }));
}

TEST_CASE("a kernel that writes beyond its memory") {
  const auto fill = [](int count) {
    simt::reset({});
    const Stream stream(0);
    Pool pool(0, 0);
    const DeviceMemory block = pool.allocate(40, stream);
    launch(fill_kernel, Grid{1}, Block{kWarpSize}, 0, stream, block.get<int>(), count, 7);
    stream.synchronize();
  };
  CHECK_FALSE(dies([&] { fill(10); }));
  CHECK(dies([&] { fill(11); }));
}

TEST_CASE("launches are checked and named") {
  simt::reset({});
  const Stream stream(0);
  Pool pool(0, 0);
  const DeviceMemory block = pool.allocate(40, stream);
  const auto error = [&](Grid grid, Block threads, std::int64_t shared_bytes) {
    return error_of(
        [&] { launch(fill_kernel, grid, threads, shared_bytes, stream, block.get<int>(), 10, 7); });
  };
  CHECK(error({1}, {1025}, 0).find("fill_kernel") != std::string::npos);
  CHECK(error({1}, {1025}, 0).find("InvalidConfiguration") != std::string::npos);
  const std::int64_t most = std::min<std::int64_t>(INT32_MAX, kMostThreads / 32);
  CHECK(error({most + 1}, {32}, 0).find("at most " + std::to_string(most) + " blocks") !=
        std::string::npos);
  CHECK(error({1}, {64}, 1 << 20).find("InvalidValue") != std::string::npos);
  CHECK(error({1}, {64}, 64 * 1024) == "");
  CHECK(error({0}, {64}, 0) == "");  // nothing to do
  CHECK(simt::counts().launches == 1);
  simt::fail_launch(2);
  CHECK(error({1}, {64}, 0) == "");
  CHECK(error({1}, {64}, 0).find("LaunchOutOfResources") != std::string::npos);
  CHECK(error({1}, {64}, 0) == "");
  simt::fail_copy(1);
  CHECK_THROWS_AS(to_host(block.get<int>(), 10, stream), Error);
  CHECK(to_host(block.get<int>(), 10, stream)[9] == 7);
}

TEST_CASE("pools: caps, the device's own end, failures; nothing is lost") {
  simt::Machine small;
  small.memory_bytes = 10000;
  simt::reset(small);
  const Stream stream(0);
  Pool pool(0, 1000);
  {
    const DeviceMemory most = pool.allocate(900, stream);
    CHECK(error_of([&] { pool.allocate(101, stream); }) ==
          "device memory: expected 101 bytes free below the cap of 1000, received 900 bytes in "
          "use");
    CHECK(pool.used_bytes() == 900);
  }
  CHECK(pool.used_bytes() == 0);
  CHECK(pool.peak_bytes() == 900);
  Pool unlimited(0, 0);
  try {
    unlimited.allocate(10001, stream);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::memory);
  }
  simt::fail_allocation(2);
  const DeviceMemory one = pool.allocate(1, stream);
  CHECK_THROWS_AS(pool.allocate(1, stream), Error);
  const DeviceMemory two = pool.allocate(1, stream);
  CHECK(simt::counts().live_blocks == 2);
  CHECK(simt::counts().live_bytes == 2);
  pool.trim();
  CHECK(pool.allocate(0, stream).get() == nullptr);
  CHECK_THROWS_AS(Pool(0, -1), Error);
}

TEST_CASE("where the driver has no pools, the same without them") {
  simt::Machine plain = machine(3, 2);
  plain.memory_pools = false;
  simt::reset(plain);
  {
    const Stream first(0), second(1);
    Pool pool0(0, 1000), pool1(1, 0);
    CHECK(enable_peer_access(1, 0));
    CHECK(pool0.open_to(1));
    DeviceMemory a = pool0.allocate(400, first), b = pool1.allocate(40, second);
    CHECK_THROWS_AS(pool0.allocate(601, first), Error);
    check_copy(a, first, b, second);
    CHECK(simt::counts().staged_copies == 0);
    pool0.renew(a, 900, first);
    CHECK(pool0.used_bytes() == 900);
    CHECK(simt::counts().live_bytes == 940);
    simt::set_schedule(simt::Schedule::deferred);  // freed while the kernel has still to run
    launch(fill_kernel, Grid{1}, Block{kWarpSize}, 0, first, a.get<int>(), 200, 7);
    simt::fail_allocation(1);
    CHECK_THROWS_AS(pool1.allocate(1, second), Error);
  }
  CHECK(simt::counts().live_blocks == 0);
  CHECK(simt::counts().live_handles == 0);
}

TEST_CASE("a lost device: every call says why, handles still go away") {
  simt::reset({});
  {
    const Stream stream(0);
    Pool pool(0, 0);
    const DeviceMemory block = pool.allocate(40, stream);
    const PinnedMemory host(40);
    simt::lose_device("fell off the bus");
    const auto error = [&](auto&& body) { return error_of(body); };
    CHECK(error([&] { stream.synchronize(); }).find("fell off the bus") != std::string::npos);
    CHECK(error([&] { pool.allocate(40, stream); }).find("LaunchFailure") != std::string::npos);
  }
  CHECK(simt::counts().live_blocks == 0);
  CHECK(simt::counts().live_handles == 0);
  simt::reset({});
  const Stream stream(0);
  stream.synchronize();
  CHECK_THROWS_AS(simt::reset({}), std::logic_error);  // the stream is alive
}

}  // namespace
}  // namespace marketplace::gpu
