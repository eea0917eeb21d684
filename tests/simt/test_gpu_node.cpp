// Plan node on the emulated GPU: what fails on the way, which its Python tests cannot ask for.
#include <doctest/doctest.h>

#include "core/error.h"
#include "gpu/node/arena.h"
#include "trainees.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

Trainee node_trainee(int devices) {
  OptimizerOptions options = options_of(PlanKind::node, RuleKind::adam, Shaping::z);
  return Trainee(tiny_models(), {3, 2}, options, devices);
}

void take_step(Trainee& own, const SmallBatch& data) {
  const Probe probe = own.optimizer.probe(data.batch(), data.labels());
  own.optimizer.step(probe.losses, probe.paths, UnitVectorMode::per_spec);
}

// Weights and moments before every step and after the last, when nothing fails.
std::vector<std::vector<Vector>> undisturbed(int steps) {
  const SmallBatch data;
  Trainee own = node_trainee(1);  // several devices have the bits of one
  std::vector<std::vector<Vector>> states{own.state()};
  for (int step = 0; step < steps; ++step) {
    take_step(own, data);
    states.push_back(own.state());
  }
  return states;
}

}  // namespace

TEST_CASE("more devices than samples: the bits of one device") {
  SmallBatch data;
  data.y.resize(2);
  Batch two = data.batch();
  two.size = 2;
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    std::vector<std::vector<Vector>> states;
    for (const int devices : {1, 4}) {
      simt::Machine deferred = machine(devices, seed);
      deferred.schedule = simt::Schedule::deferred;
      simt::reset(deferred);
      Trainee own = node_trainee(devices);
      for (int step = 0; step < 3; ++step) {
        const Probe probe = own.optimizer.probe(two, data.labels());
        own.optimizer.step(probe.losses, probe.paths, UnitVectorMode::per_spec);
      }
      states.push_back(own.state());
    }
    CHECK(states[0] == states[1]);
  }
}

TEST_CASE("a step of plan node that fails changes nothing, and the next one is right") {
  const SmallBatch data;
  const std::vector<std::vector<Vector>> expected = undisturbed(2);
  for (const int devices : {1, 2})
    for (void (*inject)(int) : {&simt::fail_allocation, &simt::fail_launch, &simt::fail_copy}) {
      simt::reset(machine(devices));
      int failures = 0;
      for (const int n : {1, 6, 30}) {
        Trainee mine = node_trainee(devices);
        for (int step = 0; step < 2; ++step) {
          inject(step == 0 ? n : (n + 2) / 3);
          try {
            take_step(mine, data);
            inject(0);
          } catch (const Error& error) {
            inject(0);
            ++failures;
            CHECK((error.kind() == ErrorKind::memory || error.kind() == ErrorKind::runtime));
            CHECK(mine.state() == expected[step]);
            take_step(mine, data);
          }
          CHECK(mine.state() == expected[step + 1]);
        }
      }
      CHECK(failures > 2);
    }
  simt::reset(machine(1));
}

TEST_CASE("probes run in groups that are alike, as large as they may be") {
  const std::int64_t probes = 12, samples = 5;
  const gpu::NodeMarket market(tiny_models(), {probes + 1, 1}, {7});
  const auto arena = [&](std::int64_t group_bytes) {
    return gpu::plan_node_arena(market, 16, samples, samples, group_bytes);
  };
  const std::int64_t all = std::int64_t{1} << 30;
  CHECK(arena(0).group == std::vector<std::int64_t>{1, 1});
  CHECK(arena(all).group == std::vector<std::int64_t>{probes, 1});
  // what a group makes grows with it; between the ends every size divides the probes
  std::int64_t before = 0;
  std::vector<std::int64_t> sizes;
  for (std::int64_t bytes = 0; bytes < (1 << 16); bytes += 64) {
    const gpu::NodeArena at = arena(bytes);
    REQUIRE(probes % at.group[0] == 0);
    REQUIRE(at.group[0] >= before);
    if (at.group[0] > before) sizes.push_back(at.group[0]);
    before = at.group[0];
    CHECK(at.bytes - arena(0).bytes <= 2 * bytes);
  }
  CHECK(sizes == std::vector<std::int64_t>{1, 2, 3, 4, 6, 12});
}
