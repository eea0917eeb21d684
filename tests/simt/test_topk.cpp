// The best of many numbers on the emulated GPU: what market/topk.h says, from rows of every length.
#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "api.h"
#include "core/error.h"
#include "gpu_markets.h"
#include "market/topk.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

// On a device, by way of another library's memory there.
template <class T>
void check_topk(const std::shared_ptr<Exchange>& exchange, int device, NumberKind kind,
                const std::vector<T>& numbers, std::int64_t rows, std::int64_t k, bool largest) {
  const auto n = static_cast<std::int64_t>(numbers.size()) / rows;
  const std::size_t bytes = numbers.size() * sizeof(T);
  void* there = nullptr;
  REQUIRE(cudaSetDevice(device) == cudaSuccess);
  REQUIRE(cudaMalloc(&there, bytes) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(there, numbers.data(), bytes, cudaMemcpyDefault, nullptr) == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  std::vector<std::int64_t> indices(rows * k);
  std::vector<T> best(rows * k);
  exchange->topk({there, device, kind, sizeof(T)}, rows, n, k, largest, indices.data(),
                 best.data());
  const std::vector<double> wide(numbers.begin(), numbers.end());
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto expected = topk(wide.data() + r * n, n, k, largest);
    for (std::int64_t i = 0; i < k; ++i) {
      CHECK(indices[r * k + i] == expected[i]);
      CHECK(std::memcmp(&best[r * k + i], &numbers[r * n + expected[i]], sizeof(T)) == 0);
    }
  }
  REQUIRE(cudaFree(there) == cudaSuccess);
}

}  // namespace

TEST_CASE("the best of a row are the CPU's, ties and NaN included") {
  simt::reset(machine(2));
  {
    const auto exchange = gpu::make_gpu_backend({0, 1}, DType::float32, 0)->exchange();
    for (const std::int64_t n : {1, 2, 31, 33, 1023, 1024, 1025, 4097}) {
      std::vector<float> losses(2 * n);
      fill(losses, static_cast<std::uint64_t>(n));
      for (std::size_t i = 0; i < losses.size(); i += 3) losses[i] = 0.25f;
      for (std::size_t i = 1; i < losses.size(); i += 7) losses[i] = i % 2 ? -0.0f : 0.0f;
      if (n > 4) {
        losses[3] = std::numeric_limits<float>::quiet_NaN();
        losses[4] = -std::numeric_limits<float>::infinity();
        losses[n + 2] = std::numeric_limits<float>::infinity();
      }
      for (const bool largest : {false, true})
        for (const std::int64_t k : {std::int64_t{1}, (n + 1) / 2, n})
          check_topk(exchange, k == 1 ? 1 : 0, NumberKind::real, losses, 2, k, largest);
    }
  }
  simt::reset(machine(1));
}

TEST_CASE("the best of numbers of every type") {
  const auto exchange = gpu::make_gpu_backend({0}, DType::float32, 0)->exchange();
  const auto check = [&]<class T>(NumberKind kind, const std::vector<T>& numbers) {
    for (const bool largest : {false, true})
      check_topk(exchange, 0, kind, numbers, 1, static_cast<std::int64_t>(numbers.size()), largest);
  };
  check(NumberKind::real, std::vector<double>{1e300, -1e300, 1e-300, 0, 1e300, 2});
  check(NumberKind::signed_, std::vector<std::int8_t>{-128, 127, 0, -1, 5});
  check(NumberKind::signed_, std::vector<std::int16_t>{-32768, 32767, 0, -1});
  check(NumberKind::signed_, std::vector<std::int32_t>{INT32_MIN, INT32_MAX, 0, -1});
  check(NumberKind::signed_, std::vector<std::int64_t>{INT64_MIN, INT64_MAX, INT64_MAX - 1, -1});
  check(NumberKind::unsigned_, std::vector<std::uint8_t>{255, 0, 128, 127});
  check(NumberKind::unsigned_, std::vector<std::uint64_t>{UINT64_MAX, 0, 1, UINT64_MAX - 1});
  CHECK_THROWS_WITH_AS(check(NumberKind::real, std::vector<std::int16_t>{1, 2}),
                       "topk: expected float32, float64 or integers on a device, received float16",
                       Error);
}
