// Threads, barriers and warps; and that what is wrong with them is found.
#include <numeric>

#include "testing.h"

namespace marketplace::gpu {
namespace {

using namespace testing;

constexpr int kThreads = 2 * kWarpSize;

// Runs a kernel that writes one int per thread of one block.
template <class... P, class... A>
std::vector<int> run(std::uint64_t seed, std::int64_t shared_bytes, void (*kernel)(int*, P...),
                     A... arguments) {
  simt::reset(machine(seed));
  const Stream stream(0);
  Pool pool(0, 0);
  const DeviceMemory out = pool.allocate(kThreads * sizeof(int), stream);
  launch(kernel, Grid{1}, Block{kThreads}, shared_bytes, stream, out.get<int>(), arguments...);
  return to_host(out.get<int>(), kThreads, stream);
}

__global__ void reverse_kernel(int* out, bool wait) {
  __shared__ int values[kThreads];
  values[threadIdx.x] = static_cast<int>(threadIdx.x) + 1;
  if (wait) __syncthreads();
  out[threadIdx.x] = values[kThreads - 1 - threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = 0;
}

TEST_CASE("a barrier orders shared memory; without it some order shows") {
  std::vector<int> expected(kThreads);
  for (int i = 0; i < kThreads; ++i) expected[i] = kThreads - i;
  int wrong = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    CHECK(run(seed, 0, reverse_kernel, true) == expected);
    wrong += run(seed, 0, reverse_kernel, false) != expected;
  }
  CHECK(wrong == kSeeds);
}

__global__ void exchange_kernel(int* out, bool wait) {
  int* const values = reinterpret_cast<int*>(dynamic_shared());
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (wait) sync_warp();
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

TEST_CASE("a warp's lanes do not run in lockstep: sync_warp is needed") {
  int wrong = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const std::vector<int> right = run(seed, kThreads * sizeof(int), exchange_kernel, true);
    CHECK(right[0] == 1);
    CHECK(right[kThreads - 1] == kThreads - 2);
    wrong += run(seed, kThreads * sizeof(int), exchange_kernel, false) != right;
  }
  CHECK(wrong > 0);
}

__global__ void early_exit_kernel(int* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void two_barriers_kernel(int* out) {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void two_shuffles_kernel(int* out) {
  const int x = threadIdx.x % 2 == 0 ? shuffle(1, 0) : shuffle_xor(2, 1);
  out[threadIdx.x] = x;
}

__global__ void half_warp_kernel(int* out) {
  if (threadIdx.x < kThreads - 1) out[threadIdx.x] = shuffle(1, 0);
}

TEST_CASE("divergence is an error that says where") {
  CHECK(error_of([] { run(1, 0, early_exit_kernel); }).find("1 of ") != std::string::npos);
  const std::string barriers = error_of([] { run(1, 0, two_barriers_kernel); });
  CHECK(barriers.find("divergent barriers") != std::string::npos);
  CHECK(barriers.find("two_barriers_kernel") != std::string::npos);
  CHECK(barriers.find("test_threads.cpp") != std::string::npos);
  CHECK(error_of([] { run(1, 0, two_shuffles_kernel); }).find("divergent warp") !=
        std::string::npos);
  CHECK(error_of([] { run(1, 0, half_warp_kernel); }).find("wait for their warp") !=
        std::string::npos);
  simt::reset({});
}

__global__ void warp_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int sum = lane;
  for (int mask = 1; mask < kWarpSize; mask *= 2) sum += shuffle_xor(sum, mask);
  const bool any = any_lane(lane == 5), all = all_lanes(lane != 5);
  out[threadIdx.x] = sum + shuffle_down(lane, 1) * 10000 + shuffle(lane, 7) * 1000000 +
                     (any ? 100000000 : 0) + (all ? 200000000 : 0);
}

TEST_CASE("warp-wide operations") {
  const std::vector<int> values = run(5, 0, warp_kernel);
  const int sum = kWarpSize * (kWarpSize - 1) / 2;
  for (int i = 0; i < kThreads; ++i) {
    const int lane = i % kWarpSize, next = lane + 1 < kWarpSize ? lane + 1 : lane;
    CHECK(values[i] == sum + next * 10000 + 7000000 + 100000000);
  }
}

__global__ void count_kernel(int* out) {
  const int odd = __syncthreads_count(threadIdx.x % 2);
  const int any = __syncthreads_or(threadIdx.x == 1), all = __syncthreads_and(threadIdx.x != 1);
  atomicAdd(&out[0], 0);
  out[threadIdx.x] = odd * 100 + any * 10 + all;
}

TEST_CASE("barriers that count") {
  CHECK(run(2, 0, count_kernel) == std::vector<int>(kThreads, kThreads / 2 * 100 + 10));
}

__global__ void copy_kernel(int* out, const int* in, bool wait) {
  int* const values = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x < kThreads / 4)
    simt::start_copy(values + threadIdx.x * 4, in + threadIdx.x * 4, threadIdx.x != 1);
  simt::commit_copies();
  if (wait) simt::wait_copies(0);
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

TEST_CASE("asynchronous copies are there after the wait, not before") {
  int wrong = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    for (const bool wait : {true, false}) {
      simt::reset(machine(seed));
      const Stream stream(0);
      Pool pool(0, 0);
      std::vector<int> values(kThreads);
      std::iota(values.begin(), values.end(), 1);
      const DeviceMemory in = pool.allocate(kThreads * sizeof(int), stream);
      const DeviceMemory out = pool.allocate(kThreads * sizeof(int), stream);
      copy_to_device_now(in.get(), values.data(), in.bytes(), stream);
      launch(copy_kernel, Grid{1}, Block{kThreads}, in.bytes(), stream, out.get<int>(),
             in.get<int>(), wait);
      std::fill(values.begin() + 4, values.begin() + 8, 0);  // the one that was not valid
      const bool right = to_host(out.get<int>(), kThreads, stream) == values;
      if (wait) CHECK(right);
      wrong += !right;
    }
  }
  CHECK(wrong > kSeeds / 2);
}

__global__ void unaligned_kernel(int* out, const int* in) {
  Copy16().begin(dynamic_shared() + 4, in, true);
  out[threadIdx.x] = 0;
}

__global__ void beyond_kernel(int* out, int index) {
  int* const values = reinterpret_cast<int*>(dynamic_shared());
  values[index] = 1;
  out[threadIdx.x] = values[index];
}

TEST_CASE("shared memory ends where it ends, and starts as NaN") {
  CHECK_FALSE(dies([] { run(1, 64, beyond_kernel, 15); }));
  CHECK(dies([] { run(1, 64, beyond_kernel, 16); }));
  CHECK(error_of([] {
          run(1, 64, unaligned_kernel, static_cast<const int*>(nullptr));
        }).find("16-byte aligned") != std::string::npos);
  simt::reset({});
}

__global__ void order_kernel(int* order, int* count) {
  __shared__ int place;
  if (threadIdx.x == 0) place = atomicAdd(count, 1);
  __syncthreads();
  if (threadIdx.x == 1) order[place] = static_cast<int>(blockIdx.x);
}

TEST_CASE("blocks run in an order of the seed's, each of them once") {
  std::vector<std::vector<int>> orders;
  for (int seed : {1, 1, 2}) {
    simt::reset(machine(seed));
    const Stream stream(0);
    Pool pool(0, 0);
    const DeviceMemory order = pool.allocate(8 * sizeof(int), stream);
    const DeviceMemory count = pool.allocate(sizeof(int), stream);
    fill_bytes(count.get(), 0, count.bytes(), stream);
    launch(order_kernel, Grid{8}, Block{kThreads}, 0, stream, order.get<int>(), count.get<int>());
    orders.push_back(to_host(order.get<int>(), 8, stream));
  }
  CHECK(orders[0] == orders[1]);
  CHECK(orders[0] != orders[2]);
  std::sort(orders[2].begin(), orders[2].end());
  for (int i = 0; i < 8; ++i) CHECK(orders[2][i] == i);
}

}  // namespace
}  // namespace marketplace::gpu
