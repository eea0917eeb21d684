// Whole steps on the emulated GPU: losses that never meet the host before the weights have followed
// them, with the bits of a probe and its step.
#include <doctest/doctest.h>

#include <limits>

#include "api.h"
#include "core/error.h"
#include "gpu/scorer.h"
#include "gpu/split.h"
#include "gpu_markets.h"
#include "market/optimizer.h"
#include "trainees.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

constexpr UnitVectorMode kModes[] = {UnitVectorMode::per_spec, UnitVectorMode::whole};
constexpr Shaping kShapings[] = {Shaping::z, Shaping::rank, Shaping::sign, Shaping::best};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// -- scoring alone --------------------------------------------------------------------------------

struct PlannedMarket {
  std::vector<std::int64_t> counts;
  Plan plan;
  std::vector<std::int32_t> paths;
};

PlannedMarket market_of(PlanKind kind, std::vector<std::int64_t> counts) {
  Plan plan = kind == PlanKind::star ? star_plan(counts) : tree_plan(counts, {});
  std::vector<std::int32_t> paths = plan_paths(plan);
  return {std::move(counts), std::move(plan), std::move(paths)};
}

struct Scored {
  std::vector<std::vector<float>> coefficients;
  std::vector<gpu::Verdict> verdicts;  // per device
};

// Publishes made-up losses on every device of a team, and reads what each made of them.
Scored score_on_gpu(int devices, const PlannedMarket& market, const Scoring& scoring,
                    const std::vector<float>& losses) {
  std::vector<std::shared_ptr<gpu::Device>> opened;
  for (const int index : first(devices))
    opened.push_back(std::make_shared<gpu::Device>(index, DType::float32, 0));
  const auto team = std::make_shared<gpu::Team>(opened);
  const std::vector<Part> parts =
      gpu::split_plan(market.plan, std::vector<std::int64_t>(market.counts.size(), 100), devices,
                      std::vector<std::int64_t>(market.counts.size(), -1));
  const gpu::Scorer scorer(team, scoring, parts);
  CHECK(scorer.serves(scoring, parts));
  for (std::size_t d = 0; d < parts.size(); ++d) {
    std::vector<float> mine;
    for (const std::int64_t path : parts[d].paths) mine.push_back(losses[path]);
    mine.push_back(0);
    gpu::copy_to_device_now(scorer.losses(d), mine.data(),
                            static_cast<std::int64_t>(mine.size()) * 4, team->stream(d));
  }
  team->together([&] { scorer.add_tasks(); });
  Scored scored;
  for (std::size_t d = 0; d < team->size(); ++d) {
    gpu::Verdict verdict;
    gpu::copy_to_host(&verdict, scorer.verdicts()[d], sizeof verdict, team->stream(d));
    std::vector<std::vector<float>> found;
    for (std::size_t i = 0; i < market.counts.size(); ++i) {
      found.emplace_back(market.counts[i]);
      gpu::copy_to_host(found.back().data(), scorer.coefficients(i)[d], market.counts[i] * 4,
                        team->stream(d));
    }
    team->stream(d).synchronize();
    if (d > 0) CHECK(found == scored.coefficients);
    scored.coefficients = found;
    scored.verdicts.push_back(verdict);
  }
  return scored;
}

std::vector<std::vector<float>> narrow(const Coefficients& coefficients) {
  std::vector<std::vector<float>> all;
  for (const auto& values : coefficients.values) all.emplace_back(values.begin(), values.end());
  return all;
}

void check_scores(int devices, PlanKind kind, const PlannedMarket& market,
                  const std::vector<float>& losses) {
  for (const UnitVectorMode mode : kModes)
    for (const Shaping shaping : kShapings) {
      const Scoring scoring{shaping, score_groups(kind, mode, market.paths, market.counts),
                            market.paths, market.counts};
      const Coefficients expected =
          direction_coefficients(kind, mode, shaping, losses, market.paths, market.counts);
      const Scored scored = score_on_gpu(devices, market, scoring, losses);
      CHECK(scored.coefficients == narrow(expected));
      for (const gpu::Verdict& verdict : scored.verdicts) {
        CHECK(verdict.sound == 1);
        CHECK(verdict.degenerate == expected.degenerate);
      }
    }
}

