#include "market/topk.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/error.h"

namespace marketplace {

std::vector<std::int64_t> topk(const double* values, std::int64_t n, std::int64_t k, bool largest) {
  if (k < 1 || k > n) fail("topk", "k from 1 to " + std::to_string(n), std::to_string(k));
  std::vector<std::int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](std::int64_t a, std::int64_t b) {
    const bool nan_a = std::isnan(values[a]), nan_b = std::isnan(values[b]);
    if (nan_a != nan_b) return nan_b;
    if (nan_a || values[a] == values[b]) return a < b;
    return largest ? values[a] > values[b] : values[a] < values[b];
  };
  std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
  order.resize(k);
  return order;
}

std::int64_t lowest(const std::vector<float>& values) {
  const std::vector<double> wide(values.begin(), values.end());
  return topk(wide.data(), static_cast<std::int64_t>(wide.size()), 1, false)[0];
}

}  // namespace marketplace
