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

// Tasks that the costliest root is cut into, so that all threads stay busy.
std::int64_t wanted_pieces(const std::vector<std::int64_t>& costs, int threads) {
  if (threads == 1) return 1;
  std::int64_t total = 0;
  for (std::int64_t cost : costs) total += cost;
  const std::int64_t heaviest = *std::max_element(costs.begin(), costs.end());
  const double even_roots = static_cast<double>(total) / static_cast<double>(heaviest);
  return static_cast<std::int64_t>(kTasksPerThread * threads / even_roots + 0.999);
}

std::vector<std::int64_t> costliest_first(const Schedule& schedule,
                                          const std::vector<std::int64_t>& costs) {
  std::vector<std::int64_t> roots;
  for (std::size_t r = 0; r < costs.size(); ++r)
    if (schedule.used[0][r]) roots.push_back(static_cast<std::int64_t>(r));
  std::stable_sort(roots.begin(), roots.end(),
                   [&](std::int64_t a, std::int64_t b) { return costs[a] > costs[b]; });
  return roots;
}

// One root in `parts` tasks a chunk, as far as it has children.
void add_tasks(Schedule& schedule, std::int64_t root, std::int64_t parts) {
  std::int64_t first = 0, count = 0;
  if (!schedule.children.empty()) {
    const std::vector<std::int64_t>& begin = schedule.children[0].begin;
    first = begin[root];
    count = begin[root + 1] - first;
  }
  parts = std::clamp<std::int64_t>(count, 1, parts);
  for (std::int64_t chunk = 0; chunk < schedule.chunks; ++chunk)
    for (std::int64_t part = 0; part < parts; ++part)
      schedule.tasks.push_back({root, chunk, first + part * count / parts,
                                first + (part + 1) * count / parts, part == 0});
}

}  // namespace

Schedule make_schedule(const Plan& plan, std::int64_t blocks, bool repacks,
                       const std::vector<std::int64_t>& flops, int threads) {
  Schedule schedule;
  schedule.plan = plan;
  schedule.blocks = blocks;
  schedule.repacks = repacks;
  for (std::size_t i = 0; i + 1 < plan.levels.size(); ++i)
    schedule.children.push_back(
        children_of(plan.levels[i + 1], static_cast<std::int64_t>(plan.levels[i].vendor.size())));
  schedule.used = used_rows(plan);
  schedule.leader_row = leader_rows(plan);
  const std::vector<std::int64_t> costs = subtree_costs(schedule, flops);
  const std::vector<std::int64_t> roots = costliest_first(schedule, costs);
  const std::int64_t pieces = wanted_pieces(costs, threads);
  // Another chunk packs a vendor's panels once more; another part only runs the root once more.
  const bool by_children =
      repacks && !schedule.children.empty() &&
      schedule.children[0].begin[roots[0] + 1] - schedule.children[0].begin[roots[0]] >= pieces;
  if (!by_children) schedule.chunks = std::clamp<std::int64_t>(pieces, 1, blocks);
  for (const std::int64_t root : roots) add_tasks(schedule, root, by_children ? pieces : 1);
  return schedule;
}

}  // namespace marketplace::cpu