// -- steps ----------------------------------------------------------------------------------------

// What both ways must agree on.
template <class Data>
void check_steps(Trainee& fused, Trainee& composed, const Data& data, UnitVectorMode mode,
                 int steps) {
  for (int step = 0; step < steps; ++step) {
    const TakenStep taken = fused.optimizer.train_step(data.batch(), data.labels(), mode);
    const Probe probe = composed.optimizer.probe(data.batch(), data.labels());
    CHECK(taken.probe.losses == probe.losses);
    CHECK(taken.probe.paths == probe.paths);
    CHECK(taken.degenerate == composed.optimizer.step(probe.losses, probe.paths, mode));
    CHECK(fused.optimizer.generation() == composed.optimizer.generation());
    CHECK(fused.optimizer.rule().state().steps == composed.optimizer.rule().state().steps);
  }
  CHECK(fused.state() == composed.state());
  CHECK(fused.optimizer.state().seeds == composed.optimizer.state().seeds);
}

// Weights and moments before every composed step and after the last; several devices have the bits
// of one.
std::vector<std::vector<Vector>> composed_states(const OptimizerOptions& options, int steps) {
  const SmallBatch data;
  Trainee own(tiny_models(), {2, 3}, options, 1);
  std::vector<std::vector<Vector>> states{own.state()};
  for (int step = 0; step < steps; ++step) {
    const Probe probe = own.optimizer.probe(data.batch(), data.labels());
    own.optimizer.step(probe.losses, probe.paths, UnitVectorMode::whole);
    states.push_back(own.state());
  }
  return states;
}

std::int64_t graphs_of_a_step(Optimizer& optimizer, const SmallBatch& data) {
  const auto before = simt::counts().graph_launches;
  optimizer.train_step(data.batch(), data.labels(), UnitVectorMode::whole);
  return simt::counts().graph_launches - before;
}

}  // namespace

TEST_CASE("a device finds the CPU's coefficients, to the bit") {
  for (const int devices : {1, 2, 4}) {
    simt::reset(machine(devices));
    for (const PlanKind kind : kPlans) {
      const PlannedMarket market = market_of(kind, {3, 1, 4});
      std::vector<float> losses(market.plan.path_count());
      fill(losses, 7);
      check_scores(devices, kind, market, losses);
      for (float& loss : losses) loss = std::round(4 * loss) / 4;  // ties
      check_scores(devices, kind, market, losses);
      losses[2] = -0.0f, losses[1] = 0.0f;
      check_scores(devices, kind, market, losses);
      std::fill(losses.begin(), losses.end(), 1.5f);
      check_scores(devices, kind, market, losses);
      losses.back() = 2.5f;  // of a star per spec: the others' are equal
      check_scores(devices, kind, market, losses);
    }
  }
  simt::reset(machine(1));
  const PlannedMarket alone = market_of(PlanKind::star, {1});
  check_scores(1, PlanKind::star, alone, {0.5f});
  check_scores(1, PlanKind::tree, alone, {0.5f});
  const PlannedMarket many = market_of(PlanKind::tree, {13, 9, 11});  // more than one block stages
  std::vector<float> losses(many.plan.path_count());
  fill(losses, 8);
  check_scores(1, PlanKind::tree, many, losses);
}

TEST_CASE("losses that are not finite hold an update back") {
  simt::reset(machine(2));
  for (const float bad : {kNan, kInfinity, -kInfinity})
    for (const PlanKind kind : kPlans)
      for (const Shaping shaping : kShapings) {
        const PlannedMarket market = market_of(kind, {2, 3});
        const Scoring scoring{
            shaping, score_groups(kind, UnitVectorMode::per_spec, market.paths, market.counts),
            market.paths, market.counts};
        for (std::int64_t path = 0; path < market.plan.path_count(); ++path) {
          std::vector<float> losses(market.plan.path_count());
          fill(losses, 9);
          losses[path] = bad;
          for (const gpu::Verdict& verdict : score_on_gpu(2, market, scoring, losses).verdicts)
            CHECK(verdict.sound == 0);
        }
      }
  simt::reset(machine(1));
}

