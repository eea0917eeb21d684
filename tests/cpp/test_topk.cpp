#include <doctest/doctest.h>

#include <cmath>

#include "core/error.h"
#include "market/topk.h"

using namespace marketplace;

TEST_CASE("ties go to the lower index and NaN sorts last, either way") {
  const double nan = std::nan("");
  const std::vector<double> values{2, nan, 1, 2, 1};
  CHECK(topk(values.data(), 5, 5, false) == std::vector<std::int64_t>{2, 4, 0, 3, 1});
  CHECK(topk(values.data(), 5, 5, true) == std::vector<std::int64_t>{0, 3, 2, 4, 1});
  CHECK(topk(values.data(), 5, 1, false) == std::vector<std::int64_t>{2});
}

TEST_CASE("k outside 1 to n is refused") {
  const double value = 1;
  CHECK_THROWS_WITH_AS(topk(&value, 1, 0, true), "topk: expected k from 1 to 1, received 0", Error);
  CHECK_THROWS_AS(topk(&value, 1, 2, true), Error);
}
