#include "market/update_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace marketplace {
namespace {

std::vector<double> norms(const Directions& directions, UnitVectorMode mode, Backend& backend) {
  std::vector<double> squares;
  double whole = 0;
  for (const auto& values : directions) {
    squares.push_back(
        backend.squared_norm(values.data(), static_cast<std::int64_t>(values.size())));
    whole += squares.back();
  }
  for (double& square : squares) square = std::sqrt(mode == UnitVectorMode::whole ? whole : square);
  return squares;
}

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
    const auto have = static_cast<std::int64_t>(i < moments.size() ? moments[i].size() : 0);
    if (have != need) fail("resume", std::to_string(need) + " " + where, std::to_string(have));
    for (std::int64_t k = 0; k < have; ++k)
      if (!std::isfinite(moments[i][k]) || moments[i][k] < least)
        fail("resume", "finite " + where + (least < 0 ? "" : ", none below 0"),
             std::to_string(moments[i][k]));
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
  const std::vector<double> length = norms(directions, mode, backend);
  for (std::size_t i = 0; i < directions.size(); ++i) {
    const auto norm = static_cast<float>(length[i]);
    for (float& value : directions[i]) value = norm > 0 ? value / norm : 0.0f;
  }
}

UpdateRule::UpdateRule(RuleOptions options) : options_(options) {
  check_fraction("momentum", options_.momentum);
  check_fraction("second moment", options_.second_moment);
  if (!(options_.epsilon > 0)) fail("update", "epsilon above 0", std::to_string(options_.epsilon));
  if (!(options_.speed > 0)) fail("update", "speed above 0", std::to_string(options_.speed));
}

void UpdateRule::apply(Directions& directions, UnitVectorMode mode, Backend& backend) {
  const bool unit = options_.kind == RuleKind::unit || options_.kind == RuleKind::clipup;
  if (unit) normalise(directions, mode, backend);
  if (options_.kind == RuleKind::unit) return;
  reserve(directions);
  ++state_.steps;
  if (options_.kind == RuleKind::adam) {
    for (std::size_t i = 0; i < directions.size(); ++i) apply_adam(directions[i], i);
    return;
  }
  for (std::size_t i = 0; i < directions.size(); ++i) {
    std::vector<float>& speed = state_.first[i];
    for (std::size_t k = 0; k < speed.size(); ++k)
      speed[k] = options_.momentum * speed[k] + directions[i][k];
  }
  if (options_.kind == RuleKind::clipup) clip(state_.first, mode, backend);
  directions = state_.first;
}

// All memory first: where it runs out, the moments are as they were.
void UpdateRule::reserve(const Directions& directions) {
  if (state_.steps > 0) return;
  Directions zeros;
  for (const auto& values : directions) zeros.emplace_back(values.size(), 0.0f);
  state_.second = has_second() ? zeros : Directions(zeros.size());
  state_.first = std::move(zeros);
}

void UpdateRule::restore(State state, const std::vector<std::int64_t>& counts) {
  const bool used = state.steps > 0;
  if (used && options_.kind == RuleKind::unit)
    fail("resume", "no steps of update 'unit'", std::to_string(state.steps));
  const float infinity = std::numeric_limits<float>::infinity();
  check_moments(state.first, "first", used, -infinity, counts);
  check_moments(state.second, "second", used && has_second(), 0, counts);
  state_ = std::move(state);
}

void UpdateRule::apply_adam(std::vector<float>& direction, std::size_t spec) {
  std::vector<float>& mean = state_.first[spec];
  std::vector<float>& square = state_.second[spec];
  const float b1 = options_.momentum, b2 = options_.second_moment;
  const auto steps = static_cast<double>(state_.steps);
  const auto mean_share = static_cast<float>(1 / (1 - std::pow(static_cast<double>(b1), steps)));
  const auto square_share = static_cast<float>(1 / (1 - std::pow(static_cast<double>(b2), steps)));
  for (std::size_t k = 0; k < direction.size(); ++k) {
    const float d = direction[k];
    mean[k] = b1 * mean[k] + (1 - b1) * d;
    square[k] = b2 * square[k] + (1 - b2) * d * d;
    direction[k] = mean[k] * mean_share / (std::sqrt(square[k] * square_share) + options_.epsilon);
  }
}

void UpdateRule::clip(Directions& directions, UnitVectorMode mode, Backend& backend) const {
  const std::vector<double> length = norms(directions, mode, backend);
  for (std::size_t i = 0; i < directions.size(); ++i) {
    if (length[i] <= options_.speed) continue;
    const auto factor = static_cast<float>(options_.speed / length[i]);
    for (float& value : directions[i]) value *= factor;
  }
}

}  // namespace marketplace
