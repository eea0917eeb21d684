// Optimizers over markets of their own on the emulated GPU, to take steps in two ways.
#pragma once

#include "gpu_markets.h"
#include "market/optimizer.h"

namespace marketplace::tests {

inline constexpr PlanKind kPlans[] = {PlanKind::tree, PlanKind::star};

inline OptimizerOptions options_of(PlanKind plan, RuleKind rule, Shaping shaping) {
  OptimizerOptions options;
  options.plan = plan;
  options.learning_rate = 0.1f;
  options.probe_scale = 0.5f;
  options.seed = 11;
  options.rule.kind = rule;
  options.rule.speed = 0.9f;  // so that clipup cuts
  options.shaping = shaping;
  return options;
}

// A market of its own on some GPUs, and an optimizer over it.
struct Trainee {
  Models models;
  Optimizer optimizer;
  Trainee(Models own, const std::vector<std::int64_t>& counts, const OptimizerOptions& options,
          int devices, std::int64_t max_memory_bytes = 0)
      : models(std::move(own)),
        optimizer(on_gpu(models, DType::float32, first(devices), max_memory_bytes), counts,
                  std::vector<std::int64_t>(counts.size(), 0), options, std::nullopt) {}

  std::vector<Vector> state() const { return state_of(optimizer, models); }
};

inline void lower_rate(Optimizer& optimizer) {
  Rates rates = optimizer.options();
  rates.learning_rate *= 0.9f;
  optimizer.set_rates(rates);
}

inline Models tiny_models() {
  return {linear_model(7, 5, true, 1), linear_model(5, 3, false, 2)};
}

}  // namespace marketplace::tests
