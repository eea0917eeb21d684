#include "market/plan.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace marketplace {
namespace {

void check_counts(const std::vector<std::int64_t>& vendor_counts) {
  if (vendor_counts.empty()) fail("plan", "at least one spec", "none");
  for (std::int64_t count : vendor_counts)
    if (count < 1) fail("plan", "vendor_count of at least 1", std::to_string(count));
}

}  // namespace

Plan tree_plan(const std::vector<std::int64_t>& vendor_counts,
               const std::vector<std::vector<std::int32_t>>& sampled) {
  check_counts(vendor_counts);
  Plan plan;
  std::int64_t upstream = 1;
  for (std::size_t i = 0; i < vendor_counts.size(); ++i) {
    Plan::Level level;
    const bool all = sampled.empty() || sampled[i].empty();
    const std::int64_t each =
        all ? upstream : static_cast<std::int64_t>(sampled[i].size()) / vendor_counts[i];
    if (vendor_counts[i] > (std::int64_t{1} << 31) / each)
      fail(ErrorKind::memory, "plan", "fewer than 2^31 paths",
           std::to_string(vendor_counts[i]) + " x " + std::to_string(each));
    for (std::int64_t v = 0; v < vendor_counts[i]; ++v)
      for (std::int64_t j = 0; j < each; ++j) {
        level.vendor.push_back(static_cast<std::int32_t>(v));
        level.parent.push_back(all ? static_cast<std::int32_t>(j) : sampled[i][v * each + j]);
      }
    upstream = static_cast<std::int64_t>(level.vendor.size());
    plan.levels.push_back(std::move(level));
  }
  return plan;
}

Plan star_plan(const std::vector<std::int64_t>& vendor_counts) {
  check_counts(vendor_counts);
  Plan plan;
  for (std::size_t i = 0; i < vendor_counts.size(); ++i) {
    Plan::Level level;
    // the leader and the earlier deviations go on with vendor 0
    const std::size_t earlier = i == 0 ? 1 : plan.levels[i - 1].vendor.size();
    for (std::size_t r = 0; r < earlier; ++r) {
      level.vendor.push_back(0);
      level.parent.push_back(static_cast<std::int32_t>(r));
    }
    for (std::int64_t v = 1; v < vendor_counts[i]; ++v) {
      level.vendor.push_back(static_cast<std::int32_t>(v));
      level.parent.push_back(0);
    }
    plan.levels.push_back(std::move(level));
  }
  return plan;
}

Plan row_plan(std::vector<std::int32_t> vendors, std::vector<std::int32_t> inputs) {
  if (vendors.empty() || vendors.size() != inputs.size())
    fail("plan", "as many vendors as inputs, at least one",
         std::to_string(vendors.size()) + " and " + std::to_string(inputs.size()));
  Plan plan;
  plan.input_count = 0;
  for (std::int32_t input : inputs) {
    if (input < 0) fail("plan", "input indices of at least 0", std::to_string(input));
    plan.input_count = std::max(plan.input_count, std::int64_t{input} + 1);
  }
  plan.levels.push_back({std::move(vendors), std::move(inputs)});
  return plan;
}

std::vector<std::int32_t> plan_paths(const Plan& plan) {
  const auto depth = static_cast<std::int64_t>(plan.levels.size());
  std::vector<std::int32_t> paths(plan.path_count() * depth);
  for (std::int64_t p = 0; p < plan.path_count(); ++p) {
    std::int64_t row = p;
    for (std::int64_t i = depth - 1; i >= 0; --i) {
      paths[p * depth + i] = plan.levels[i].vendor[row];
      row = plan.levels[i].parent[row];
    }
  }
  return paths;
}

void check_plan(const Plan& plan, const std::vector<VendorWeights>& weights) {
  if (plan.levels.size() != weights.size())
    fail("plan", std::to_string(plan.levels.size()) + " specs", std::to_string(weights.size()));
  std::int64_t upstream = plan.input_count;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Plan::Level& level = plan.levels[i];
    for (std::size_t r = 0; r < level.vendor.size(); ++r) {
      if (level.vendor[r] < 0 || level.vendor[r] >= weights[i].count)
        fail("plan",
             "vendors of spec " + std::to_string(i) + " below " + std::to_string(weights[i].count),
             std::to_string(level.vendor[r]));
      if (level.parent[r] < 0 || level.parent[r] >= upstream)
        fail("plan", "upstream rows below " + std::to_string(upstream),
             std::to_string(level.parent[r]));
    }
    upstream = static_cast<std::int64_t>(level.vendor.size());
  }
}

}  // namespace marketplace
