// Steps on the emulated GPU: weights that stay there, with the CPU's bits, on one device or
// several.
#include <doctest/doctest.h>

#include "api.h"
#include "core/error.h"
#include "gpu_markets.h"
#include "market/optimizer.h"
#include "trainees.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

Optimizer make(std::shared_ptr<Market> market, RuleKind rule,
               std::optional<float> meta = std::nullopt) {
  OptimizerOptions options;
  options.plan = PlanKind::star;
  options.learning_rate = 0.1f;
  options.probe_scale = 0.5f;
  options.meta_learning_rate = meta;
  options.seed = 11;
  options.rule.kind = rule;
  options.rule.speed = 0.9f;  // so that clipup cuts
  return Optimizer(std::move(market), {3, 2, 4}, {0, 0, 0}, options, std::nullopt);
}

// The same losses for everybody: what follows from them must be the same to the bit.
Probe made_up(Optimizer& optimizer, int step) {
  Probe probe;
  probe.losses.resize(optimizer.plan().path_count());
  fill(probe.losses, 100 + step);
  probe.paths = plan_paths(optimizer.plan());
  return probe;
}

// Steps of every kind.
std::vector<Vector> train(const std::shared_ptr<Market>& market, RuleKind rule) {
  Optimizer optimizer = make(market, rule);
  int step = 0;
  for (const UnitVectorMode mode : {UnitVectorMode::per_spec, UnitVectorMode::whole}) {
    Probe probe = made_up(optimizer, ++step);
    optimizer.step(probe.losses, probe.paths, mode);
    probe = made_up(optimizer, ++step);
    optimizer.add_replica(probe.losses, probe.paths, mode);
    optimizer.step(probe.losses, probe.paths, mode);
    probe = made_up(optimizer, ++step);
    bool degenerate = false;
    optimizer.update_weights(
        optimizer.make_update(optimizer.gather(probe.losses, probe.paths, mode, degenerate), mode),
        std::nullopt);
    optimizer.keep_best(probe.losses, probe.paths);
  }
  return state_of(optimizer, market->models());
}

// Reads one linear layer of `width` inputs.
struct Wide {
  std::vector<float> x;
  std::vector<std::int32_t> y{0, 1, 2};
  explicit Wide(std::int64_t width) : x(3 * width) { fill(x, 3); }
  Batch batch() const {
    return {x.data(), DType::float32, 3, {static_cast<std::int64_t>(x.size()) / 3}};
  }
  Labels labels() const { return {y.data(), std::nullopt}; }
};

struct Traffic {
  std::int64_t to_devices, to_host, among;
  bool operator==(const Traffic&) const = default;
};

// Of the last of some training steps, the batch not counted: 3 * width * 4 bytes, which should be
// whole blocks of 256.
Traffic traffic(std::int64_t width, RuleKind rule, int devices, std::optional<float> meta) {
  const Wide data(width);
  Optimizer optimizer = make(on_gpu({linear_model(width, 8, true, 1), linear_model(8, 5, true, 2),
                                     linear_model(5, 3, false, 3)},
                                    DType::float32, first(devices)),
                             rule, meta);
  simt::Counts before = simt::counts();
  std::int64_t probes = 0;
  for (int step = 0; step < 3; ++step) {
    before = simt::counts();
    probes = 1;
    const Probe probe = optimizer.probe(data.batch(), data.labels());
    if (meta) {
      optimizer.start_search(probe.losses, probe.paths, UnitVectorMode::whole);
      optimizer.probe(data.batch(), data.labels());
      optimizer.end_search({0.1f, 0.2f, 0.3f});
      ++probes;
    } else {
      optimizer.step(probe.losses, probe.paths, UnitVectorMode::whole);
    }
  }
  const simt::Counts after = simt::counts();
  return {after.bytes_to_devices - before.bytes_to_devices - probes * devices * 3 * width * 4,
          after.bytes_to_host - before.bytes_to_host,
          after.bytes_among_devices - before.bytes_among_devices};
}

}  // namespace

TEST_CASE("what a backend keeps beside a model goes with the last of both") {
  simt::reset(machine(2));
  {
    const Models models = dense_models();
    {
      const auto backend = gpu::make_gpu_backend(first(2), DType::float32, 0);
      Vector direction(models[0]->parameter_count());
      backend->combine(*models[0], seeded({3})[0], {1, 2, 3}, direction);
    }
    CHECK(simt::counts().live_blocks > 0);
  }
  CHECK(simt::counts().live_blocks == 0);
  CHECK(simt::counts().live_handles == 0);
}

