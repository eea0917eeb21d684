#include "cpu/job.h"

#include <algorithm>

#include "shares.h"

namespace marketplace::cpu {
namespace {

constexpr double kTasksPerThread = 8;

Job::Children children_of(const Plan::Level& level, std::int64_t parents) {
  Job::Children children;
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
std::vector<std::int64_t> subtree_costs(const Job& job, const std::vector<std::int64_t>& flops) {
  std::vector<std::int64_t> below;
  for (std::size_t i = job.plan->levels.size(); i-- > 0;) {
    std::vector<std::int64_t> cost(job.plan->levels[i].vendor.size(), 0);
    for (std::size_t r = 0; r < cost.size(); ++r) {
      if (!job.used[i][r]) continue;
      cost[r] = flops[i] + 1;
      if (i + 1 == job.plan->levels.size()) continue;
      const Job::Children& children = job.children[i];
      for (std::int64_t c = children.begin[r]; c < children.begin[r + 1]; ++c)
        cost[r] += below[children.rows[c]];
    }
    below = std::move(cost);
  }
  return below;
}

// Enough that the costliest root's chunks keep all threads busy.
std::int64_t chunk_count(const Job& job, const std::vector<std::int64_t>& costs, int threads) {
  std::int64_t total = 0;
  for (std::int64_t cost : costs) total += cost;
  const std::int64_t heaviest = *std::max_element(costs.begin(), costs.end());
  const double even_roots = static_cast<double>(total) / static_cast<double>(heaviest);
  const auto wanted = static_cast<std::int64_t>(kTasksPerThread * threads / even_roots + 0.999);
  return threads == 1 ? 1 : std::clamp<std::int64_t>(wanted, 1, job.blocks);
}

}  // namespace

void schedule(Job& job, const std::vector<std::int64_t>& flops, int threads) {
  const auto& levels = job.plan->levels;
  for (std::size_t i = 0; i + 1 < levels.size(); ++i)
    job.children.push_back(
        children_of(levels[i + 1], static_cast<std::int64_t>(levels[i].vendor.size())));
  job.used = used_rows(*job.plan);
  job.leader_row = leader_rows(*job.plan);
  const std::vector<std::int64_t> costs = subtree_costs(job, flops);
  job.chunks = chunk_count(job, costs, threads);
  std::vector<std::int64_t> roots;
  for (std::size_t r = 0; r < costs.size(); ++r)
    if (job.used[0][r]) roots.push_back(static_cast<std::int64_t>(r));
  std::stable_sort(roots.begin(), roots.end(),
                   [&](std::int64_t a, std::int64_t b) { return costs[a] > costs[b]; });
  for (std::int64_t root : roots)
    for (std::int64_t chunk = 0; chunk < job.chunks; ++chunk) job.tasks.push_back({root, chunk});
}

}  // namespace marketplace::cpu
