#include "market/optimizer.h"

#include <cmath>
#include <string>

#include "core/error.h"
#include "market/plan.h"
#include "market/seeds.h"

namespace marketplace {
namespace {

void check_seeds(const std::vector<std::vector<std::uint64_t>>& seeds,
                 const std::vector<std::int64_t>& counts, bool antithetic) {
  if (seeds.size() != counts.size())
    fail("seeds", std::to_string(counts.size()) + " specs", std::to_string(seeds.size()));
  for (std::size_t i = 0; i < counts.size(); ++i)
    if (static_cast<std::int64_t>(seeds[i].size()) != counts[i])
      fail("seeds", std::to_string(counts[i]) + " seeds for spec " + std::to_string(i),
           std::to_string(seeds[i].size()));
  if (!antithetic) return;
  for (std::size_t i = 0; i < counts.size(); ++i)
    for (std::size_t v = 2; v < seeds[i].size(); v += 2)
      if (seeds[i][v] != seeds[i][v - 1])
        fail("seeds",
             "the seed of vendor " + std::to_string(v - 1) + " for vendor " + std::to_string(v) +
                 " too, its antithetic one in spec " + std::to_string(i),
             std::to_string(seeds[i][v]));
}

// What upstream sampling and a line search mean is settled for shared paths alone.
void check_plan_options(const OptimizerOptions& options, bool sampling) {
  const std::string plan = "'" + plan_name(options.plan) + "'";
  const bool shared = options.plan == PlanKind::tree || options.plan == PlanKind::star;
  if (sampling && options.plan != PlanKind::tree)
    fail("plan", "'tree' with upstream_sampling", plan);
  if (options.meta_learning_rate && !shared)
    fail("plan", "'tree' or 'star' with meta_learning_rate", plan);
  if (options.meta_learning_rate && options.rule.kind != RuleKind::unit)
    fail("update", "'unit' with meta_learning_rate", "'" + rule_name(options.rule.kind) + "'");
  // its scales follow from the seeds, which the two of a pair share
  if (options.meta_learning_rate && options.antithetic)
    fail("antithetic", "False with meta_learning_rate", "True");
  if (options.antithetic && !shared) fail("plan", "'tree' or 'star' with antithetic", plan);
  if (options.plan == PlanKind::node && options.shaping != Shaping::z)
    fail("shaping", "'z' with plan 'node', which measures gradients instead of scores",
         "'" + shaping_name(options.shaping) + "'");
  if (options.plan != PlanKind::scatter && options.control_variate)
    fail("plan", "'scatter' with control_variate", plan);
}

}  // namespace

void Optimizer::check_rate(const std::string& name, float value) {
  if (!std::isfinite(value)) fail(name, "a finite number", std::to_string(value));
}

Optimizer::Optimizer(std::shared_ptr<Market> market, std::vector<std::int64_t> vendor_counts,
                     std::vector<std::int64_t> upstream_sampling, OptimizerOptions chosen,
                     std::optional<std::vector<std::vector<std::uint64_t>>> seeds)
    : options_(std::move(chosen)), market_(std::move(market)), rule_(options_.rule) {
  const std::size_t depth = market_->models().size();
  if (vendor_counts.size() != depth || upstream_sampling.size() != depth)
    fail("optimizer", std::to_string(depth) + " specs", std::to_string(vendor_counts.size()));
  check_rate("learning_rate", options_.learning_rate);
  specs_.resize(depth);
  for (std::size_t i = 0; i < depth; ++i) {
    if (upstream_sampling[i] < 0)
      fail("upstream_sampling", "at least 0", std::to_string(upstream_sampling[i]));
    check_plan_options(options_, upstream_sampling[i] > 0);
    specs_[i].vendor_count = vendor_counts[i];
    specs_[i].upstream_sampling = i == 0 ? 0 : upstream_sampling[i];
    specs_[i].learning_rate = options_.learning_rate;
  }
  if (seeds) check_seeds(*seeds, vendor_counts, options_.antithetic);
  draw(seeds ? *seeds : derive(0, 0, std::vector<bool>(depth, true)));
}

void Optimizer::set_rates(const Rates& rates) {
  options_ = options_with(rates);
}

OptimizerOptions Optimizer::options_with(const Rates& rates) const {
  OptimizerOptions changed = options_;
  static_cast<Rates&>(changed) = rates;
  check_plan_options(changed, false);
  return changed;
}

void Optimizer::check_amplitudes() const {
  for (std::size_t i = 0; i < specs_.size(); ++i) check_rate("probe amplitude", amplitude(i));
}

float Optimizer::learning_rate(std::size_t spec) const {
  return options_.meta_learning_rate ? specs_[spec].learning_rate : options_.learning_rate;
}

float Optimizer::amplitude(std::size_t spec) const {
  return amplitude_at(learning_rate(spec));
}

float Optimizer::amplitude_at(float rate) const {
  if (options_.plan == PlanKind::node) return 0;  // activations are disturbed, weights are not
  return options_.probe_scale ? rate * *options_.probe_scale : rate;
}

std::vector<std::vector<std::uint64_t>> Optimizer::seeds() const {
  std::vector<std::vector<std::uint64_t>> all;
  for (const SpecState& spec : specs_) all.push_back(spec.seeds);
  return all;
}

std::vector<VendorWeights> Optimizer::weights() const {
  std::vector<VendorWeights> all;
  for (const SpecState& spec : specs_) all.push_back(spec.weights);
  return all;
}

std::vector<std::int64_t> Optimizer::vendor_counts() const {
  std::vector<std::int64_t> counts;
  for (const SpecState& spec : specs_) counts.push_back(spec.vendor_count);
  return counts;
}

// leaders: per spec, whether vendor 0 keeps the seed 0.
std::vector<std::vector<std::uint64_t>> Optimizer::derive(std::uint64_t generation,
                                                          std::uint64_t replica,
                                                          const std::vector<bool>& leaders) const {
  std::vector<std::vector<std::uint64_t>> seeds;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    seeds.push_back(derive_seeds(options_.seed, generation, static_cast<int>(i),
                                 specs_[i].vendor_count, leaders[i], replica));
    if (options_.antithetic) pair_seeds(seeds.back());
  }
  return seeds;
}

