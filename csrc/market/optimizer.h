// The optimizer's state and its steps: seeds, probe amplitudes, learning rates, directions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "market/coefficients.h"
#include "market/market.h"
#include "market/update_rule.h"
#include "shares.h"

namespace marketplace {

// What may change between steps.
struct Rates {
  float learning_rate = 0;
  // Amplitude of deltas = learning rate * probe scale; plan node: size of the noise, see NodeProbe.
  std::optional<float> probe_scale;
  std::optional<float> meta_learning_rate;  // set: every spec has a learning rate of its own
};

struct OptimizerOptions : Rates {
  PlanKind plan = PlanKind::tree;
  std::uint64_t seed = 0;
  RuleOptions rule;
  Shaping shaping = Shaping::z;
  bool antithetic = false;  // tree, star: vendors in pairs of opposite deltas behind the leader
  bool control_variate = false;  // scatter: a sample's loss is told less that of the base weights
};

// Losses (P,) and their paths (P, S).
struct Probe {
  std::vector<float> losses;
  std::vector<std::int32_t> paths;
};

// A step, and what it was taken from.
struct TakenStep {
  Probe probe;
  bool degenerate = false;
};

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

  const OptimizerOptions& options() const { return options_; }
  void set_rates(const Rates& rates);  // of the next call; vendors are drawn with those of before
  // Weight updates since the start, counted by the call that takes them.
  std::uint64_t step_count() const { return step_count_; }
  void set_step_count(std::uint64_t count) { step_count_ = count; }
  // For threads that share an optimizer: whoever calls it holds this. The members do not lock it
  // themselves.
  std::mutex& access() const { return access_; }
  Market& market() { return *market_; }
  const std::shared_ptr<Market>& market_pointer() const { return market_; }
  const std::vector<SpecState>& specs() const { return specs_; }
  const UpdateRule& rule() const { return rule_; }
  std::uint64_t generation() const { return generation_; }
  std::uint64_t replica() const { return replica_; }
  float learning_rate(std::size_t spec) const;
  std::vector<VendorWeights> weights() const;
  std::vector<std::int64_t> vendor_counts() const;

  // The plan of this generation; redrawn with the seeds where upstreams are sampled. Of a scatter,
  // what one sample costs: the leader's path.
  const Plan& plan();
  // The paths (batch, S) that a scatter's samples take in this generation.
  std::vector<std::int32_t> sample_paths(std::int64_t batch) const;

  // Of the plan's paths; of a scatter, of every sample whose label counts; of plan node, of the
  // leader, the measured gradient being kept for the next step. `further`: one more
  // minibatch of these vendors, so the update will absorb the batch statistics of the earlier ones
  // too.
  Probe probe(const Batch& batch, const Labels& labels, bool further = false);
  // For processes that share a probe: the losses of [first, last) of the plan's paths in
  // depth-first order, bit for bit those of probe; and what probe does beside, for the batch
  // statistics.
  std::vector<float> probe_share(const Batch& batch, const Labels& labels, std::int64_t first,
                                 std::int64_t last);
  void probe_leader(const Batch& batch, const Labels& labels, bool further);
  // Shares for processes of these speeds.
  Cut cut(const Shape& sample_shape, const std::vector<double>& speeds);
  // out (P, B, *output_shape); `further` as for probe.
  void forward(const Batch& batch, const Output& out, bool further = false);

  // Several independent draws per update: adds g of these vendors, from losses (P,) and paths
  // (P, S), to a sum, and draws the next replica. Returns whether the losses were degenerate.
  bool add_replica(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                   UnitVectorMode mode);
  // Forgets the sum and goes back to the first replica's vendors.
  void drop_replicas();
  // Unit directions from losses (P,) and paths (P, S), the sum of the earlier replicas added before
  // normalising. `degenerate`: these losses say nothing.
  Directions direction(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                       UnitVectorMode mode, bool& degenerate);
  // g, the earlier replicas' added, not normalised: what a step is made of.
  Directions gather(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                    UnitVectorMode mode, bool& degenerate);
  // The update that the rule makes of g; the rule remembers it.
  Directions make_update(Directions sums, UnitVectorMode mode);
  // W_i += lr_i d_i; under a meta learning rate the given rates become the specs' own.
  void update_weights(const Directions& directions,
                      const std::optional<std::vector<float>>& learning_rates);
  void update_seeds(bool keep_leader);
  // Line search: vendor v now carries d_i lr_i (1 + s_v), s_v drawn behind the parameters'
  // counters.
  void update_lr_scales(Directions directions);
  // The same with the direction of some losses, which stays where it was computed; returns whether
  // it was degenerate. Then update_weights with that direction and the rates that were found, and
  // update_seeds; or, without a step, the vendors as they were before.
  bool start_search(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                    UnitVectorMode mode);
  void end_search(const std::vector<float>& learning_rates);
  void cancel_search();
  // lr (1 + s) of every spec on the best path, from the line search's losses (P,).
  std::vector<float> best_rates(const std::vector<float>& losses);
  // The direction, made an update by the rule, update_weights, update_seeds; returns whether the
  // direction was degenerate.
  bool step(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
            UnitVectorMode mode);

