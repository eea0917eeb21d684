// V1 on the emulated GPU: the best path is found where the losses are, with the bits of a probe and
// keep_best.
#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "core/error.h"
#include "trainees.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

template <class Data>
void check_kept(Trainee& fused, Trainee& composed, const Data& data, int steps) {
  for (int step = 0; step < steps; ++step) {
    const Probe found = fused.optimizer.keep_best_of(data.batch(), data.labels());
    const Probe probe = composed.optimizer.probe(data.batch(), data.labels());
    composed.optimizer.keep_best(probe.losses, probe.paths);
    CHECK(found.losses == probe.losses);
    CHECK(found.paths == probe.paths);
    CHECK(fused.state() == composed.state());
  }
  CHECK(fused.optimizer.state().seeds == composed.optimizer.state().seeds);
  CHECK(fused.optimizer.generation() == composed.optimizer.generation());
}

OptimizerOptions plan_options(PlanKind plan) {
  return options_of(plan, RuleKind::unit, Shaping::z);
}

}  // namespace

TEST_CASE("keeping the best has the bits of a probe and keep_best, the CPU's too") {
  const SmallBatch data;
  for (const int devices : {1, 2, 4}) {
    simt::reset(machine(devices, static_cast<std::uint64_t>(devices)));
    for (const PlanKind plan : kPlans) {
      Trainee fused(dense_models(), {3, 2, 3}, plan_options(plan), devices);
      Trainee composed(dense_models(), {3, 2, 3}, plan_options(plan), devices);
      check_kept(fused, composed, data, 4);
      const Models twins = dense_models();
      Optimizer cpu(on_cpu(twins, DType::float32), {3, 2, 3}, {0, 0, 0}, plan_options(plan),
                    std::nullopt);
      for (int step = 0; step < 4; ++step) cpu.keep_best_of(data.batch(), data.labels());
      CHECK(fused.state() == state_of(cpu, twins));
    }
  }
  simt::reset(machine(1));
}

TEST_CASE("keeping the best is one graph on one device, and no weights cross") {
  const SmallBatch data;
  for (const int devices : {1, 2}) {
    simt::reset(machine(devices));
    Trainee own(dense_models(), {3, 2, 4}, plan_options(PlanKind::star), devices);
    for (int step = 0; step < 5; ++step) {
      const auto before = simt::counts();
      own.optimizer.keep_best_of(data.batch(), data.labels());
      const auto after = simt::counts();
      if (step < 2) continue;
      CHECK(after.graph_launches - before.graph_launches == (devices == 1 ? 1 : 2 * devices));
      CHECK(after.launches == before.launches);
      CHECK(after.bytes_to_host - before.bytes_to_host == devices * 256);
      CHECK(after.pageable_copies == before.pageable_copies);
      CHECK(after.allocations == before.allocations);
    }
  }
  simt::reset(machine(1));
}

TEST_CASE("the best takes its batch statistics along, and both kinds of step may take turns") {
  const Images data;
  Trainee fused(image_models(true), {3, 5}, plan_options(PlanKind::star), 1);
  Trainee composed(image_models(true), {3, 5}, plan_options(PlanKind::star), 1);
  for (int turn = 0; turn < 3; ++turn) {
    check_kept(fused, composed, data, 1);
    const UnitVectorMode mode = UnitVectorMode::per_spec;
    fused.optimizer.train_step(data.batch(), data.labels(), mode);
    const Probe probe = composed.optimizer.probe(data.batch(), data.labels());
    composed.optimizer.step(probe.losses, probe.paths, mode);
    CHECK(fused.state() == composed.state());
  }
  const Model &mine = *fused.models[0], &theirs = *composed.models[0];
  for (int id = 0; id < static_cast<int>(mine.graph().parameters.size()); ++id)
    for (std::int64_t k = 0; k < mine.size(id); ++k) CHECK(mine.data(id)[k] == theirs.data(id)[k]);
}

TEST_CASE("losses that are not finite keep nobody") {
  const SmallBatch data;
  for (const int devices : {1, 2}) {
    simt::reset(machine(devices));
    Trainee own(tiny_models(), {3, 2}, plan_options(PlanKind::tree), devices);
    for (int step = 0; step < 3; ++step) own.optimizer.keep_best_of(data.batch(), data.labels());
    const float value = own.models[1]->data(0)[3];
    own.models[1]->data(0)[3] = std::numeric_limits<float>::infinity();
    const std::vector<Vector> before = own.state();
    CHECK_THROWS_WITH_AS(own.optimizer.keep_best_of(data.batch(), data.labels()),
                         doctest::Contains("finite losses"), Error);
    CHECK(own.state() == before);
    CHECK(own.optimizer.generation() == 3);
    own.models[1]->data(0)[3] = value;
    CHECK_NOTHROW(own.optimizer.keep_best_of(data.batch(), data.labels()));
  }
  simt::reset(machine(1));
}

TEST_CASE("keeping the best that fails changes nothing, and the next time is right") {
  const SmallBatch data;
  for (void (*inject)(int) : {&simt::fail_allocation, &simt::fail_launch, &simt::fail_copy}) {
    int failures = 0;
    for (int n = 1; n < 60; n += 3) {
      Trainee mine(tiny_models(), {2, 3}, plan_options(PlanKind::star), 1);
      Trainee theirs(tiny_models(), {2, 3}, plan_options(PlanKind::star), 1);
      for (int step = 0; step < 3; ++step) {
        inject(step == 0 ? n : (n + 2) / 3);
        try {
          mine.optimizer.keep_best_of(data.batch(), data.labels());
          inject(0);
        } catch (const Error&) {
          inject(0);
          ++failures;
          CHECK(mine.state() == theirs.state());
          mine.optimizer.keep_best_of(data.batch(), data.labels());
        }
        theirs.optimizer.keep_best_of(data.batch(), data.labels());
        CHECK(mine.state() == theirs.state());
      }
    }
    CHECK(failures > 2);
  }
}
