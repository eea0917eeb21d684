// The line search of a meta learning rate as one step.
#include <cmath>
#include <string>

#include "core/error.h"
#include "market/optimizer.h"
#include "market/plan.h"
#include "market/topk.h"

namespace marketplace {

std::vector<float> Optimizer::best_rates(const std::vector<float>& losses) {
  const std::vector<std::int32_t> paths = plan_paths(plan());
  if (losses.size() * specs_.size() != paths.size())
    fail("step", std::to_string(paths.size() / specs_.size()) + " losses of the line search",
         std::to_string(losses.size()));
  const std::int64_t best = lowest(losses);
  if (!std::isfinite(losses[best]))
    fail("step", "a finite loss of the line search", std::to_string(losses[best]) + " at its best");
  std::vector<float> rates;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const float scale = specs_[i].scales[paths[best * specs_.size() + i]];
    rates.push_back(learning_rate(i) * (1.0f + scale));
  }
  return rates;
}

bool Optimizer::start_search(const std::vector<float>& losses,
                             const std::vector<std::int32_t>& paths, UnitVectorMode mode) {
  bool degenerate = false;
  before_search_.reset();  // of one that nobody ended
  Directions directions = direction(losses, paths, mode, degenerate);
  BeforeSearch before{specs_, leader_};
  update_lr_scales(std::move(directions));
  before_search_ = std::move(before);
  return degenerate;
}

void Optimizer::cancel_search() {
  if (!before_search_) return;
  specs_ = std::move(before_search_->specs);
  leader_ = std::move(before_search_->leader);
  before_search_.reset();
}

void Optimizer::end_search(const std::vector<float>& learning_rates) {
  for (const SpecState& spec : specs_)
    if (spec.weights.kind != VendorWeights::Kind::scaled)
      fail(ErrorKind::runtime, "end_search", "a line search under way", "none");
  const std::vector<float> rates = checked_rates(learning_rates);
  // of the vendors that are drawn at last
  for (const float rate : rates) check_rate("probe amplitude", amplitude_at(rate));
  change_weights([&] {
    for (std::size_t i = 0; i < specs_.size(); ++i)
      move_weights(i, *specs_[i].weights.values, rates[i]);
  });
  before_search_.reset();
  keep_rates(rates);
  next_generation();
}

bool Optimizer::search(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                       UnitVectorMode mode,
                       const std::function<std::vector<float>()>& probe_again) {
  try {
    const bool degenerate = start_search(losses, paths, mode);
    end_search(best_rates(probe_again()));
    return degenerate;
  } catch (...) {
    cancel_search();
    throw;
  }
}

}  // namespace marketplace
