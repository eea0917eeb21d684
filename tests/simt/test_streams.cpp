// Streams, events, graphs; and that a missing dependency is found.
#include "testing.h"

namespace marketplace::gpu {
namespace {

using namespace testing;

constexpr std::int64_t kCount = 100;

__global__ void set_kernel(int* out, int value) {
  if (threadIdx.x < kCount) out[threadIdx.x] = value;
}
__global__ void add_kernel(int* out, const int* in) {
  if (threadIdx.x < kCount) out[threadIdx.x] += in[threadIdx.x];
}

void set(int* out, int value, const Stream& stream) {
  launch(set_kernel, Grid{1}, Block{128}, 0, stream, out, value);
}
void add(int* out, const int* in, const Stream& stream) {
  launch(add_kernel, Grid{1}, Block{128}, 0, stream, out, in);
}

DeviceMemory ints(Pool& pool, const Stream& stream) {
  return pool.allocate(kCount * sizeof(int), stream);
}

// One stream writes, another reads; with or without the event between.
int pass_over(std::uint64_t seed, bool wait) {
  simt::reset(machine(seed));
  const Stream writer(0), reader(0);
  Pool pool(0, 0);
  const DeviceMemory values = ints(pool, writer), out = ints(pool, writer);
  set(values.get<int>(), 1, writer);
  set(out.get<int>(), 0, writer);
  writer.synchronize();
  set(values.get<int>(), 2, writer);
  Event written(0);
  written.record(writer);
  if (wait) reader.wait(written);
  add(out.get<int>(), values.get<int>(), reader);
  const int result = to_host(out.get<int>(), kCount, reader)[0];
  writer.synchronize();
  return result;
}

TEST_CASE("events order streams; without one some order shows") {
  int stale = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    CHECK(pass_over(seed, true) == 2);
    stale += pass_over(seed, false) == 1;
  }
  CHECK(stale > 0);
  CHECK(stale < kSeeds);
}

TEST_CASE("memory is its stream's: another must wait for it to begin") {
  const auto use_elsewhere = [](std::uint64_t seed, bool wait) {
    simt::Machine deferred = machine(seed);
    deferred.schedule = simt::Schedule::deferred;
    simt::reset(deferred);
    const Stream owner(0), user(0);
    Pool pool(0, 0);
    const DeviceMemory values = ints(pool, owner);
    Event begun(0);
    begun.record(owner);
    if (wait) user.wait(begun);
    set(values.get<int>(), 1, user);
    user.synchronize();
  };
  CHECK_FALSE(dies([&] { use_elsewhere(1, true); }));
  int dead = 0;
  for (int seed = 0; seed < 8; ++seed) dead += dies([&] { use_elsewhere(seed, false); });
  CHECK(dead > 0);
}

TEST_CASE("memory that is freed under somebody's work") {
  const auto use_after_free = [](std::uint64_t seed) {
    simt::Machine deferred = machine(seed);
    deferred.schedule = simt::Schedule::deferred;
    simt::reset(deferred);
    const Stream owner(0), user(0);
    Pool pool(0, 0);
    {
      const DeviceMemory values = ints(pool, owner);
      owner.synchronize();
      set(values.get<int>(), 1, user);
    }
    owner.synchronize();
    user.synchronize();
  };
  int dead = 0;
  for (int seed = 0; seed < 8; ++seed) dead += dies([&] { use_after_free(seed); });
  CHECK(dead > 0);
}

TEST_CASE("a graph over two streams, launched again and again") {
  for (int seed = 0; seed < kSeeds; ++seed) {
    simt::reset(machine(seed));
    const Stream first(0), second(0);
    Pool pool(0, 0);
    const DeviceMemory a = ints(pool, first), b = ints(pool, first), sum = ints(pool, first);
    set(sum.get<int>(), 0, first);
    Event fork(0), join(0);
    const Graph graph = Graph::capture(first, [&] {
      fork.record(first);
      second.wait(fork);
      set(a.get<int>(), 1, first);
      set(b.get<int>(), 10, second);
      join.record(second);
      first.wait(join);
      add(sum.get<int>(), a.get<int>(), first);
      add(sum.get<int>(), b.get<int>(), first);
    });
    CHECK(simt::counts().launches == 5);  // recorded, not run
    for (int i = 0; i < 3; ++i) graph.launch(first);
    CHECK(to_host(sum.get<int>(), kCount, first) == std::vector<int>(kCount, 33));
  }
}

TEST_CASE("what a graph cannot record is refused, and the stream goes on") {
  simt::reset(machine(3));
  const Stream stream(0), other(0);
  Pool pool(0, 0);
  const DeviceMemory values = ints(pool, stream);
  std::vector<int> host(kCount);
  const auto refused = [&](const char* why, auto&& body) {
    CHECK(error_of([&] { Graph::capture(stream, body); }).find(why) != std::string::npos);
    set(values.get<int>(), 4, stream);
    CHECK(to_host(values.get<int>(), kCount, stream)[0] == 4);
  };
  refused("CaptureUnsupported", [&] { stream.synchronize(); });
  refused("CaptureUnsupported", [&] { pool.allocate(16, stream); });
  refused("CaptureUnsupported", [&] {  // host memory that nobody keeps
    copy_to_device(values.get(), host.data(), values.bytes(), stream);
  });
  Event event(0);
  refused("CaptureUnjoined", [&] {
    event.record(stream);
    other.wait(event);
    set(values.get<int>(), 5, other);
  });
  Event outside(0);
  outside.record(other);
  refused("CaptureIsolation", [&] { stream.wait(outside); });
  refused("expected mine", [] { throw Error(ErrorKind::runtime, "expected mine"); });
}

TEST_CASE("host memory, pinned or not, is read when the stream comes to it") {
  for (const bool pinned : {true, false}) {
    int late = 0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      simt::reset(machine(seed));
      const Stream stream(0);
      Pool pool(0, 0);
      const DeviceMemory values = ints(pool, stream);
      const PinnedMemory locked(values.bytes());
      std::vector<int> ordinary(kCount);
      int* const host = pinned ? locked.get<int>() : ordinary.data();
      std::fill(host, host + kCount, 1);
      copy_to_device(values.get(), host, values.bytes(), stream);
      host[0] = 2;  // too early
      late += to_host(values.get<int>(), kCount, stream)[0] == 2;
    }
    CHECK(late > 0);
    CHECK(late < kSeeds);
  }
}

