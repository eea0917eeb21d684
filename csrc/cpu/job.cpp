#include "cpu/job.h"

#include <algorithm>

#include "shares.h"

namespace marketplace::cpu {
namespace {

constexpr double kTasksPerThread = 8;

Schedule::Children children_of(const Plan::Level& level, std::int64_t parents) {
  Schedule::Children children;
  children.begin.assign(parents + 1, 0);
  for (std::int32_t parent : level.parent) ++children.begin[parent + 1];
  for (std::int64_t r = 0; r < parents; ++r) children.begin[r + 1] += children.begin[r];
  children.rows.resize(level.parent.size());
  std::vector<std::int64_t> next(children.begin.begin(), children.begin.end() - 1);
  for (std::size_t r = 0; r < level.parent.size(); ++r)
    children.rows[next[level.parent[r]]++] = static_cast<std::int32_t>(r);
  return children;
}

// Cost of every root's subtree for one sample.
std::vector<std::int64_t> subtree_costs(const Schedule& schedule,
                                        const std::vector<std::int64_t>& flops) {
  std::vector<std::int64_t> below;
  for (std::size_t i = schedule.plan.levels.size(); i-- > 0;) {
    std::vector<std::int64_t> cost(schedule.plan.levels[i].vendor.size(), 0);
    for (std::size_t r = 0; r < cost.size(); ++r) {
      if (!schedule.used[i][r]) continue;
      cost[r] = flops[i] + 1;
      if (i + 1 == schedule.plan.levels.size()) continue;
      const Schedule::Children& children = schedule.children[i];
      for (std::int64_t c = children.begin[r]; c < children.begin[r + 1]; ++c)
        cost[r] += below[children.rows[c]];
    }
    below = std::move(cost);
  }
  return below;
}

// Enough that the costliest root's chunks keep all threads busy.
std::int64_t chunk_count(std::int64_t blocks, const std::vector<std::int64_t>& costs, int threads) {
  std::int64_t total = 0;
  for (std::int64_t cost : costs) total += cost;
  const std::int64_t heaviest = *std::max_element(costs.begin(), costs.end());
  const double even_roots = static_cast<double>(total) / static_cast<double>(heaviest);
  const auto wanted = static_cast<std::int64_t>(kTasksPerThread * threads / even_roots + 0.999);
  return threads == 1 ? 1 : std::clamp<std::int64_t>(wanted, 1, blocks);
}

}  // namespace

Schedule make_schedule(const Plan& plan, std::int64_t blocks,
                       const std::vector<std::int64_t>& flops, int threads) {
  Schedule schedule;
  schedule.plan = plan;
  schedule.blocks = blocks;
  for (std::size_t i = 0; i + 1 < plan.levels.size(); ++i)
    schedule.children.push_back(
        children_of(plan.levels[i + 1], static_cast<std::int64_t>(plan.levels[i].vendor.size())));
  schedule.used = used_rows(plan);
  schedule.leader_row = leader_rows(plan);
  const std::vector<std::int64_t> costs = subtree_costs(schedule, flops);
  schedule.chunks = chunk_count(blocks, costs, threads);
  std::vector<std::int64_t> roots;
  for (std::size_t r = 0; r < costs.size(); ++r)
    if (schedule.used[0][r]) roots.push_back(static_cast<std::int64_t>(r));
  std::stable_sort(roots.begin(), roots.end(),
                   [&](std::int64_t a, std::int64_t b) { return costs[a] > costs[b]; });
  for (std::int64_t root : roots)
    for (std::int64_t chunk = 0; chunk < schedule.chunks; ++chunk)
      schedule.tasks.push_back({root, chunk});
  return schedule;
}

}  // namespace marketplace::cpu
