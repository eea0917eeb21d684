#include "cpu/job.h"

#include <algorithm>

#include "shares.h"

namespace marketplace::cpu {
namespace {

constexpr double kTasksPerThread = 8;
// Where every task packs panels or runs its root once more, that costs more than uneven threads.
constexpr double kPackingTasksPerThread = 2;
// Rows that keep a product at its best, two tiles, and the fewest for which a thread may read all
// weights again.
constexpr std::int64_t kFullRows = 24, kFewestRows = 4;

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

std::int64_t child_count(const Schedule& schedule, std::int64_t root) {
  if (schedule.children.empty()) return 0;
  const std::vector<std::int64_t>& begin = schedule.children[0].begin;
  return begin[root + 1] - begin[root];
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

// Tasks that the costliest root is cut into, so that every thread has `each`.
std::int64_t wanted_pieces(const std::vector<std::int64_t>& costs, int threads, double each) {
  if (threads == 1) return 1;
  std::int64_t total = 0;
  for (std::int64_t cost : costs) total += cost;
  const std::int64_t heaviest = *std::max_element(costs.begin(), costs.end());
  const double even_roots = static_cast<double>(total) / static_cast<double>(heaviest);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(each * threads / even_roots + 0.999));
}

// Chunks of fewer rows spend their time on reading weights. Those that give every thread its first
// task may be smaller; beyond, every thread gets as many as the others.
std::int64_t most_chunks(const Grain& grain, std::int64_t first_tasks) {
  const std::int64_t full = grain.rows / kFullRows, fewest = grain.rows / kFewestRows;
  const std::int64_t most =
      full < first_tasks ? std::min(fewest, first_tasks) : full / first_tasks * first_tasks;
  return std::clamp<std::int64_t>(most, 1, grain.blocks);
}

// Cuts the roots into chunks, and where panels are made on demand rather by their children: another
// chunk packs all vendors once more, another part only runs the root once more.
std::int64_t choose_parts(Schedule& schedule, std::int64_t heaviest_root,
                          const std::vector<std::int64_t>& costs, int threads) {
  const double each = schedule.repacks ? kPackingTasksPerThread : kTasksPerThread;
  const std::int64_t pieces = wanted_pieces(costs, threads, each);
  const std::int64_t most_parts = schedule.repacks ? child_count(schedule, heaviest_root) : 1;
  const std::int64_t parts = std::clamp<std::int64_t>(most_parts, 1, pieces);
  const std::int64_t first_tasks = wanted_pieces(costs, threads, 1);
  schedule.chunks = std::clamp<std::int64_t>(pieces / parts, 1, most_chunks(schedule, first_tasks));
  return parts;
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
  const std::int64_t count = child_count(schedule, root);
  const std::int64_t first = count > 0 ? schedule.children[0].begin[root] : 0;
  parts = std::clamp<std::int64_t>(count, 1, parts);
  for (std::int64_t chunk = 0; chunk < schedule.chunks; ++chunk)
    for (std::int64_t part = 0; part < parts; ++part)
      schedule.tasks.push_back({root, chunk, first + part * count / parts,
                                first + (part + 1) * count / parts, part == 0});
}

}  // namespace

Schedule make_schedule(const Plan& plan, const Grain& grain, const std::vector<std::int64_t>& flops,
                       int threads) {
  Schedule schedule(plan, grain);
  for (std::size_t i = 0; i + 1 < plan.levels.size(); ++i)
    schedule.children.push_back(
        children_of(plan.levels[i + 1], static_cast<std::int64_t>(plan.levels[i].vendor.size())));
  schedule.used = used_rows(plan);
  schedule.leader_row = leader_rows(plan);
  const std::vector<std::int64_t> costs = subtree_costs(schedule, flops);
  const std::vector<std::int64_t> roots = costliest_first(schedule, costs);
  const std::int64_t parts = choose_parts(schedule, roots[0], costs, threads);
  for (const std::int64_t root : roots) add_tasks(schedule, root, parts);
  return schedule;
}

}  // namespace marketplace::cpu