void Optimizer::draw(const std::vector<std::vector<std::uint64_t>>& seeds) {
  check_amplitudes();
  std::vector<float> amplitudes;
  for (std::size_t i = 0; i < specs_.size(); ++i) amplitudes.push_back(amplitude(i));
  draw(seeds, amplitudes);
}

void Optimizer::draw(const std::vector<std::vector<std::uint64_t>>& seeds,
                     const std::vector<float>& amplitudes) {
  before_search_.reset();
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    SpecState& spec = specs_[i];
    spec.seeds = seeds[i];
    spec.scales.assign(spec.vendor_count, 0.0f);
    spec.weights = {VendorWeights::Kind::seeded, spec.vendor_count, seeds[i], amplitudes[i], {}, {},
                    options_.antithetic};
  }
}

const Plan& Optimizer::plan() {
  if (plan_) return *plan_;
  if (options_.plan == PlanKind::star) return plan_.emplace(star_plan(vendor_counts()));
  if (options_.plan == PlanKind::scatter || options_.plan == PlanKind::node)
    return plan_.emplace(star_plan(std::vector<std::int64_t>(specs_.size(), 1)));
  std::vector<std::vector<std::int32_t>> sampled(specs_.size());
  std::int64_t upstream = specs_[0].vendor_count;
  for (std::size_t i = 1; i < specs_.size(); ++i) {
    const SpecState& spec = specs_[i];
    if (spec.upstream_sampling > 0)
      sampled[i] = sample_upstream(options_.seed, generation_, static_cast<int>(i),
                                   spec.vendor_count, upstream, spec.upstream_sampling, replica_);
    upstream = spec.vendor_count * (spec.upstream_sampling > 0 ? spec.upstream_sampling : upstream);
  }
  return plan_.emplace(tree_plan(vendor_counts(), sampled));
}

void Optimizer::drop_replicas() {
  if (replica_ == 0) return;
  draw(first_seeds_);
  end_replicas();
  forget_probes();
}

// What was measured with other vendors than these.
void Optimizer::forget_probes() {
  leader_.clear();
  gradient_count_ = 0;
}

void Optimizer::end_replicas() {
  replica_ = 0;
  sum_.clear();
  first_seeds_.clear();
  plan_.reset();
}

void Optimizer::draw_replica(std::uint64_t replica) {
  std::vector<bool> leaders;
  for (const SpecState& spec : specs_) leaders.push_back(spec.seeds[0] == 0);
  draw(derive(generation_, replica, leaders));
  replica_ = replica;
  plan_.reset();
  forget_probes();
}

void Optimizer::update_seeds(bool keep_leader) {
  const std::uint64_t next = generation_ + 1;
  draw(derive(next, 0, std::vector<bool>(specs_.size(), keep_leader)));
  generation_ = next;
  end_replicas();
  gradient_count_ = 0;
}

Optimizer::State Optimizer::state() const {
  State state;
  state.rates = options_;
  state.seed = options_.seed;
  state.generation = generation_;
  state.seeds = seeds();
  state.rule = rule_.state();
  for (const SpecState& spec : specs_) {
    state.amplitudes.push_back(spec.weights.amplitude);
    state.learning_rates.push_back(spec.learning_rate);
  }
  return state;
}

void Optimizer::restore(const State& state) {
  check_seeds(state.seeds, vendor_counts(), options_.antithetic);
  if (state.amplitudes.size() != specs_.size() || state.learning_rates.size() != specs_.size())
    fail("resume", std::to_string(specs_.size()) + " amplitudes and learning rates",
         std::to_string(state.amplitudes.size()) + " and " +
             std::to_string(state.learning_rates.size()));
  for (const float value : state.amplitudes) check_rate("probe amplitude", value);
  for (const float value : state.learning_rates) check_rate("learning_rate", value);
  const OptimizerOptions options = options_with(state.rates);
  UpdateRule rule(options.rule);
  rule.restore(state.rule, parameter_counts());
  draw(state.seeds, state.amplitudes);
  rule_ = std::move(rule);
  options_ = options;
  options_.seed = state.seed;
  for (std::size_t i = 0; i < specs_.size(); ++i) specs_[i].learning_rate = state.learning_rates[i];
  generation_ = state.generation;
  end_replicas();
  forget_probes();
}

}  // namespace marketplace
