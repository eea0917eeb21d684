// What an optimizer does with losses: coefficients, directions, updates.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/threefry.h"
#include "market/optimizer.h"
#include "market/topk.h"

namespace marketplace {

void Optimizer::check_sum_mode(UnitVectorMode mode) const {
  if (replica_ > 0 && mode != sum_mode_)
    fail("unit_vector_mode", "the one of the earlier replicas", "another one");
}

std::vector<std::int64_t> Optimizer::parameter_counts() const {
  std::vector<std::int64_t> counts;
  for (const auto& model : market_->models()) counts.push_back(model->parameter_count());
  return counts;
}

// The memory of an update is taken before the probe, whose own is cut to what is left.
void Optimizer::reserve() {
  if (work_.empty()) work_ = zeros(parameter_counts(), market_->backend());
  rule_.reserve(parameter_counts(), market_->backend());
}

// g of one spec, not normalised, for the coefficients of its vendors; of node perturbation, a share
// of the mean of the minibatches' gradients downhill.
void Optimizer::own_direction(std::size_t spec, const Coefficients& coefficients, float share,
                              Vector& out) {
  Backend& backend = market_->backend();
  const Model& model = market_->model(spec);
  if (options_.plan != PlanKind::node)
    return backend.combine(model, specs_[spec].weights, coefficients.values[spec], out);
  backend.combine(model, VendorWeights{}, {}, out);
  backend.add_scaled(out, gradients_[spec], -share / static_cast<float>(gradient_count_));
}

// Checks the losses and gives their coefficients; node perturbation has none.
Coefficients Optimizer::weigh(const std::vector<float>& losses,
                              const std::vector<std::int32_t>& paths, UnitVectorMode mode) const {
  check_sum_mode(mode);
  if (options_.plan != PlanKind::node)
    return direction_coefficients(options_.plan, mode, options_.shaping, losses, paths,
                                  vendor_counts());
  check_losses(losses, paths, vendor_counts());
  if (gradient_count_ == 0)
    fail(ErrorKind::runtime, "step", "a probe before every step of plan 'node'",
         "none since the last step");
  const std::int64_t bad = market_->backend().first_not_finite(gradients_);
  if (bad >= 0)
    fail("step", "finite gradients", "infinite ones or NaN in spec " + std::to_string(bad));
  return {};
}

bool Optimizer::add_replica(const std::vector<float>& losses,
                            const std::vector<std::int32_t>& paths, UnitVectorMode mode) {
  const Coefficients coefficients = weigh(losses, paths, mode);
  check_amplitudes();
  reserve();
  Backend& backend = market_->backend();
  if (sum_.empty()) sum_ = zeros(parameter_counts(), backend);
  backend.together([&] {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      own_direction(i, coefficients, 1.0f, work_[i]);
      backend.add_scaled(sum_[i], work_[i], 1.0f);
    }
  });
  if (replica_ == 0) first_seeds_ = seeds();
  draw_replica(replica_ + 1);
  sum_mode_ = mode;
  return coefficients.degenerate;
}

Directions Optimizer::gather(const std::vector<float>& losses,
                             const std::vector<std::int32_t>& paths, UnitVectorMode mode,
                             bool& degenerate) {
  const Coefficients coefficients = weigh(losses, paths, mode);
  degenerate = coefficients.degenerate;
  Directions out = zeros(parameter_counts(), market_->backend());
  market_->backend().together([&] { gather_into(out, coefficients); });
  return out;
}

void Optimizer::gather_into(Directions& out, const Coefficients& coefficients) {
  // a sum of scores is normalised before it is used, but gradients keep their size
  const float share =
      options_.plan == PlanKind::node ? 1.0f / static_cast<float>(replica_ + 1) : 1.0f;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    own_direction(i, coefficients, share, out[i]);
    if (replica_ > 0) market_->backend().add_scaled(out[i], sum_[i], share);
  }
}

Directions Optimizer::direction(const std::vector<float>& losses,
                                const std::vector<std::int32_t>& paths, UnitVectorMode mode,
                                bool& degenerate) {
  Directions out = gather(losses, paths, mode, degenerate);
  normalise(out, mode, market_->backend());
  return out;
}

void Optimizer::check_directions(const Directions& directions) const {
  if (directions.size() != specs_.size())
    fail("direction", std::to_string(specs_.size()) + " specs", std::to_string(directions.size()));
  for (std::size_t i = 0; i < specs_.size(); ++i)
    if (directions[i].size() != market_->model(i).parameter_count())
      fail("direction",
           std::to_string(market_->model(i).parameter_count()) + " values for spec " +
               std::to_string(i),
           std::to_string(directions[i].size()));
}

void Optimizer::update_weights(const Directions& directions,
                               const std::optional<std::vector<float>>& learning_rates) {
  check_directions(directions);
  const std::vector<float> rates = checked_rates(learning_rates);
  change_weights([&] {
    for (std::size_t i = 0; i < specs_.size(); ++i) move_weights(i, directions[i], rates[i]);
  });
  if (learning_rates) keep_rates(rates);
}

