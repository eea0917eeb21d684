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
  // The updates that directions of these sizes become, in their place or among the moments. mode:
  // what unit and clipup normalise over. Counts as a step once `finish` is called: moments of a
  // first step that a device did not come through are as before it.
  const Directions& apply(Directions& directions, UnitVectorMode mode, Backend& backend);
  void finish();
  // Takes the memory of a first step.
  void reserve(const std::vector<std::int64_t>& counts, Backend& backend);

  // What a resumed run needs; empty before the first update and for `unit`.
  struct State {
    std::uint64_t steps = 0;
    Directions first, second;
  };
  const State& state() const { return state_; }
  // Throws unless the state is one that this rule leaves behind for specs of `counts` parameters.
  void restore(State state, const std::vector<std::int64_t>& counts);

 private:
  bool has_first() const { return options_.kind != RuleKind::unit; }
  bool has_second() const { return options_.kind == RuleKind::adam; }
  State& moments() { return state_.steps > 0 ? state_ : fresh_; }
  AdamStep adam_step() const;

  RuleOptions options_;
  State state_;
  State fresh_;  // zeros for a first step
};

// Divides by the norm of each, or of all together; a zero direction stays.
void normalise(Directions& directions, UnitVectorMode mode, Backend& backend);

// Zeros for specs of `counts` parameters, their memory taken where the backend computes.
Directions zeros(const std::vector<std::int64_t>& counts, Backend& backend);

}  // namespace marketplace