TEST_CASE("steps have the CPU's bits under every rule") {
  for (const RuleKind rule : kRules)
    CHECK(train(on_gpu(dense_models(), DType::float32), rule) ==
          train(on_cpu(dense_models(), DType::float32), rule));
}

TEST_CASE("a step's arguments stay as they are until every device has them") {
  const std::vector<Vector> expected = train(on_cpu(dense_models(), DType::float32), kRules[3]);
  for (const int devices : {1, 2}) {
    simt::Machine wanted = machine(devices);
    wanted.schedule = simt::Schedule::deferred;  // nothing waits for a step but the next one
    simt::reset(wanted);
    CHECK(train(on_gpu(dense_models(), DType::float32, first(devices)), kRules[3]) == expected);
  }
  simt::reset(machine(1));
}

TEST_CASE("norms of more values, and of more specs, than one launch sums up") {
  const auto cpu = make_backend("cpu", "float32", 2);
  const auto gpu = gpu::make_gpu_backend({0}, DType::float32, 0);
  Directions values;
  for (const std::int64_t size :
       {40000, 1, 0, 4096, 4097, 8191, 31, 5, 6, 7, 8, 9, 10, 11, 12, 5000, 13, 4095, 3}) {
    std::vector<float> filled(size);
    fill(filled, static_cast<std::uint64_t>(size));
    values.emplace_back(std::move(filled));
  }
  values.emplace_back(100);  // zeros stay
  for (const bool together : {false, true}) {
    Directions mine = values, theirs = values;
    gpu->normalise(mine, together);
    cpu->normalise(theirs, together);
    CHECK(mine == theirs);
    gpu->clip(mine, together, 0.5f);
    cpu->clip(theirs, together, 0.5f);
    CHECK(mine == theirs);
    gpu->clip(mine, together, 2);
    CHECK(mine == theirs);
  }
  Directions none(2);
  CHECK_NOTHROW(gpu->normalise(none, true));
}

TEST_CASE("every device does the same step") {
  for (const bool peers : {true, false})
    for (const int devices : {2, 4}) {
      const std::vector<Vector> expected =
          train(on_gpu(dense_models(), DType::float32), RuleKind::adam);
      simt::Machine wanted = machine(devices, static_cast<std::uint64_t>(devices));
      wanted.peer_access = peers;
      simt::reset(wanted);
      {
        const Models models = dense_models();
        const SmallBatch data;
        const auto one = on_gpu(models, DType::float32),
                   many = on_gpu(models, DType::float32, first(devices));
        Optimizer optimizer = make(many, RuleKind::momentum);
        // checksums are compared with the first and the 65th
        const int steps = peers && devices == 2 ? 66 : 3;
        for (int step = 0; step < steps; ++step) {
          const Probe probe = optimizer.probe(data.batch(), data.labels());
          if (step % 22 == 0)
            CHECK(probe.losses == losses_of(*one, optimizer.plan(), optimizer.weights(),
                                            data.batch(), data.labels()));
          optimizer.step(probe.losses, probe.paths, UnitVectorMode::whole);
        }
      }
      CHECK(train(on_gpu(dense_models(), DType::float32, first(devices)), RuleKind::adam) ==
            expected);
      simt::reset(machine(1));
    }
}

TEST_CASE("no bytes that follow from the number of weights cross between host and device") {
  simt::reset(machine(2));
  for (const int devices : {1, 2})
    for (const RuleKind rule : kRules) {
      const Traffic few = traffic(64, rule, devices, std::nullopt);
      CHECK(traffic(640, rule, devices, std::nullopt) == few);
      CHECK(few.to_host <= devices * 256);  // the losses
      CHECK(few.to_devices < devices * 6000);
      CHECK(few.among == 0);
    }
  const Traffic few = traffic(64, RuleKind::unit, 2, 0.5f);
  CHECK(traffic(640, RuleKind::unit, 2, 0.5f) == few);
  CHECK(few.among == 0);
  simt::reset(machine(1));
}

