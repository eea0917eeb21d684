// A cap on memory, and what is left after failures.
#include <doctest/doctest.h>

#include "core/error.h"
#include "gpu_markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

std::int64_t peak_of(const std::function<void()>& work) {
  const auto before = simt::counts().live_bytes;
  work();
  return simt::counts().live_bytes - before;
}

// A batch of more than one loss block.
struct ManySamples {
  std::vector<float> x = std::vector<float>(300 * 7);
  std::vector<std::int32_t> y;
  ManySamples() {
    fill(x, 8);
    for (int b = 0; b < 300; ++b) y.push_back(b % 3);
  }
  Batch batch() const { return {x.data(), DType::float32, 300, {7}}; }
  Labels labels() const { return {y.data(), std::nullopt}; }
};

}  // namespace

TEST_CASE("the same bits under any cap, down to one that nothing fits") {
  const Models models = dense_models();
  const ManySamples data;
  const auto weights = seeded({3, 4, 5});
  for (const Plan& plan : {tree_plan({3, 4, 5}, {}), star_plan({3, 4, 5})}) {
    const auto expected =
        losses_of(*on_gpu(models, DType::float32), plan, weights, data.batch(), data.labels());
    std::vector<float> logits(plan.path_count() * 900), cut(logits.size());
    on_gpu(models, DType::float32)->forward(plan, weights, data.batch(), logits.data());
    int succeeded = 0;
    bool refused = false;
    for (std::int64_t cap = 1 << 21; cap > 4096 && !refused; cap /= 2) {
      const auto market = on_gpu(models, DType::float32, {0}, cap);
      try {
        const auto losses = losses_of(*market, plan, weights, data.batch(), data.labels());
        CHECK(losses == expected);
        market->forward(plan, weights, data.batch(), cut.data());
        CHECK(cut == logits);
        ++succeeded;
      } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::memory);
        CHECK(std::string(error.what()).find("bytes") != std::string::npos);
        refused = true;
      }
    }
    CHECK(succeeded >= 3);
    CHECK(refused);
  }
}

TEST_CASE("a batch normalisation's batch is never cut") {
  const Models models = image_models(true);
  const Images data;
  const auto weights = seeded({3, 4});
  const Plan plan = tree_plan({3, 4}, {});
  LeaderStatistics expected, actual;
  const auto losses = losses_of(*on_gpu(models, DType::float32), plan, weights, data.batch(),
                                data.labels(), &expected);
  int succeeded = 0;
  bool refused = false;
  for (std::int64_t cap = 1 << 20; cap > 4096 && !refused; cap = cap * 3 / 4) {
    try {
      const auto again = losses_of(*on_gpu(models, DType::float32, {0}, cap), plan, weights,
                                   data.batch(), data.labels(), &actual);
      CHECK(again == losses);
      CHECK(actual[0][0].mean == expected[0][0].mean);
      CHECK(actual[0][0].variance == expected[0][0].variance);
      ++succeeded;
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::memory);
      refused = true;
    }
  }
  CHECK(succeeded >= 5);
  CHECK(refused);
}

TEST_CASE("memory is given back") {
  const Models models = dense_models();
  const SmallBatch data;
  const Plan plan = star_plan({2, 3, 4});
  CHECK(peak_of([&] {
          const auto market = on_gpu(models, DType::float32);
          losses_of(*market, plan, seeded({2, 3, 4}), data.batch(), data.labels());
        }) == 0);
}

TEST_CASE("after a failed allocation, launch or copy the next call is right") {
  const Models models = dense_models();
  const SmallBatch data;
  const auto weights = seeded({2, 3, 4});
  const Plan plan = tree_plan({2, 3, 4}, {});
  const auto expected =
      losses_of(*on_gpu(models, DType::float32), plan, weights, data.batch(), data.labels());
  for (void (*inject)(int) : {&simt::fail_allocation, &simt::fail_launch, &simt::fail_copy}) {
    int failures = 0;
    for (int n = 1, before = -1; n < 40 && failures > before; ++n) {
      const auto market = on_gpu(models, DType::float32);
      before = failures;
      inject(n);
      for (int call = 0; call < 3; ++call) {
        try {
          const auto losses = losses_of(*market, plan, weights, data.batch(), data.labels());
          CHECK(losses == expected);
        } catch (const Error& error) {
          ++failures;
          CHECK((error.kind() == ErrorKind::memory || error.kind() == ErrorKind::runtime));
        }
      }
      inject(0);
      CHECK(losses_of(*market, plan, weights, data.batch(), data.labels()) == expected);
    }
    CHECK(failures > 0);
  }
}
