// A training step as a whole: at once where the backend follows its losses by itself, else a probe
// and its step.
#include <algorithm>
#include <utility>

#include "market/optimizer.h"
#include "market/plan.h"

namespace marketplace {

// Whether a step is made of one probe's losses and what follows from them alone.
bool Optimizer::is_plain() const {
  const bool shared = options.plan == PlanKind::tree || options.plan == PlanKind::star;
  return shared && !options.meta_learning_rate && replica_ == 0 &&
         std::all_of(specs_.begin(), specs_.end(), [](const SpecState& spec) {
           return spec.weights.kind == VendorWeights::Kind::seeded;
         });
}

std::optional<TakenStep> Optimizer::step_at_once(const Batch& batch, const Labels& labels,
                                                 UnitVectorMode mode) {
  if (!market_->backend().takes_steps() || !is_plain()) return std::nullopt;
  const std::vector<float> rates = rates_of_step();
  reserve();
  TakenStep taken;
  auto& [losses, paths] = taken.probe;
  paths = plan_paths(plan());
  losses.resize(plan().path_count());
  StepUpdate update;
  update.scoring = {options.shaping, score_groups(options.plan, mode, paths, vendor_counts()),
                    paths, vendor_counts()};
  update.work = [&](const StepUpdate::Combine& combine) {
    for (std::size_t i = 0; i < specs_.size(); ++i) combine(i, work_[i]);
    move_along(mode, rates);
  };
  LeaderStatistics leader;
  const std::optional<bool> degenerate =
      market_->step(*plan_, weights(), batch, labels, update, losses.data(), &leader);
  if (!degenerate) return std::nullopt;
  taken.degenerate = *degenerate;
  leader_.clear();
  leader_.push_back(std::move(leader));
  check_losses(losses, paths, vendor_counts());
  finish_step();
  return taken;
}

TakenStep Optimizer::train_step(const Batch& batch, const Labels& labels, UnitVectorMode mode) {
  if (std::optional<TakenStep> taken = step_at_once(batch, labels, mode)) return *std::move(taken);
  TakenStep taken{probe(batch, labels)};
  const auto& [losses, paths] = taken.probe;
  const auto again = [&] { return probe(batch, labels).losses; };
  taken.degenerate =
      options.meta_learning_rate ? search(losses, paths, mode, again) : step(losses, paths, mode);
  return taken;
}

}  // namespace marketplace
