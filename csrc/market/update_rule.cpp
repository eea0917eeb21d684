#include "market/update_rule.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace marketplace {
namespace {

void check_fraction(const std::string& name, float value) {
  if (!(value >= 0 && value < 1))
    fail("update", name + " of at least 0 and below 1", std::to_string(value));
}

// Of specs with `counts` parameters: finite ones of at least `least`, or, if not wanted, none.
void check_moments(const Directions& moments, const std::string& name, bool wanted, float least,
                   const std::vector<std::int64_t>& counts) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::string where = name + " moments for spec " + std::to_string(i);
    const std::int64_t need = wanted ? counts[i] : 0;
    const std::int64_t have = i < moments.size() ? moments[i].size() : 0;
    if (have != need) fail("resume", std::to_string(need) + " " + where, std::to_string(have));
    const float* values = have > 0 ? moments[i].data() : nullptr;
    for (std::int64_t k = 0; k < have; ++k)
      if (!std::isfinite(values[k]) || values[k] < least)
        fail("resume", "finite " + where + (least < 0 ? "" : ", none below 0"),
             std::to_string(values[k]));
  }
}

}  // namespace

RuleKind rule_kind(const std::string& name) {
  if (name == "unit") return RuleKind::unit;
  if (name == "momentum") return RuleKind::momentum;
  if (name == "clipup") return RuleKind::clipup;
  if (name == "adam") return RuleKind::adam;
  fail("update", "'unit', 'momentum', 'clipup' or 'adam'", "'" + name + "'");
}

std::string rule_name(RuleKind kind) {
  switch (kind) {
    case RuleKind::unit: return "unit";
    case RuleKind::momentum: return "momentum";
    case RuleKind::clipup: return "clipup";
    case RuleKind::adam: return "adam";
  }
  return "?";
}

void normalise(Directions& directions, UnitVectorMode mode, Backend& backend) {
  backend.normalise(directions, mode == UnitVectorMode::whole);
}

Directions zeros(const std::vector<std::int64_t>& counts, Backend& backend) {
  Directions made;
  for (const std::int64_t count : counts) {
    made.emplace_back(count);
    backend.reserve(made.back());
  }
  return made;
}

UpdateRule::UpdateRule(RuleOptions options) : options_(options) {
  check_fraction("momentum", options_.momentum);
  check_fraction("second moment", options_.second_moment);
  if (!(options_.epsilon > 0)) fail("update", "epsilon above 0", std::to_string(options_.epsilon));
  if (!(options_.speed > 0)) fail("update", "speed above 0", std::to_string(options_.speed));
}

const Directions& UpdateRule::apply(Directions& directions, UnitVectorMode mode, Backend& backend) {
  const bool unit = options_.kind == RuleKind::unit || options_.kind == RuleKind::clipup;
  if (unit) normalise(directions, mode, backend);
  if (options_.kind == RuleKind::unit) return directions;
  std::vector<std::int64_t> counts;
  for (const Vector& values : directions) counts.push_back(values.size());
  reserve(counts, backend);
  Directions &first = moments().first, &second = moments().second;
  if (options_.kind == RuleKind::adam) {
    for (std::size_t i = 0; i < directions.size(); ++i)
      backend.adam(directions[i], first[i], second[i], adam_step());
    return directions;
  }
  for (std::size_t i = 0; i < directions.size(); ++i)
    backend.decay_add(first[i], options_.momentum, directions[i]);
  if (options_.kind == RuleKind::clipup)
    backend.clip(first, mode == UnitVectorMode::whole, options_.speed);
  return first;
}

void UpdateRule::finish() {
  if (!has_first()) return;
  if (state_.steps == 0) state_ = std::move(fresh_);
  ++state_.steps;
}

// All memory first: where it runs out, the moments are as they were.
void UpdateRule::reserve(const std::vector<std::int64_t>& counts, Backend& backend) {
  if (!has_first() || state_.steps > 0 || !fresh_.first.empty()) return;
  State fresh;
  fresh.first = zeros(counts, backend);
  fresh.second = has_second() ? zeros(counts, backend) : Directions(counts.size());
  fresh_ = std::move(fresh);
}

void UpdateRule::restore(State state, const std::vector<std::int64_t>& counts) {
  const bool used = state.steps > 0;
  if (used && options_.kind == RuleKind::unit)
    fail("resume", "no steps of update 'unit'", std::to_string(state.steps));
  const float infinity = std::numeric_limits<float>::infinity();
  check_moments(state.first, "first", used, -infinity, counts);
  check_moments(state.second, "second", used && has_second(), 0, counts);
  state_ = std::move(state);
  fresh_ = {};
}

AdamStep UpdateRule::adam_step() const {
  const auto steps = static_cast<double>(state_.steps + 1);
  const auto share = [&](float b) {
    return static_cast<float>(1 / (1 - std::pow(static_cast<double>(b), steps)));
  };
  const float b1 = options_.momentum, b2 = options_.second_moment;
  return {b1, b2, share(b1), share(b2), options_.epsilon};
}

}  // namespace marketplace