TEST_CASE("a whole step has the bits of a probe and its step") {
  const SmallBatch data;
  for (const int devices : {1, 2, 4}) {
    simt::reset(machine(devices, static_cast<std::uint64_t>(devices)));
    for (const PlanKind plan : kPlans)
      for (const UnitVectorMode mode : kModes)
        for (const RuleKind rule : kRules) {
          const bool per_spec = mode == UnitVectorMode::per_spec;
          const int number = static_cast<int>(rule) + (per_spec ? 1 : 0);
          if (devices > 1 && (plan == PlanKind::star) != (number % 2 == 0)) continue;  // enough
          if (devices > 2 && rule != RuleKind::adam) continue;
          const OptimizerOptions options = options_of(plan, rule, kShapings[number % 3]);
          Trainee fused(dense_models(), {3, 2, 3}, options, devices);
          Trainee composed(dense_models(), {3, 2, 3}, options, devices);
          check_steps(fused, composed, data, mode, 3);
        }
  }
  simt::reset(machine(1));
}

TEST_CASE("whole steps take over batch statistics, and know antithetic vendors") {
  const Images data;
  for (const int devices : {1, 2}) {
    simt::reset(machine(devices));
    OptimizerOptions options = options_of(PlanKind::star, RuleKind::adam, Shaping::z);
    options.antithetic = true;
    Trainee fused(image_models(true), {3, 5}, options, devices);
    Trainee composed(image_models(true), {3, 5}, options, devices);
    check_steps(fused, composed, data, UnitVectorMode::per_spec, 4);
    const Model &mine = *fused.models[0], &theirs = *composed.models[0];
    for (int id = 0; id < static_cast<int>(mine.graph().parameters.size()); ++id)
      for (std::int64_t k = 0; k < mine.size(id); ++k)
        CHECK(mine.data(id)[k] == theirs.data(id)[k]);
  }
  simt::reset(machine(1));
}

TEST_CASE("a cap on memory, sampled upstreams and modes that change are taken step by step") {
  const SmallBatch data;
  const OptimizerOptions options = options_of(PlanKind::tree, RuleKind::momentum, Shaping::rank);
  Trainee fused(dense_models(), {3, 2, 4}, options, 1, 1 << 16);
  Trainee composed(dense_models(), {3, 2, 4}, options, 1);
  check_steps(fused, composed, data, UnitVectorMode::whole, 3);
  check_steps(fused, composed, data, UnitVectorMode::per_spec, 3);
  const auto sampling = [&](const Models& models) {
    return Optimizer(on_gpu(models, DType::float32), {3, 2, 4}, {0, 2, 1}, options, std::nullopt);
  };
  const Models models = dense_models(), twins = dense_models();
  Optimizer mine = sampling(models), theirs = sampling(twins);
  for (int step = 0; step < 3; ++step) {
    mine.train_step(data.batch(), data.labels(), UnitVectorMode::whole);
    const Probe probe = theirs.probe(data.batch(), data.labels());
    theirs.step(probe.losses, probe.paths, UnitVectorMode::whole);
  }
  for (std::size_t i = 0; i < models.size(); ++i)
    CHECK(models[i]->weights() == twins[i]->weights());
}

