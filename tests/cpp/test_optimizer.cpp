#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "market/optimizer.h"
#include "market/plan.h"
#include "market/seeds.h"
#include "markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

OptimizerOptions options_of(PlanKind plan, std::optional<float> meta = std::nullopt) {
  OptimizerOptions options;
  options.plan = plan;
  options.learning_rate = 0.1f;
  options.probe_scale = 0.5f;
  options.meta_learning_rate = meta;
  options.seed = 11;
  return options;
}

Optimizer make(int threads, const OptimizerOptions& options) {
  return Optimizer(small_market(threads), {3, 2, 4}, {0, 0, 0}, options, std::nullopt);
}

Optimizer make(int threads, PlanKind plan, std::optional<float> meta = std::nullopt) {
  OptimizerOptions options = options_of(plan, meta);
  options.control_variate = plan == PlanKind::scatter;
  return make(threads, options);
}

std::vector<float> weights_after(Optimizer& optimizer, int steps) {
  const SmallBatch data;
  for (int t = 0; t < steps; ++t) {
    const Probe found = optimizer.probe(data.batch(), data.labels());
    optimizer.step(found.losses, found.paths, UnitVectorMode::per_spec);
  }
  std::vector<float> all;
  for (const auto& model : optimizer.market().models())
    all.insert(all.end(), model->values(), model->values() + model->parameter_count());
  return all;
}

float base_loss(Optimizer& optimizer) {
  const SmallBatch data;
  std::vector<float> losses(13);
  optimizer.market().base_losses(data.batch(), data.labels(), losses.data());
  return std::accumulate(losses.begin(), losses.end(), 0.0f) / 13.0f;
}

}  // namespace

TEST_CASE("training lowers the loss, with the same bits for any number of threads") {
  for (PlanKind plan : {PlanKind::tree, PlanKind::star, PlanKind::scatter}) {
    Optimizer one = make(1, plan), three = make(3, plan);
    const float before = base_loss(one);
    CHECK(weights_after(one, 30) == weights_after(three, 30));
    CHECK(base_loss(one) < before);
  }
}

TEST_CASE("directions are unit vectors, per spec or as a whole") {
  Optimizer optimizer = make(2, PlanKind::tree);
  const SmallBatch data;
  const auto [losses, paths] = optimizer.probe(data.batch(), data.labels());
  bool degenerate = true;
  const auto norm = [](const Vector& values) {
    double sum = 0;
    for (std::int64_t k = 0; k < values.size(); ++k)
      sum += static_cast<double>(values.data()[k]) * values.data()[k];
    return sum;
  };
  for (const auto& spec : optimizer.direction(losses, paths, UnitVectorMode::per_spec, degenerate))
    CHECK(norm(spec) == doctest::Approx(1).epsilon(1e-5));
  CHECK_FALSE(degenerate);
  double whole = 0;
  for (const auto& spec : optimizer.direction(losses, paths, UnitVectorMode::whole, degenerate))
    whole += norm(spec);
  CHECK(whole == doctest::Approx(1).epsilon(1e-5));
}

TEST_CASE("a step with equal losses moves nothing but the seeds") {
  Optimizer optimizer = make(1, PlanKind::tree);
  const auto before = weights_after(optimizer, 0);
  const auto seeds = optimizer.specs()[0].seeds;
  const auto paths = plan_paths(optimizer.plan());
  CHECK(optimizer.step(std::vector<float>(24, 1.0f), paths, UnitVectorMode::whole));
  CHECK(weights_after(optimizer, 0) == before);
  CHECK(optimizer.specs()[0].seeds != seeds);
}

TEST_CASE("state and weights restored go on with the same bits") {
  Optimizer first = make(1, PlanKind::star), second = make(2, PlanKind::star);
  const auto middle = weights_after(first, 5);
  const Optimizer::State state = first.state();
  std::int64_t offset = 0;
  for (const auto& model : second.market().models()) {
    std::copy_n(middle.data() + offset, model->parameter_count(), model->values());
    offset += model->parameter_count();
  }
  second.restore(state);
  CHECK(weights_after(first, 5) == weights_after(second, 5));
}

TEST_CASE("replicas add up to one unit vector, with the same bits for any number of threads") {
  const auto update = [](int threads) {
    Optimizer optimizer = make(threads, PlanKind::star);
    const SmallBatch data;
    for (int r = 0; r < 3; ++r) {
      CHECK(optimizer.replica() == static_cast<std::uint64_t>(r));
      const auto [losses, paths] = optimizer.probe(data.batch(), data.labels());
      if (r < 2)
        optimizer.add_replica(losses, paths, UnitVectorMode::whole);
      else
        optimizer.step(losses, paths, UnitVectorMode::whole);
    }
    CHECK(optimizer.replica() == 0);
    CHECK(optimizer.generation() == 1);
    return weights_after(optimizer, 0);
  };
  Optimizer untouched = make(1, PlanKind::star);
  const auto before = weights_after(untouched, 0), after = update(1);
  double moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    moved += (double{after[i]} - before[i]) * (double{after[i]} - before[i]);
  CHECK(std::sqrt(moved) == doctest::Approx(0.1).epsilon(1e-4));
  CHECK(after == update(3));
}

TEST_CASE("dropped replicas leave the first vendors") {
  Optimizer optimizer = make(1, PlanKind::tree);
  const SmallBatch data;
  const auto losses = [&] { return optimizer.probe(data.batch(), data.labels()).losses; };
  const auto [first, paths] = optimizer.probe(data.batch(), data.labels());
  optimizer.add_replica(first, paths, UnitVectorMode::per_spec);
  CHECK(losses() != first);
  CHECK_THROWS_AS(optimizer.keep_best(first, paths), Error);
  optimizer.drop_replicas();
  CHECK(losses() == first);
}

