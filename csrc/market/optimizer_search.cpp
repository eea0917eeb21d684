// The line search of a meta learning rate as one step.
#include "market/optimizer.h"
#include "market/plan.h"
#include "market/topk.h"

namespace marketplace {

// lr (1 + s) of the best path's vendors.
std::vector<float> Optimizer::best_rates(const std::vector<float>& losses) {
  const std::vector<std::int32_t> paths = plan_paths(plan());
  const std::vector<double> values(losses.begin(), losses.end());
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t best = topk(values.data(), count, 1, false)[0];
  std::vector<float> rates;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const float scale = specs_[i].scales[paths[best * specs_.size() + i]];
    rates.push_back(learning_rate(i) * (1.0f + scale));
  }
  return rates;
}

bool Optimizer::search(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                       UnitVectorMode mode,
                       const std::function<std::vector<float>()>& probe_again) {
  const std::vector<SpecState> before = specs_;
  const std::vector<LeaderStatistics> statistics = leader_;
  try {
    const bool degenerate = start_search(losses, paths, mode);
    end_search(best_rates(probe_again()));
    return degenerate;
  } catch (...) {
    specs_ = before;
    leader_ = statistics;
    throw;
  }
}

}  // namespace marketplace
