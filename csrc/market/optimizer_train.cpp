// A training step as a whole: at once where the backend follows its losses by itself, else a probe
// and its step.
#include <algorithm>
#include <utility>

#include "market/optimizer.h"
#include "market/plan.h"

namespace marketplace {

// Whether the backend can follow a probe's losses by itself, the step being made of nothing else.
bool Optimizer::follows_at_once() const {
  const bool shared = options_.plan == PlanKind::tree || options_.plan == PlanKind::star;
  return shared && market_->backend().takes_steps() && !options_.meta_learning_rate &&
         replica_ == 0 && std::all_of(specs_.begin(), specs_.end(), [](const SpecState& spec) {
           return spec.weights.kind == VendorWeights::Kind::seeded;
         });
}

// The losses scored as `shaping` says, their direction in work_, then `move`; or nothing, where the
// backend wants the probe and its step one after the other.
std::optional<TakenStep> Optimizer::follow_at_once(const Batch& batch, const Labels& labels,
                                                   Shaping shaping, UnitVectorMode mode,
                                                   const std::function<void()>& move) {
  reserve();
  TakenStep taken;
  auto& [losses, paths] = taken.probe;
  paths = plan_paths(plan());
  losses.resize(plan().path_count());
  StepUpdate update;
  update.scoring = {shaping, score_groups(options_.plan, mode, paths, vendor_counts()), paths,
                    vendor_counts()};
  update.work = [&](const StepUpdate::Combine& combine) {
    for (std::size_t i = 0; i < specs_.size(); ++i) combine(i, work_[i]);
    move();
  };
  LeaderStatistics leader;
  const std::optional<bool> degenerate =
      market_->step(*plan_, weights(), batch, labels, update, losses.data(), &leader);
  if (!degenerate) return std::nullopt;
  taken.degenerate = *degenerate;
  leader_.clear();
  leader_.push_back(std::move(leader));
  check_losses(losses, paths, vendor_counts());
  return taken;
}

std::optional<TakenStep> Optimizer::step_at_once(const Batch& batch, const Labels& labels,
                                                 UnitVectorMode mode) {
  if (!follows_at_once()) return std::nullopt;
  const std::vector<float> rates = rates_of_step();
  std::optional<TakenStep> taken =
      follow_at_once(batch, labels, options_.shaping, mode, [&] { move_along(mode, rates); });
  if (!taken) return taken;
  market_->change([&] { absorb_leader(); });
  rule_.finish();
  next_generation();
  return taken;
}

Probe Optimizer::keep_best_of(const Batch& batch, const Labels& labels) {
  check_keeps_best();
  if (follows_at_once()) {
    std::optional<TakenStep> taken =
        follow_at_once(batch, labels, Shaping::best, UnitVectorMode::whole, [&] {
          for (std::size_t i = 0; i < specs_.size(); ++i) move_weights(i, work_[i], 1.0f);
        });
    if (taken) {
      market_->change([&] { absorb_leader(); });
      next_generation();
      return std::move(taken->probe);
    }
  }
  Probe found = probe(batch, labels);
  keep_best(found.losses, found.paths);
  return found;
}

TakenStep Optimizer::train_step(const Batch& batch, const Labels& labels, UnitVectorMode mode) {
  if (std::optional<TakenStep> taken = step_at_once(batch, labels, mode)) return *std::move(taken);
  TakenStep taken{probe(batch, labels)};
  const auto& [losses, paths] = taken.probe;
  const auto again = [&] { return probe(batch, labels).losses; };
  taken.degenerate =
      options_.meta_learning_rate ? search(losses, paths, mode, again) : step(losses, paths, mode);
  return taken;
}

}  // namespace marketplace
