// The GPU backend on the emulated device against the CPU backend: every way to run a market.
#include <doctest/doctest.h>

#include "gpu_markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

template <class Data>
void compare(const Models& models, const std::vector<std::int64_t>& counts, const Data& data,
             DType dtype) {
  const auto cpu = on_cpu(models, dtype), gpu = on_gpu(models, dtype);
  const auto weights = seeded(counts);
  const std::int64_t batch = data.batch().size;
  for (const Plan& plan : {tree_plan(counts, {}), star_plan(counts)}) {
    std::vector<float> expected(plan.path_count()), actual(plan.path_count());
    LeaderStatistics theirs, ours;
    cpu->losses(plan, weights, data.batch(), data.labels(), expected.data(), &theirs);
    gpu->losses(plan, weights, data.batch(), data.labels(), actual.data(), &ours);
    close(actual, expected, dtype);
    REQUIRE(ours.size() == theirs.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      REQUIRE(ours[i].size() == theirs[i].size());
      for (std::size_t k = 0; k < ours[i].size(); ++k) {
        CHECK(ours[i][k].node == theirs[i][k].node);
        CHECK(ours[i][k].count == theirs[i][k].count);
        close(ours[i][k].mean, theirs[i][k].mean, dtype);
        close(ours[i][k].variance, theirs[i][k].variance, dtype);
      }
    }
    expected.resize(plan.path_count() * batch * 3);
    actual.resize(expected.size());
    cpu->forward(plan, weights, data.batch(), expected.data());
    gpu->forward(plan, weights, data.batch(), actual.data());
    close(actual, expected, dtype);
  }
  std::vector<float> expected(batch * 3), actual(batch * 3);
  cpu->infer(data.batch(), expected.data());
  gpu->infer(data.batch(), actual.data());
  close(actual, expected, dtype);
  std::vector<std::int32_t> paths;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::size_t i = 0; i < counts.size(); ++i)
      paths.push_back(static_cast<std::int32_t>((b + static_cast<std::int64_t>(i)) % counts[i]));
  std::vector<float> their_losses(batch), our_losses(batch);
  Labels labels = data.labels();
  labels.ignore_index = 2;
  cpu->forward_paths(weights, data.batch(), paths.data(),
                     {expected.data(), their_losses.data(), &labels});
  gpu->forward_paths(weights, data.batch(), paths.data(),
                     {actual.data(), our_losses.data(), &labels});
  close(actual, expected, dtype);
  close(our_losses, their_losses, dtype);
  gpu->forward_paths(weights, data.batch(), paths.data(), {nullptr, actual.data(), &labels});
  CHECK(std::equal(our_losses.begin(), our_losses.end(), actual.begin()));
}

}  // namespace

TEST_CASE("dense markets give what the CPU gives") {
  for (const DType dtype : {DType::float32, DType::bfloat16})
    compare(dense_models(), {2, 3, 4}, SmallBatch(), dtype);
}

TEST_CASE("image markets give what the CPU gives") {
  for (const DType dtype : {DType::float32, DType::bfloat16})
    for (const bool batch_norm : {false, true})
      compare(image_models(batch_norm), {3, 4}, Images(), dtype);
}

TEST_CASE("a repeated probe is one graph, with new seeds, samples and weights each time") {
  const Models models = dense_models();
  const auto market = on_gpu(models, DType::bfloat16);
  const Plan plan = tree_plan({2, 3, 4}, {});
  SmallBatch data;
  for (int step = 0; step < 4; ++step) {
    auto weights = seeded({2, 3, 4});
    for (VendorWeights& w : weights) {
      w.amplitude = 0.1f + 0.01f * static_cast<float>(step);
      for (std::size_t v = 1; v < w.seeds.size(); ++v) w.seeds[v] += step;
    }
    fill(data.x, 40 + step);
    models[1]->values()[step] += 0.5f;
    const auto before = simt::counts();
    const auto repeated = losses_of(*market, plan, weights, data.batch(), data.labels());
    const auto after = simt::counts();
    CHECK(after.graph_launches - before.graph_launches == (step > 0 ? 1 : 0));
    const auto fresh = on_gpu(models, DType::bfloat16);
    CHECK(repeated == losses_of(*fresh, plan, weights, data.batch(), data.labels()));
  }
}

TEST_CASE("wide outputs and activations on the way out") {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    SmallBatch data;
    // more classes than the fused loss takes; a relu behind the last layer
    const Models models{linear_model(7, 33, true, 1), linear_model(33, 150, true, 2)};
    for (std::size_t b = 0; b < data.y.size(); ++b) data.y[b] = static_cast<std::int32_t>(b * 11);
    const auto weights = seeded({2, 3});
    const Plan plan = tree_plan({2, 3}, {});
    close(losses_of(*on_gpu(models, dtype), plan, weights, data.batch(), data.labels()),
          losses_of(*on_cpu(models, dtype), plan, weights, data.batch(), data.labels()), dtype);
  }
}

TEST_CASE("ignored labels count for nothing") {
  const Models models = dense_models();
  const SmallBatch data;
  const Labels labels{data.y.data(), 1};
  const auto weights = seeded({2, 3, 4});
  const Plan plan = star_plan({2, 3, 4});
  close(losses_of(*on_gpu(models, DType::float32), plan, weights, data.batch(), labels),
        losses_of(*on_cpu(models, DType::float32), plan, weights, data.batch(), labels),
        DType::float32);
}

TEST_CASE("deltas and directions have the CPU's bits") {
  const Models models{linear_model(7, 33, true, 1), image_model(true, 5)};
  const auto cpu = on_cpu(models, DType::float32), gpu = on_gpu(models, DType::float32);
  for (std::size_t spec = 0; spec < models.size(); ++spec) {
    VendorWeights weights = seeded({5})[0];
    const std::vector<double> coefficients{0.3, -1.7, 0.0, 0.011, 5.0};
    Vector expected(models[spec]->parameter_count()), actual(expected.size());
    const auto combined = [&](const VendorWeights& vendors) {
      cpu->backend().combine(*models[spec], vendors, coefficients, expected);
      gpu->backend().combine(*models[spec], vendors, coefficients, actual);
      CHECK(actual == expected);
    };
    for (const bool antithetic : {false, true}) {
      weights.antithetic = antithetic;
      for (std::int64_t v = 0; v < 5; ++v)
        CHECK(gpu->delta(spec, weights, v) == cpu->delta(spec, weights, v));
      combined(weights);
    }
    VendorWeights scaled{VendorWeights::Kind::scaled, 5, {}, 0, {0, 0.5f, -1, 2, 0.1f}, {}};
    scaled.values = std::make_shared<const Vector>(expected);
    combined(scaled);
    combined({VendorWeights::Kind::base, 5, {}, 0, {}, {}});
    VendorWeights given{VendorWeights::Kind::explicit_, 1, {}, 0, {}, scaled.values};
    CHECK_THROWS_AS(gpu->backend().combine(*models[spec], given, {1.0}, actual), Error);
    gpu->apply_vendor(spec, given, 0);
    CHECK(models[spec]->weights() == *scaled.values);
  }
}
