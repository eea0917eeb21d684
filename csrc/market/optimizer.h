// The optimizer's state and its steps: seeds, probe amplitudes, learning rates, directions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "market/coefficients.h"
#include "market/market.h"

namespace marketplace {

struct OptimizerOptions {
  PlanKind plan = PlanKind::tree;
  float learning_rate = 0;
  std::optional<float> probe_scale;         // amplitude of deltas = learning rate * probe scale
  std::optional<float> meta_learning_rate;  // set: every spec has a learning rate of its own
  std::uint64_t seed = 0;
};

using Directions = std::vector<std::vector<float>>;  // per spec (n,)

class Optimizer {
 public:
  Optimizer(std::shared_ptr<Market> market, std::vector<std::int64_t> vendor_counts,
            std::vector<std::int64_t> upstream_sampling, OptimizerOptions options,
            std::optional<std::vector<std::vector<std::uint64_t>>> seeds);

  // Plain state of one spec.
  struct SpecState {
    VendorWeights weights;  // how this generation's vendors differ from W
    std::vector<std::uint64_t> seeds;
    float learning_rate = 0;    // own one under a meta learning rate
    std::vector<float> scales;  // learning rate scales of the line search
    std::int64_t vendor_count = 1, upstream_sampling = 0;
  };

  OptimizerOptions options;  // learning rates may change between steps
  Market& market() { return *market_; }
  const std::shared_ptr<Market>& market_pointer() const { return market_; }
  const std::vector<SpecState>& specs() const { return specs_; }
  std::uint64_t generation() const { return generation_; }
  float learning_rate(std::size_t spec) const;
  std::vector<VendorWeights> weights() const;
  std::vector<std::int64_t> vendor_counts() const;

  // The plan of this generation; redrawn with the seeds where upstreams are sampled.
  const Plan& plan();

  // losses (P,) of the plan's paths.
  std::vector<float> probe(const Batch& batch, const Labels& labels);
  // out (P, B, *output_shape).
  void forward(const Batch& batch, float* out);

  // Unit directions from losses (P,) and paths (P, S); zero where `degenerate`.
  Directions direction(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                       UnitVectorMode mode, bool& degenerate);
  // W_i += lr_i d_i; under a meta learning rate the given rates become the specs' own.
  void update_weights(const Directions& directions,
                      const std::optional<std::vector<float>>& learning_rates);
  void update_seeds(bool keep_leader);
  // Line search: vendor v now carries d_i lr_i (1 + s_v), s_v drawn behind the parameters'
  // counters.
  void update_lr_scales(const Directions& directions);
  // direction, update_weights, update_seeds; returns whether the direction was degenerate.
  bool step(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
            UnitVectorMode mode);

  // For resuming: everything that is not an option, a weight or derivable from the two.
  struct State {
    std::uint64_t generation = 0;
    std::vector<std::vector<std::uint64_t>> seeds;
    std::vector<float> amplitudes, learning_rates;
  };
  State state() const;
  void restore(const State& state);

 private:
  void draw(const std::vector<std::vector<std::uint64_t>>& seeds);
  void check_directions(const Directions& directions) const;
  float amplitude(std::size_t spec) const;

  std::shared_ptr<Market> market_;
  std::vector<SpecState> specs_;
  std::uint64_t generation_ = 0;
  std::optional<Plan> plan_;
  LeaderStatistics leader_;  // of the last probe, absorbed by the next weight update
};

}  // namespace marketplace