  // A probe and its step, under a meta learning rate with the line search. Of plans tree and star
  // the host is not asked in between, where the backend can do without: a step like the one before
  // then follows its losses where they are. Same results; nothing but the batch statistics, which
  // the next probe forgets, has changed when it throws.
  TakenStep train_step(const Batch& batch, const Labels& labels, UnitVectorMode mode);

  // A step of a line search: vendors that differ in how far they go along the direction, their
  // losses (P,) by `probe_again`, and each spec's rate of the best path. Nothing has changed when
  // it throws.
  bool search(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
              UnitVectorMode mode, const std::function<std::vector<float>()>& probe_again);

  // V1: W of every spec becomes the best path's vendor's, then new vendors around it. Returns the
  // best path's row.
  std::int64_t keep_best(const std::vector<float>& losses, const std::vector<std::int32_t>& paths);
  // A probe and keep_best of its losses; the host is not asked in between where train_step does not
  // ask it either.
  Probe keep_best_of(const Batch& batch, const Labels& labels);

  // For resuming: everything that is not settled at the start, a weight or derivable from the two.
  struct State {
    Rates rates;
    std::uint64_t seed = 0, generation = 0;
    std::vector<std::vector<std::uint64_t>> seeds;
    std::vector<float> amplitudes, learning_rates;
    UpdateRule::State rule;
  };
  State state() const;
  void restore(const State& state);  // nothing has changed when it throws

 private:
  Probe probe_nodes(const Batch& batch, const Labels& labels, bool further);
  Coefficients weigh(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                     UnitVectorMode mode) const;
  std::vector<std::int64_t> parameter_counts() const;
  void reserve();
  void own_direction(std::size_t spec, const Coefficients& coefficients, float share, Vector& out);
  void gather_into(Directions& out, const Coefficients& coefficients);
  const Directions& propose(Directions& sums, UnitVectorMode mode);
  std::vector<float> rates_of_step() const;
  void move_along(UnitVectorMode mode, const std::vector<float>& rates);
  void change_weights(const std::function<void()>& work);
  void next_generation();
  void check_keeps_best() const;
  bool follows_at_once() const;
  std::optional<TakenStep> follow_at_once(const Batch& batch, const Labels& labels, Shaping shaping,
                                          UnitVectorMode mode, const std::function<void()>& move);
  std::optional<TakenStep> step_at_once(const Batch& batch, const Labels& labels,
                                        UnitVectorMode mode);
  std::vector<float> checked_rates(const std::optional<std::vector<float>>& given) const;
  void keep_rates(const std::vector<float>& rates);
  void move_weights(std::size_t spec, const Vector& update, float rate);
  Probe probe_samples(const Batch& batch, const Labels& labels);
  std::vector<std::vector<std::uint64_t>> derive(std::uint64_t generation, std::uint64_t replica,
                                                 const std::vector<bool>& leaders) const;
  void draw(const std::vector<std::vector<std::uint64_t>>& seeds);
  void draw(const std::vector<std::vector<std::uint64_t>>& seeds,
            const std::vector<float>& amplitudes);
  OptimizerOptions options_with(const Rates& rates) const;
  void draw_replica(std::uint64_t replica);
  void end_replicas();
  void forget_probes();
  static void check_rate(const std::string& name, float value);
  void check_amplitudes() const;
  void check_sum_mode(UnitVectorMode mode) const;
  void absorb_leader();
  void check_directions(const Directions& directions) const;
  float amplitude(std::size_t spec) const;
  float amplitude_at(float rate) const;
  std::vector<std::vector<std::uint64_t>> seeds() const;

  // What a line search that comes to nothing goes back to.
  struct BeforeSearch {
    std::vector<SpecState> specs;
    std::vector<LeaderStatistics> leader;
  };

  mutable std::mutex access_;
  OptimizerOptions options_;
  std::uint64_t step_count_ = 0;
  std::shared_ptr<Market> market_;
  UpdateRule rule_;
  std::vector<SpecState> specs_;
  std::optional<BeforeSearch> before_search_;
  std::uint64_t generation_ = 0;
  std::optional<Plan> plan_;
  std::vector<LeaderStatistics> leader_;  // by minibatch, absorbed by the next weight update
  std::uint64_t replica_ = 0;             // of this generation; its seeds follow from it
  std::vector<std::vector<std::uint64_t>> first_seeds_;  // of replica 0, while others are drawn
  Directions sum_;        // of g over the earlier replicas; empty at replica 0
  Directions work_;       // what the direction of a step is computed in
  Directions gradients_;  // plan node: summed over gradient_count_ minibatches of these vendors
  std::int64_t gradient_count_ = 0;
  UnitVectorMode sum_mode_ = UnitVectorMode::per_spec;
};

}  // namespace marketplace