TEST_CASE("pinned host memory that is not to be had is named, and what was there stays") {
  simt::reset(machine(1));
  PinnedMemory host(8);
  std::byte* before = host.get<std::byte>();
  simt::fail_allocation(1);
  try {
    host.reserve(4096);
    CHECK_MESSAGE(false, "nothing failed");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::memory);
    CHECK(std::string(error.what()) ==
          "pinned host memory: expected 4096 bytes that can be locked in the host's memory, "
          "received out of memory");
  }
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  CHECK(host.get<std::byte>() == before);
  CHECK(host.reserve(4096) != nullptr);
}

TEST_CASE("what is copied now is copied when the call returns") {
  for (int seed = 0; seed < kSeeds; ++seed) {
    simt::reset(machine(seed));
    const Stream stream(0);
    Pool pool(0, 0);
    const DeviceMemory values = ints(pool, stream);
    std::vector<int> host(kCount, 1);
    copy_to_device_now(values.get(), host.data(), values.bytes(), stream);
    host.assign(kCount, 2);
    copy_to_host(host.data(), values.get(), values.bytes(), stream);
    CHECK(host[0] == 1);
  }
}

TEST_CASE("timed events and borrowed streams") {
  simt::reset(machine(1));
  const Stream own(0);
  const Stream stream = Stream::borrow(own.get(), 0);
  Pool pool(0, 0);
  const DeviceMemory values = ints(pool, stream);
  Event start(0, true), end(0, true);
  start.record(stream);
  set(values.get<int>(), 1, stream);
  end.record(stream);
  end.synchronize();
  CHECK(end.milliseconds_since(start) > 0);
  CHECK(error_of([&] { Event(0).milliseconds_since(start); }).find("InvalidResourceHandle") !=
        std::string::npos);
}

}  // namespace
}  // namespace marketplace::gpu
