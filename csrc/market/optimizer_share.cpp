// What an optimizer measures when several processes share a probe.
#include <algorithm>
#include <numeric>
#include <string>

#include "core/error.h"
#include "market/optimizer.h"

namespace marketplace {
namespace {

// A path through each of the leader's rows, one for all where they are one path.
std::vector<std::int64_t> leader_paths(const Plan& plan, const std::vector<std::int64_t>& rows) {
  std::vector<std::int64_t> way(plan.path_count()), paths;
  std::iota(way.begin(), way.end(), 0);  // the row that each path takes
  for (std::size_t i = plan.levels.size(); i-- > 0;) {
    const auto found = std::find(way.begin(), way.end(), rows[i]);
    if (found != way.end()) paths.push_back(found - way.begin());
    for (std::int64_t& row : way) row = plan.levels[i].parent[row];
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

void check_shared(PlanKind plan) {
  if (plan != PlanKind::tree && plan != PlanKind::star)
    fail("shares", "plan 'tree' or 'star', whose paths can be shared out",
         "'" + plan_name(plan) + "'");
}

bool has_statistics(const Market& market) {
  return std::any_of(market.models().begin(), market.models().end(), [](const auto& model) {
    const auto& parameters = model->graph().parameters;
    return std::any_of(parameters.begin(), parameters.end(),
                       [](const auto& parameter) { return parameter.buffer; });
  });
}

}  // namespace

Cut Optimizer::cut(const Shape& sample_shape, const std::vector<double>& speeds) {
  check_shared(options_.plan);
  return cut_plan(plan(), depth_first(plan()), market_->spec_flops(sample_shape), speeds);
}

std::vector<float> Optimizer::probe_share(const Batch& batch, const Labels& labels,
                                          std::int64_t first, std::int64_t last) {
  check_shared(options_.plan);
  const std::vector<std::int64_t> order = depth_first(plan());
  if (first < 0 || first > last || last > plan_->path_count())
    fail("shares", "a range of " + std::to_string(plan_->path_count()) + " paths",
         std::to_string(first) + " to " + std::to_string(last));
  std::vector<float> losses(last - first);
  if (losses.empty()) return losses;
  std::vector<std::int64_t> paths(order.begin() + first, order.begin() + last);
  std::sort(paths.begin(), paths.end());
  std::vector<std::int64_t> leaders(plan_->levels.size(), -1);
  const Part part = take_paths(*plan_, std::move(paths), leaders);
  std::vector<float> found(losses.size());
  market_->losses(part.plan, weights(), batch, labels, found.data(), nullptr);
  for (std::int64_t i = first; i < last; ++i)
    losses[i - first] = found[std::lower_bound(part.paths.begin(), part.paths.end(), order[i]) -
                              part.paths.begin()];
  return losses;
}

void Optimizer::probe_leader(const Batch& batch, const Labels& labels, bool further) {
  check_shared(options_.plan);
  if (!has_statistics(*market_)) return;
  std::vector<std::int64_t> leaders = leader_rows(plan());
  const Part part = take_paths(*plan_, leader_paths(*plan_, leaders), leaders);
  std::vector<float> unused(part.paths.size());
  LeaderStatistics statistics;
  market_->losses(part.plan, weights(), batch, labels, unused.data(), &statistics);
  if (!further) leader_.clear();
  leader_.push_back(std::move(statistics));
}

}  // namespace marketplace
