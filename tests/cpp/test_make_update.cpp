#include <doctest/doctest.h>

#include "core/error.h"
#include "market/optimizer.h"
#include "markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

Optimizer make(int threads, RuleKind rule) {
  OptimizerOptions options;
  options.plan = PlanKind::star;
  options.learning_rate = 0.1f;
  options.probe_scale = 0.5f;
  options.seed = 11;
  options.rule.kind = rule;
  return Optimizer(small_market(threads), {3, 2, 4}, {0, 0, 0}, options, std::nullopt);
}

std::vector<float> weights(Optimizer& optimizer) {
  std::vector<float> all;
  for (const auto& model : optimizer.market().models())
    all.insert(all.end(), model->values(), model->values() + model->parameter_count());
  return all;
}

}  // namespace

TEST_CASE("a step is made of what it gathers, and of nothing else but the rule's past") {
  for (RuleKind kind : {RuleKind::unit, RuleKind::momentum, RuleKind::clipup, RuleKind::adam}) {
    Optimizer stepped = make(2, kind), taken = make(1, kind);
    const SmallBatch data;
    for (int t = 0; t < 3; ++t) {
      const Probe probe = stepped.probe(data.batch(), data.labels());
      bool degenerate = true;
      const Directions sums =
          stepped.gather(probe.losses, probe.paths, UnitVectorMode::whole, degenerate);
      CHECK_FALSE(degenerate);
      stepped.step(probe.losses, probe.paths, UnitVectorMode::whole);
      taken.update_weights(taken.make_update(sums, UnitVectorMode::whole), std::nullopt);
      CHECK(weights(stepped) == weights(taken));
    }
    CHECK_THROWS_AS(taken.make_update({{1}}, UnitVectorMode::whole), Error);
  }
}
