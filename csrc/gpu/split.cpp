#include "gpu/split.h"

#include <algorithm>

namespace marketplace::gpu {

std::vector<Part> split_plan(const Plan& plan, const std::vector<std::int64_t>& flops,
                             std::int64_t count, const std::vector<std::int64_t>& leaders) {
  const std::vector<std::int64_t> order = depth_first(plan);
  const Cut cut = cut_plan(plan, order, flops, std::vector<double>(count, 1.0));
  std::vector<Part> parts;
  std::vector<std::int64_t> left = leaders;
  for (std::int64_t k = 0; k < count; ++k) {
    std::vector<std::int64_t> mine(order.begin() + cut.bounds[k],
                                   order.begin() + cut.bounds[k + 1]);
    if (mine.empty()) continue;
    std::sort(mine.begin(), mine.end());
    parts.push_back(take_paths(plan, std::move(mine), left));
  }
  return parts;
}

}  // namespace marketplace::gpu