TEST_CASE("the line search scales vendors around the leader") {
  Optimizer optimizer = make(1, PlanKind::tree, 0.5f);
  const SmallBatch data;
  const Probe found = optimizer.probe(data.batch(), data.labels());
  bool degenerate = false;
  const auto directions =
      optimizer.direction(found.losses, found.paths, UnitVectorMode::per_spec, degenerate);
  optimizer.update_lr_scales(directions);
  CHECK(optimizer.specs()[2].scales[0] == 0.0f);
  CHECK(optimizer.specs()[2].scales[1] != 0.0f);
  for (float scale : optimizer.specs()[2].scales) CHECK(std::abs(scale) <= 0.5f);
  optimizer.update_weights(directions, std::vector<float>{0.2f, 0.3f, 0.4f});
  optimizer.update_seeds(true);
  CHECK(optimizer.learning_rate(1) == 0.3f);
  CHECK(optimizer.specs()[1].weights.amplitude == doctest::Approx(0.15f));
  CHECK_THROWS_AS(make(1, PlanKind::tree).update_lr_scales(directions), Error);
}

TEST_CASE("a line search whose direction stays inside is the same") {
  Optimizer whole = make(1, PlanKind::tree, 0.5f), parts = make(1, PlanKind::tree, 0.5f);
  CHECK_THROWS_WITH_AS(whole.end_search({0.2f, 0.3f, 0.4f}), doctest::Contains("none"), Error);
  const SmallBatch data;
  const Probe found = whole.probe(data.batch(), data.labels());
  bool degenerate = true;
  const auto directions =
      parts.direction(found.losses, found.paths, UnitVectorMode::whole, degenerate);
  CHECK(whole.start_search(found.losses, found.paths, UnitVectorMode::whole) == degenerate);
  parts.update_lr_scales(directions);
  CHECK(whole.probe(data.batch(), data.labels()).losses ==
        parts.probe(data.batch(), data.labels()).losses);
  const std::vector<float> rates{0.2f, 0.3f, 0.4f};
  CHECK_THROWS_AS(whole.end_search({0.2f}), Error);
  whole.end_search(rates);
  parts.update_weights(directions, rates);
  parts.update_seeds(true);
  CHECK(whole.state().learning_rates == rates);
  for (std::size_t i = 0; i < rates.size(); ++i)
    CHECK(whole.market().model(i).weights() == parts.market().model(i).weights());
}

TEST_CASE("seeds and directions of the wrong length are refused") {
  CHECK_THROWS_WITH_AS(
      Optimizer(small_market(1), {3, 2, 4}, {0, 0, 0}, options_of(PlanKind::tree),
                std::vector<std::vector<std::uint64_t>>{{0, 1, 2}, {0}, {0, 1, 2, 3}}),
      "seeds: expected 2 seeds for spec 1, received 1", Error);
  Optimizer optimizer = make(1, PlanKind::tree);
  const auto before = weights_after(optimizer, 0);
  CHECK_THROWS_AS(optimizer.update_weights({{1}, {2}, {3}}, std::nullopt), Error);
  CHECK(weights_after(optimizer, 0) == before);
}

TEST_CASE("a scatter deals every vendor out evenly, anew in each generation") {
  const std::vector<std::int64_t> counts{3, 1, 4};
  const auto paths = sample_paths(7, 2, 12, counts);
  for (std::size_t i = 0; i < 3; ++i)
    for (int v = 0; v < counts[i]; ++v) {
      int met = 0;
      for (int b = 0; b < 12; ++b) met += paths[b * 3 + i] == v;
      CHECK(met == 12 / counts[i]);
    }
  CHECK(paths == sample_paths(7, 2, 12, counts));
  CHECK(paths != sample_paths(7, 3, 12, counts));
  CHECK(paths != sample_paths(8, 2, 12, counts));
}

TEST_CASE("the control variate takes the base weights' loss off every sample's") {
  const SmallBatch data;
  const Labels labels = data.labels();
  Optimizer a = make(1, options_of(PlanKind::scatter)), b = make(1, PlanKind::scatter);
  const Probe whole = a.probe(data.batch(), labels), rest = b.probe(data.batch(), labels);
  std::vector<float> base(13);
  a.market().base_losses(data.batch(), labels, base.data());
  CHECK(whole.paths == rest.paths);
  for (int i = 0; i < 13; ++i) CHECK(rest.losses[i] == whole.losses[i] - base[i]);
}

TEST_CASE("options that do not fit the plan are refused") {
  const auto refused = [](OptimizerOptions options, std::int64_t sampling) {
    CHECK_THROWS_AS(Optimizer(small_market(1), {3, 2, 4}, {0, sampling, 0}, options, {}), Error);
  };
  for (PlanKind plan : {PlanKind::star, PlanKind::scatter, PlanKind::node})
    refused(options_of(plan), 1);
  for (PlanKind plan : {PlanKind::scatter, PlanKind::node}) refused(options_of(plan, 0.5f), 0);
  OptimizerOptions control = options_of(PlanKind::tree);
  control.control_variate = true;
  refused(control, 0);
  OptimizerOptions searching = options_of(PlanKind::tree, 0.5f);
  searching.rule.kind = RuleKind::adam;
  refused(searching, 0);
}
