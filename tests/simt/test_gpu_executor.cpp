// The GPU backend on the emulated device against the CPU backend: every way to run a market.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../cpp/markets.h"
#include "control.h"
#include "gpu/gpu_backend.h"
#include "market/plan.h"
#include "market/seeds.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

using Models = std::vector<std::shared_ptr<Model>>;

std::shared_ptr<Market> on_cpu(const Models& models, DType dtype) {
  return std::make_shared<Market>(
      make_backend("cpu", dtype == DType::float32 ? "float32" : "bfloat16", 1), models);
}

std::shared_ptr<Market> on_gpu(const Models& models, DType dtype, std::vector<int> devices = {0},
                               std::int64_t max_memory_bytes = 0) {
  return std::make_shared<Market>(gpu::make_gpu_backend(devices, dtype, max_memory_bytes), models);
}

std::vector<VendorWeights> seeded(const std::vector<std::int64_t>& counts) {
  std::vector<VendorWeights> weights;
  for (std::size_t i = 0; i < counts.size(); ++i)
    weights.push_back({VendorWeights::Kind::seeded,
                       counts[i],
                       derive_seeds(9, 0, static_cast<int>(i), counts[i], true),
                       0.1f,
                       {},
                       {}});
  return weights;
}

Models dense_models() {
  return {linear_model(7, 33, true, 1), linear_model(33, 5, true, 2), linear_model(5, 3, false, 3)};
}

struct Images {
  std::vector<float> x = std::vector<float>(9 * 60);
  std::vector<std::int32_t> y;
  Images() {
    fill(x, 5);
    for (int b = 0; b < 9; ++b) y.push_back(b % 3);
  }
  Batch batch() const { return {x.data(), DType::float32, 9, {2, 6, 5}}; }
  Labels labels() const { return {y.data(), std::nullopt}; }
};

Models image_models(bool batch_norm) {
  return {image_model(batch_norm, 5), linear_model(90, 3, false, 6)};
}

double tolerance(DType dtype) {
  return dtype == DType::float32 ? 1e-5 : 2e-2;
}

void close(const std::vector<float>& actual, const std::vector<float>& expected, DType dtype) {
  REQUIRE(actual.size() == expected.size());
  float scale = 1e-6f, worst = 0;
  for (float value : expected) scale = std::max(scale, std::fabs(value));
  for (std::size_t i = 0; i < actual.size(); ++i) {
    CHECK(std::isfinite(actual[i]));
    worst = std::max(worst, std::fabs(actual[i] - expected[i]));
  }
  CHECK(worst / scale < tolerance(dtype));
}

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
  cpu->forward_paths(weights, data.batch(), paths.data(), expected.data());
  gpu->forward_paths(weights, data.batch(), paths.data(), actual.data());
  close(actual, expected, dtype);
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