TEST_CASE("a step is one graph per device, recorded once") {
  const auto market = on_gpu(dense_models(), DType::float32);
  Optimizer optimizer = make(market, RuleKind::adam);
  std::int64_t allocations = 0;
  for (int step = 0; step < 4; ++step) {
    const Probe probe = made_up(optimizer, step);
    lower_rate(optimizer);
    const auto before = simt::counts();
    optimizer.step(probe.losses, probe.paths, UnitVectorMode::per_spec);
    const auto after = simt::counts();
    CHECK(after.graph_launches - before.graph_launches == 1);
    if (step > 0) {
      CHECK(after.copies - before.copies == 1);
      CHECK(after.pageable_copies == before.pageable_copies);
      CHECK(after.live_handles == before.live_handles);
      allocations += after.allocations - before.allocations;
    }
  }
  CHECK(allocations == 0);
}

TEST_CASE("the host's mirror follows the device, and what the host writes counts") {
  const Models models = dense_models(), twins = dense_models();
  const auto gpu = on_gpu(models, DType::float32), cpu = on_cpu(twins, DType::float32);
  Optimizer mine = make(gpu, RuleKind::unit), theirs = make(cpu, RuleKind::unit);
  for (int step = 0; step < 3; ++step) {
    const Probe probe = made_up(mine, step);
    mine.step(probe.losses, probe.paths, UnitVectorMode::whole);
    theirs.step(probe.losses, probe.paths, UnitVectorMode::whole);
    const auto before = simt::counts().bytes_to_host;
    CHECK(std::as_const(*models[1]).data(0)[0] == std::as_const(*twins[1]).data(0)[0]);
    CHECK(std::as_const(*models[1]).data(1)[2] == std::as_const(*twins[1]).data(1)[2]);
    CHECK(simt::counts().bytes_to_host - before == models[1]->parameter_count() * 4);
    models[1]->data(0)[step] = twins[1]->data(0)[step] = 0.5f;
  }
  CHECK(models[1]->weights() == twins[1]->weights());
  const auto other = on_gpu(models, DType::float32);  // two markets on the same models
  const SmallBatch data;
  CHECK(losses_of(*other, mine.plan(), mine.weights(), data.batch(), data.labels()) ==
        losses_of(*gpu, mine.plan(), mine.weights(), data.batch(), data.labels()));
}

TEST_CASE("weights outlive their market, unless the device was lost") {
  const Models models = dense_models(), twins = dense_models();
  for (const bool lose : {false, true}) {
    {
      Optimizer mine = make(on_gpu(models, DType::float32), RuleKind::momentum);
      Optimizer theirs = make(on_cpu(twins, DType::float32), RuleKind::momentum);
      const Probe probe = made_up(mine, 5);
      mine.step(probe.losses, probe.paths, UnitVectorMode::whole);
      theirs.step(probe.losses, probe.paths, UnitVectorMode::whole);
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      if (lose) simt::lose_device("a test");
    }
    for (std::size_t i = 0; i < models.size(); ++i)
      if (lose)
        CHECK_THROWS_WITH_AS(models[i]->values(), doctest::Contains("it was lost"), Error);
      else
        CHECK(models[i]->weights() == twins[i]->weights());
  }
  simt::reset(machine(1));
}

TEST_CASE("a step that fails changes nothing, and the next one is right") {
  for (const int devices : {1, 2})
    for (void (*inject)(int) : {&simt::fail_allocation, &simt::fail_launch, &simt::fail_copy}) {
      simt::reset(machine(devices));
      int failures = 0;
      for (int n = 1; n < 60; n += n < 20 ? 1 : 7) {
        const Models models = dense_models(), twins = dense_models();
        const auto gpu = on_gpu(models, DType::float32, first(devices));
        const auto cpu = on_cpu(twins, DType::float32);
        Optimizer mine = make(gpu, RuleKind::adam), theirs = make(cpu, RuleKind::adam);
        for (int step = 0; step < 3; ++step) {
          const Probe probe = made_up(mine, step);
          if (step < 2) inject(step == 0 ? n : (n + 2) / 3);
          bool failed = false;
          try {
            mine.step(probe.losses, probe.paths, UnitVectorMode::whole);
          } catch (const Error&) {
            failed = true;
            ++failures;
          }
          inject(0);
          if (failed) {
            CHECK(state_of(mine, models) == state_of(theirs, twins));
            mine.step(probe.losses, probe.paths, UnitVectorMode::whole);
          }
          theirs.step(probe.losses, probe.paths, UnitVectorMode::whole);
          CHECK(state_of(mine, models) == state_of(theirs, twins));
        }
      }
      CHECK(failures > 2);
    }
  simt::reset(machine(1));
}