// work() moves weights; batch norms take what the leader saw.
void Optimizer::change_weights(const std::function<void()>& work) {
  market_->change([&] {
    market_->backend().together(work);
    absorb_leader();
  });
}

// The given rates, or the specs' present ones.
std::vector<float> Optimizer::checked_rates(const std::optional<std::vector<float>>& given) const {
  if (given && given->size() != specs_.size())
    fail("learning_rates", std::to_string(specs_.size()) + " values",
         std::to_string(given->size()));
  std::vector<float> rates;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    rates.push_back(given ? (*given)[i] : learning_rate(i));
    check_rate("learning_rate", rates[i]);
  }
  return rates;
}

void Optimizer::keep_rates(const std::vector<float>& rates) {
  for (std::size_t i = 0; i < specs_.size() && options_.meta_learning_rate; ++i)
    specs_[i].learning_rate = rates[i];
}

void Optimizer::move_weights(std::size_t spec, const Vector& update, float rate) {
  market_->backend().add_scaled(market_->model(spec).weights(), update, rate);
}

void Optimizer::update_lr_scales(Directions directions) {
  if (!options_.meta_learning_rate)
    fail(ErrorKind::runtime, "update_lr_scales", "an optimizer with meta_learning_rate", "none");
  check_rate("meta_learning_rate", *options_.meta_learning_rate);
  check_directions(directions);
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    SpecState& spec = specs_[i];
    const std::uint32_t counter = market_->model(i).counter_end();
    std::vector<float> factors(spec.vendor_count);
    for (std::int64_t v = 0; v < spec.vendor_count; ++v) {
      // a scalar tensor is one block, whose second counter word is one behind the first
      const RandomWords words = threefry2x32(spec.seeds[v], counter, counter + 1);
      const bool still = v == 0 || spec.seeds[v] == 0;
      spec.scales[v] = still ? 0.0f : word_to_delta(words.lane0, *options_.meta_learning_rate);
      factors[v] = spec.learning_rate * (1.0f + spec.scales[v]);
    }
    spec.weights = {VendorWeights::Kind::scaled,
                    spec.vendor_count,
                    {},
                    0,
                    factors,
                    std::make_shared<const Vector>(std::move(directions[i])),
                    false};
  }
}

// What the rule makes of g; counted by rule_.finish().
const Directions& Optimizer::propose(Directions& sums, UnitVectorMode mode) {
  // z-scores have no scale of their own, measured gradients do
  const bool scaleless = options_.plan != PlanKind::node;
  if (scaleless && options_.rule.kind != RuleKind::unit) normalise(sums, mode, market_->backend());
  return rule_.apply(sums, mode, market_->backend());
}

Directions Optimizer::make_update(Directions sums, UnitVectorMode mode) {
  check_directions(sums);
  const Directions* made = nullptr;
  market_->backend().together([&] { made = &propose(sums, mode); });
  if (made != &sums) sums = *made;
  rule_.finish();
  return sums;
}

// The specs' rates, once everything is known to be finite that the step will need.
std::vector<float> Optimizer::rates_of_step() const {
  std::vector<float> rates = checked_rates(std::nullopt);
  // of the vendors that are drawn at last
  check_amplitudes();
  return rates;
}

// Weights follow what the rule makes of the sums in work_.
void Optimizer::move_along(UnitVectorMode mode, const std::vector<float>& rates) {
  const Directions& update = propose(work_, mode);
  for (std::size_t i = 0; i < specs_.size(); ++i) move_weights(i, update[i], rates[i]);
}

void Optimizer::next_generation() {
  update_seeds(true);
  ++step_count_;
}

bool Optimizer::step(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                     UnitVectorMode mode) {
  const Coefficients coefficients = weigh(losses, paths, mode);
  const std::vector<float> rates = rates_of_step();
  reserve();
  change_weights([&] {
    gather_into(work_, coefficients);
    move_along(mode, rates);
  });
  rule_.finish();
  next_generation();
  return coefficients.degenerate;
}

void Optimizer::check_keeps_best() const {
  if (options_.plan == PlanKind::node)
    fail("keep_best", "a plan whose vendors have weights", "'node'");
  if (replica_ > 0)
    fail(ErrorKind::runtime, "keep_best", "an update without earlier replicas",
         std::to_string(replica_));
  // of the vendors that are drawn at last
  check_amplitudes();
}

std::int64_t Optimizer::keep_best(const std::vector<float>& losses,
                                  const std::vector<std::int32_t>& paths) {
  check_losses(losses, paths, vendor_counts());
  check_keeps_best();
  const std::int64_t best = lowest(losses);
  reserve();
  change_weights([&] {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      std::vector<double> chosen(specs_[i].vendor_count, 0.0);
      chosen[paths[best * specs_.size() + i]] = 1.0;
      market_->backend().combine(market_->model(i), specs_[i].weights, chosen, work_[i]);
      move_weights(i, work_[i], 1.0f);
    }
  });
  next_generation();
  return best;
}

}  // namespace marketplace
