// From a direction of improvement d to what a learning rate multiplies: W += lr * rule(d).
//   unit      d / |d|, the norm over a spec or over all of them (see UnitVectorMode)
//   momentum  m = b1 m + d                     (Polyak 1964)
//   clipup    v = b1 v + d / |d|, and v cut to a length of at most `speed` (Toklu et al. 2020)
//   adam      m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps) with m = b1 m + (1 - b1) d and
//             s = b2 s + (1 - b2) d^2, element by element (Kingma & Ba 2015)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend.h"
#include "market/coefficients.h"

namespace marketplace {

using Directions = std::vector<std::vector<float>>;  // per spec (n,)

enum class RuleKind { unit, momentum, clipup, adam };

RuleKind rule_kind(const std::string& name);
std::string rule_name(RuleKind kind);

struct RuleOptions {
  RuleKind kind = RuleKind::unit;
  float momentum = 0.9f;        // b1
  float second_moment = 0.99f;  // b2, of adam
  float epsilon = 1e-8f;        // of adam
  float speed = 2;              // of clipup, in learning rates
};

class UpdateRule {
 public:
  explicit UpdateRule(RuleOptions options);

  const RuleOptions& options() const { return options_; }
  // Turns directions into updates in place. mode: what unit and clipup normalise over.
  void apply(Directions& directions, UnitVectorMode mode, Backend& backend);

  // What a resumed run needs; empty before the first update and for `unit`.
  struct State {
    std::uint64_t steps = 0;
    Directions first, second;
  };
  const State& state() const { return state_; }
  // Throws unless the state is one that this rule leaves behind for specs of `counts` parameters.
  void restore(State state, const std::vector<std::int64_t>& counts);

 private:
  bool has_second() const { return options_.kind == RuleKind::adam; }
  void reserve(const Directions& directions);
  void apply_adam(std::vector<float>& direction, std::size_t spec);
  void clip(Directions& directions, UnitVectorMode mode, Backend& backend) const;

  RuleOptions options_;
  State state_;
};

// Divides by the norm of each, or of all together; a zero direction stays.
void normalise(Directions& directions, UnitVectorMode mode, Backend& backend);

}  // namespace marketplace
