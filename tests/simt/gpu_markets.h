// Markets on the emulated GPU, and on the CPU to compare with.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "../cpp/markets.h"
#include "control.h"
#include "gpu/gpu_backend.h"
#include "market/optimizer.h"
#include "market/plan.h"
#include "market/seeds.h"

namespace marketplace::tests {

using Models = std::vector<std::shared_ptr<Model>>;

inline std::shared_ptr<Market> on_cpu(const Models& models, DType dtype) {
  return std::make_shared<Market>(
      make_backend("cpu", dtype == DType::float32 ? "float32" : "bfloat16", 1), models);
}

inline std::shared_ptr<Market> on_gpu(const Models& models, DType dtype,
                                      std::vector<int> devices = {0},
                                      std::int64_t max_memory_bytes = 0) {
  return std::make_shared<Market>(gpu::make_gpu_backend(devices, dtype, max_memory_bytes), models);
}

// The first devices of a machine.
inline std::vector<int> first(int count) {
  std::vector<int> devices(count);
  std::iota(devices.begin(), devices.end(), 0);
  return devices;
}

inline constexpr RuleKind kRules[] = {RuleKind::unit, RuleKind::momentum, RuleKind::clipup,
                                      RuleKind::adam};

// Weights and moments.
inline std::vector<Vector> state_of(const Optimizer& optimizer, const Models& models) {
  std::vector<Vector> all;
  for (const auto& model : models) all.push_back(std::as_const(*model).weights());
  const UpdateRule::State& rule = optimizer.rule().state();
  all.insert(all.end(), rule.first.begin(), rule.first.end());
  all.insert(all.end(), rule.second.begin(), rule.second.end());
  return all;
}

inline std::vector<VendorWeights> seeded(const std::vector<std::int64_t>& counts) {
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

inline Models dense_models() {
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

inline Models image_models(bool batch_norm) {
  return {image_model(batch_norm, 5), linear_model(90, 3, false, 6)};
}

inline double tolerance(DType dtype) {
  return dtype == DType::float32 ? 1e-5 : 2e-2;
}

inline void close(const std::vector<float>& actual, const std::vector<float>& expected,
                  DType dtype) {
  REQUIRE(actual.size() == expected.size());
  float scale = 1e-6f, worst = 0;
  for (float value : expected) scale = std::max(scale, std::fabs(value));
  for (std::size_t i = 0; i < actual.size(); ++i) {
    CHECK(std::isfinite(actual[i]));
    worst = std::max(worst, std::fabs(actual[i] - expected[i]));
  }
  CHECK(worst / scale < tolerance(dtype));
}

inline simt::Machine machine(int devices, std::uint64_t seed = 1) {
  simt::Machine machine;
  machine.seed = seed;
  machine.devices = devices;
  return machine;
}

inline std::vector<float> losses_of(Market& market, const Plan& plan,
                                    const std::vector<VendorWeights>& weights, const Batch& batch,
                                    const Labels& labels, LeaderStatistics* leader = nullptr) {
  std::vector<float> losses(plan.path_count());
  market.losses(plan, weights, batch, labels, losses.data(), leader);
  return losses;
}

}  // namespace marketplace::tests
