// Division by multiplication, and what relies on its range.
#include <doctest/doctest.h>

#include <cstdint>

#include "gpu/divisor.h"
#include "gpu/kernels/contract.h"
#include "testing.h"

namespace marketplace::gpu {
namespace {

using testing::error_of;

constexpr std::uint32_t kMost = INT32_MAX;

void check(std::uint32_t number, std::uint32_t by) {
  const Division found = Divisor(by).divide(number);
  if (found.quotient == number / by && found.remainder == number % by) return;
  CAPTURE(number);
  CAPTURE(by);
  CHECK(found.quotient == number / by);
  CHECK(found.remainder == number % by);
}

}  // namespace

TEST_CASE("a divisor divides every number below 2^31") {
  for (std::uint32_t by = 1; by < 200; ++by) {
    for (std::uint32_t number = 0; number < 1000; ++number) check(number, by);
    for (std::uint32_t back = 0; back < 1000; ++back) check(kMost - back, by);
  }
  // around multiples, where a multiplier that is a little off shows
  for (int power = 0; power < 31; ++power)
    for (const std::int64_t near : {-1, 0, 1}) {
      const std::int64_t by = (std::int64_t{1} << power) + near;
      if (by < 1) continue;
      const std::int64_t last = kMost / by * by;
      for (const std::int64_t multiple : {by, last / 2 / by * by, last})
        for (const std::int64_t beside : {-1, 0, 1})
          if (multiple + beside >= 0 && multiple + beside <= kMost)
            check(static_cast<std::uint32_t>(multiple + beside), static_cast<std::uint32_t>(by));
    }
}

TEST_CASE("a number that is no divisor counts as 1") {
  for (const std::int64_t number : {std::int64_t{0}, std::int64_t{-3}, std::int64_t{1} << 31}) {
    const Division found = Divisor(number).divide(7);
    CHECK(found.quotient == 7);
    CHECK(found.remainder == 0);
  }
}

TEST_CASE("products of more pixels or channels than can be divided are refused") {
  simt::reset(testing::machine(1));
  const Stream stream(0);
  for (const bool wide : {false, true}) {
    ContractArgs args;
    args.rows = wide ? 1 : (1 << 30) + 1;
    args.columns = wide ? (1 << 30) + 1 : 1;
    CHECK(error_of([&] { contract_gpu(DType::float32, device_info(0), args, stream); }) ==
          "product: expected at most 1073741824 pixels and channels, received 1073741825");
  }
}

}  // namespace marketplace::gpu
