#include "market/update_rule.h"

#include <algorithm>
#include <cmath>

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
  state_.first.resize(directions.size());
  state_.second.resize(directions.size());
  ++state_.steps;
  for (std::size_t i = 0; i < directions.size(); ++i) {
    state_.first[i].resize(directions[i].size());
    if (options_.kind == RuleKind::adam) {
      apply_adam(directions[i], i);
      continue;
    }
    std::vector<float>& speed = state_.first[i];
    for (std::size_t k = 0; k < speed.size(); ++k)
      speed[k] = options_.momentum * speed[k] + directions[i][k];
  }
  if (options_.kind == RuleKind::adam) return;
  if (options_.kind == RuleKind::clipup) clip(state_.first, mode, backend);
  directions = state_.first;
}

void UpdateRule::apply_adam(std::vector<float>& direction, std::size_t spec) {
  std::vector<float>& mean = state_.first[spec];
  std::vector<float>& square = state_.second[spec];
  square.resize(direction.size());
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
