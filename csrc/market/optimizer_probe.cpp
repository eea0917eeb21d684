// What an optimizer measures before a step: losses of paths, or gradients.
#include <cmath>
#include <string>

#include "core/error.h"
#include "market/optimizer.h"
#include "market/plan.h"
#include "market/seeds.h"

namespace marketplace {
namespace {

constexpr float kNodeScale = 0.003f;

}  // namespace

std::vector<std::int32_t> Optimizer::sample_paths(std::int64_t batch) const {
  return marketplace::sample_paths(options_.seed, generation_, batch, vendor_counts(), replica_);
}

Probe Optimizer::probe(const Batch& batch, const Labels& labels, bool further) {
  reserve();
  if (options_.plan == PlanKind::scatter) return probe_samples(batch, labels);
  if (options_.plan == PlanKind::node) return probe_nodes(batch, labels, further);
  std::vector<float> losses(plan().path_count());
  LeaderStatistics leader;
  market_->losses(*plan_, weights(), batch, labels, losses.data(), &leader);
  if (!further) leader_.clear();
  leader_.push_back(std::move(leader));
  return {std::move(losses), plan_paths(*plan_)};
}

Probe Optimizer::probe_samples(const Batch& batch, const Labels& labels) {
  const auto depth = static_cast<std::int64_t>(specs_.size());
  Probe all{std::vector<float>(batch.size), sample_paths(batch.size)}, counted;
  market_->forward_paths(weights(), batch, all.paths.data(), {nullptr, all.losses.data(), &labels});
  std::vector<float> base(batch.size, 0.0f);
  if (options_.control_variate) market_->base_losses(batch, labels, base.data());
  for (std::int64_t b = 0; b < batch.size; ++b) {
    if (labels.ignore_index && labels.data[b] == *labels.ignore_index) continue;
    counted.losses.push_back(all.losses[b] - base[b]);
    const auto path = all.paths.begin() + b * depth;
    counted.paths.insert(counted.paths.end(), path, path + depth);
  }
  return counted;
}

Probe Optimizer::probe_nodes(const Batch& batch, const Labels& labels, bool further) {
  NodeProbe probe;
  probe.scale = options_.probe_scale.value_or(kNodeScale);
  if (!(probe.scale > 0 && std::isfinite(probe.scale)))
    fail("probe_scale", "a finite number above 0 with plan 'node'", std::to_string(probe.scale));
  for (const SpecState& spec : specs_) probe.seeds.push_back(spec.seeds);
  if (gradients_.empty()) gradients_ = zeros(parameter_counts(), market_->backend());
  const bool add = further && gradient_count_ > 0;
  const double loss =
      market_->node_gradients(vendor_counts(), probe, batch, labels, add, gradients_);
  gradient_count_ = add ? gradient_count_ + 1 : 1;
  return {{static_cast<float>(loss)}, std::vector<std::int32_t>(specs_.size(), 0)};
}

void Optimizer::forward(const Batch& batch, const Output& out, bool further) {
  LeaderStatistics leader;
  market_->forward(plan(), weights(), batch, out, &leader);
  if (!further) leader_.clear();
  leader_.push_back(std::move(leader));
}

void Optimizer::absorb_leader() {
  for (const LeaderStatistics& minibatch : leader_) market_->absorb(minibatch);
  leader_.clear();
}

}  // namespace marketplace
