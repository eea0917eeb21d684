#include "gpu/split.h"

#include <algorithm>
#include <numeric>

namespace marketplace::gpu {
namespace {

// (P, S) rows of the plan on the way to each path.
std::vector<std::int32_t> path_rows(const Plan& plan) {
  const auto depth = static_cast<std::int64_t>(plan.levels.size());
  std::vector<std::int32_t> rows(plan.path_count() * depth);
  for (std::int64_t p = 0; p < plan.path_count(); ++p) {
    auto row = static_cast<std::int32_t>(p);
    for (std::int64_t i = depth - 1; i >= 0; --i) {
      rows[p * depth + i] = row;
      row = plan.levels[i].parent[row];
    }
  }
  return rows;
}

// Paths in depth-first order, and the part of each.
struct Shares {
  std::vector<std::int64_t> order, part;
};

Shares share(const Plan& plan, const std::vector<std::int32_t>& rows,
             const std::vector<std::int64_t>& flops, std::int64_t count) {
  const auto depth = static_cast<std::int64_t>(plan.levels.size());
  const std::int64_t paths = plan.path_count();
  Shares shares;
  shares.order.resize(paths);
  std::iota(shares.order.begin(), shares.order.end(), 0);
  const auto way = [&](std::int64_t path) { return rows.begin() + path * depth; };
  std::sort(shares.order.begin(), shares.order.end(), [&](std::int64_t a, std::int64_t b) {
    return std::lexicographical_compare(way(a), way(a) + depth, way(b), way(b) + depth);
  });
  // cost before each path: what it shares with its neighbour is counted once
  std::vector<double> before(paths);
  double total = 0;
  for (std::int64_t i = 0; i < paths; ++i) {
    before[i] = total;
    std::int64_t level = 0;
    if (i > 0)
      level = std::mismatch(way(shares.order[i]), way(shares.order[i]) + depth,
                            way(shares.order[i - 1]))
                  .first -
              way(shares.order[i]);
    for (; level < depth; ++level) total += static_cast<double>(flops[level]) + 1.0;
  }
  for (std::int64_t i = 0; i < paths; ++i)
    shares.part.push_back(std::min<std::int64_t>(
        count - 1, static_cast<std::int64_t>(before[i] * static_cast<double>(count) / total)));
  return shares;
}

class Builder {
 public:
  Builder(const Plan& plan, const std::vector<std::int32_t>& rows) : plan_(plan), rows_(rows) {}

  // The part of some paths, in ascending order; rows of `leaders` that are here move over.
  Part build(std::vector<std::int64_t> paths, std::vector<std::int64_t>& leaders) const {
    const std::size_t depth = plan_.levels.size();
    Part part;
    part.plan.input_count = plan_.input_count;
    part.leaders.assign(depth, -1);
    std::vector<std::int32_t> place;  // of the rows above, in the part
    for (std::size_t i = 0; i < depth; ++i) {
      const Plan::Level& level = plan_.levels[i];
      std::vector<char> used(level.vendor.size(), 0);
      for (std::int64_t p : paths) used[rows_[p * static_cast<std::int64_t>(depth) + i]] = 1;
      std::vector<std::int32_t> next(level.vendor.size(), -1);
      Plan::Level mine;
      for (std::size_t r = 0; r < used.size(); ++r) {
        if (!used[r]) continue;
        next[r] = static_cast<std::int32_t>(mine.vendor.size());
        mine.vendor.push_back(level.vendor[r]);
        mine.parent.push_back(i == 0 ? level.parent[r] : place[level.parent[r]]);
      }
      if (leaders[i] >= 0 && used[leaders[i]]) {
        part.leaders[i] = next[leaders[i]];
        leaders[i] = -1;
      }
      part.plan.levels.push_back(std::move(mine));
      place = std::move(next);
    }
    part.paths = std::move(paths);
    return part;
  }

 private:
  const Plan& plan_;
  const std::vector<std::int32_t>& rows_;
};

}  // namespace

std::vector<Part> split_plan(const Plan& plan, const std::vector<std::int64_t>& flops,
                             std::int64_t count, const std::vector<std::int64_t>& leaders) {
  if (count == 1) {
    std::vector<std::int64_t> all(plan.path_count());
    std::iota(all.begin(), all.end(), 0);
    return {{plan, all, leaders}};
  }
  const std::vector<std::int32_t> rows = path_rows(plan);
  const Shares shares = share(plan, rows, flops, count);
  std::vector<std::vector<std::int64_t>> paths(count);
  for (std::size_t i = 0; i < shares.order.size(); ++i)
    paths[shares.part[i]].push_back(shares.order[i]);
  std::vector<Part> parts;
  std::vector<std::int64_t> left = leaders;
  const Builder builder(plan, rows);
  for (std::vector<std::int64_t>& mine : paths) {
    if (mine.empty()) continue;
    std::sort(mine.begin(), mine.end());
    parts.push_back(builder.build(std::move(mine), left));
  }
  return parts;
}

}  // namespace marketplace::gpu