TEST_CASE("one step is one graph on one device, and brings one small block back") {
  const SmallBatch data;
  for (const int devices : {1, 2}) {
    simt::reset(machine(devices));
    Trainee own(dense_models(), {3, 2, 4},
                options_of(PlanKind::star, RuleKind::adam, Shaping::sign), devices);
    Optimizer& optimizer = own.optimizer;
    for (int step = 0; step < 2; ++step) graphs_of_a_step(optimizer, data);
    for (int step = 0; step < 3; ++step) {
      lower_rate(optimizer);
      const auto before = simt::counts();
      // several devices tell one another their losses between two graphs
      CHECK(graphs_of_a_step(optimizer, data) == (devices == 1 ? 1 : 2 * devices));
      const auto after = simt::counts();
      CHECK(after.bytes_to_host - before.bytes_to_host == devices * 256);
      CHECK(after.pageable_copies == before.pageable_copies);
      CHECK(after.bytes_to_devices - before.bytes_to_devices < devices * 6000);
      CHECK(after.bytes_among_devices - before.bytes_among_devices ==
            (devices == 1 ? 0 : (optimizer.plan().path_count() + devices) * 4));
      CHECK(after.allocations == before.allocations);
      CHECK(after.live_handles == before.live_handles);
      CHECK(after.launches == before.launches);  // but those of the graphs
    }
  }
  simt::reset(machine(1));
}

TEST_CASE("a step whose losses are not finite changes nothing and names the paths") {
  const SmallBatch data;
  for (const int devices : {1, 2})
    for (const RuleKind rule : kRules) {
      simt::reset(machine(devices));
      const OptimizerOptions options = options_of(PlanKind::star, rule, Shaping::z);
      Trainee fused(tiny_models(), {3, 2}, options, devices);
      Trainee composed(tiny_models(), {3, 2}, options, devices);
      check_steps(fused, composed, data, UnitVectorMode::whole, 3);
      for (Trainee* own : {&fused, &composed}) own->models[1]->data(0)[3] = kInfinity;
      const std::vector<Vector> before = fused.state();
      const auto launches = simt::counts().graph_launches;
      std::string words;
      try {
        fused.optimizer.train_step(data.batch(), data.labels(), UnitVectorMode::whole);
      } catch (const Error& error) {
        words = error.what();
      }
      CHECK(simt::counts().graph_launches - launches == (devices == 1 ? 1 : 2 * devices));
      const Probe probe = composed.optimizer.probe(data.batch(), data.labels());
      CHECK_THROWS_WITH_AS(
          composed.optimizer.step(probe.losses, probe.paths, UnitVectorMode::whole), words.c_str(),
          Error);
      CHECK(fused.state() == before);
      CHECK(fused.optimizer.state().seeds == composed.optimizer.state().seeds);
      for (Trainee* own : {&fused, &composed}) own->models[1]->data(0)[3] = 0.25f;
      check_steps(fused, composed, data, UnitVectorMode::whole, 2);
      CHECK(words.find("finite losses") != std::string::npos);
    }
  simt::reset(machine(1));
}

TEST_CASE("a whole step that fails changes nothing, and the next one is right") {
  const SmallBatch data;
  const OptimizerOptions options = options_of(PlanKind::star, RuleKind::adam, Shaping::z);
  const std::vector<std::vector<Vector>> expected = composed_states(options, 4);
  for (const int devices : {1, 2})
    for (void (*inject)(int) : {&simt::fail_allocation, &simt::fail_launch, &simt::fail_copy}) {
      simt::reset(machine(devices));
      int failures = 0;
      for (int n = 1; n < 30; n += n < 4 ? 1 : 9) {
        Trainee mine(tiny_models(), {2, 3}, options, devices);
        for (int step = 0; step < 4; ++step) {
          if (step < 3) inject(step == 0 ? n : (n + 2) / 3);
          bool failed = false;
          const auto take = [&] {
            mine.optimizer.train_step(data.batch(), data.labels(), UnitVectorMode::whole);
          };
          try {
            take();
          } catch (const Error&) {
            failed = true;
            ++failures;
          }
          inject(0);
          if (failed) {
            CHECK(mine.state() == expected[step]);
            take();
          }
          CHECK(mine.state() == expected[step + 1]);
        }
      }
      CHECK(failures > 2);
    }
  simt::reset(machine(1));
}
