#include "shares.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "core/error.h"

namespace marketplace {
namespace {

constexpr int kHalvings = 40;  // of the time that the slowest part takes

// At how many levels two paths run the same rows.
std::size_t shared_levels(const Plan& plan, std::int64_t a, std::int64_t b) {
  std::size_t level = plan.levels.size();
  for (; level > 0 && a != b; --level) {
    a = plan.levels[level - 1].parent[a];
    b = plan.levels[level - 1].parent[b];
  }
  return level;
}

// What paths cost in a row: the first one all levels, the others what they do not share with the
// one before.
class Costs {
 public:
  Costs(const Plan& plan, const std::vector<std::int64_t>& order,
        const std::vector<std::int64_t>& flops)
      : further_(order.size(), 0.0) {
    std::vector<double> from(flops.size() + 1, 0.0);  // level i on
    for (std::size_t i = flops.size(); i-- > 0;)
      from[i] = from[i + 1] + static_cast<double>(flops[i]) + 1.0;
    whole_ = from[0];
    for (std::size_t i = 1; i < order.size(); ++i)
      further_[i] = from[shared_levels(plan, order[i - 1], order[i])];
  }

  // Fills one part after another up to time * speed; false where paths are left over.
  bool fill(double time, const std::vector<double>& speeds, Cut& cut) const {
    cut = {{0}, {}};
    std::size_t path = 0;
    for (const double speed : speeds) {
      double cost = 0;
      for (const std::size_t first = path; path < further_.size(); ++path) {
        const double more = path == first ? whole_ : further_[path];
        if (cost + more > time * speed) break;
        cost += more;
      }
      cut.bounds.push_back(static_cast<std::int64_t>(path));
      cut.costs.push_back(cost);
    }
    return path == further_.size();
  }

  double total() const { return std::accumulate(further_.begin(), further_.end(), whole_); }

 private:
  double whole_ = 0;
  std::vector<double> further_;
};

}  // namespace

std::vector<std::vector<char>> used_rows(const Plan& plan) {
  const auto& levels = plan.levels;
  std::vector<std::vector<char>> used(levels.size());
  used.back().assign(levels.back().vendor.size(), 1);
  for (std::size_t i = levels.size() - 1; i-- > 0;) {
    used[i].assign(levels[i].vendor.size(), 0);
    for (std::size_t r = 0; r < levels[i + 1].parent.size(); ++r)
      if (used[i + 1][r]) used[i][levels[i + 1].parent[r]] = 1;
  }
  return used;
}

std::vector<std::int64_t> leader_rows(const Plan& plan) {
  const auto used = used_rows(plan);
  std::vector<std::int64_t> rows;
  std::int64_t above = -1;
  for (std::size_t i = 0; i < plan.levels.size(); ++i) {
    const Plan::Level& level = plan.levels[i];
    std::int64_t found = -1;
    for (std::size_t r = 0; r < level.vendor.size(); ++r) {
      if (level.vendor[r] != 0 || !used[i][r]) continue;
      if (found < 0) found = static_cast<std::int64_t>(r);
      if (i == 0 || level.parent[r] != above) continue;
      found = static_cast<std::int64_t>(r);
      break;
    }
    rows.push_back(found);
    above = found;
  }
  return rows;
}

std::vector<std::int64_t> depth_first(const Plan& plan) {
  std::vector<std::int64_t> order, place(plan.input_count);  // of a row among its level's
  std::iota(place.begin(), place.end(), 0);
  for (const Plan::Level& level : plan.levels) {
    // a counting sort by the place of what a row continues
    std::vector<std::int64_t> next(place.size() + 1, 0);
    for (const std::int32_t parent : level.parent) ++next[place[parent] + 1];
    std::partial_sum(next.begin(), next.end(), next.begin());
    std::vector<std::int64_t> mine(level.parent.size());
    order.resize(mine.size());
    for (std::size_t r = 0; r < mine.size(); ++r) {
      mine[r] = next[place[level.parent[r]]]++;
      order[mine[r]] = static_cast<std::int64_t>(r);
    }
    place = std::move(mine);
  }
  return order;
}

Cut cut_plan(const Plan& plan, const std::vector<std::int64_t>& order,
             const std::vector<std::int64_t>& flops, const std::vector<double>& speeds) {
  double fastest = 0;
  for (const double speed : speeds) {
    if (!(speed >= 0 && speed <= 1e30))
      fail("shares", "speeds of at least 0", std::to_string(speed));
    fastest = std::max(fastest, speed);
  }
  if (fastest == 0) fail("shares", "a part with a speed above 0", "none");
  const Costs costs(plan, order, flops);
  double low = 0, high = 2 * costs.total() / fastest;  // the fastest alone, whatever is rounded
  Cut best, tried;
  costs.fill(high, speeds, best);
  for (int i = 0; i < kHalvings; ++i) {
    const double time = (low + high) / 2;
    const bool enough = costs.fill(time, speeds, tried);
    (enough ? high : low) = time;
    if (enough) std::swap(best, tried);
  }
  return best;
}

Part take_paths(const Plan& plan, std::vector<std::int64_t> paths,
                std::vector<std::int64_t>& leaders) {
  const std::size_t depth = plan.levels.size();
  std::vector<std::vector<char>> used(depth);
  for (std::size_t i = 0; i < depth; ++i) used[i].assign(plan.levels[i].vendor.size(), 0);
  for (std::int64_t row : paths)
    for (std::size_t i = depth; i-- > 0 && !used[i][row]; row = plan.levels[i].parent[row])
      used[i][row] = 1;
  Part part;
  part.plan.input_count = plan.input_count;
  part.plan.whole_path_count = std::max(plan.whole_path_count, plan.path_count());
  part.leaders.assign(depth, -1);
  std::vector<std::int32_t> place;  // of the rows above, in the part
  for (std::size_t i = 0; i < depth; ++i) {
    const Plan::Level& level = plan.levels[i];
    std::vector<std::int32_t> next(level.vendor.size(), -1);
    Plan::Level mine;
    for (std::size_t r = 0; r < next.size(); ++r) {
      if (!used[i][r]) continue;
      next[r] = static_cast<std::int32_t>(mine.vendor.size());
      mine.vendor.push_back(level.vendor[r]);
      mine.parent.push_back(i == 0 ? level.parent[r] : place[level.parent[r]]);
    }
    if (leaders[i] >= 0 && used[i][leaders[i]])
      part.leaders[i] = next[std::exchange(leaders[i], -1)];
    part.plan.levels.push_back(std::move(mine));
    place = std::move(next);
  }
  part.paths = std::move(paths);
  return part;
}

}  // namespace marketplace
