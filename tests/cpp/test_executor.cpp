// The CPU executor against one path at a time, and against itself on other threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "market/plan.h"
#include "market/seeds.h"
#include "markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

std::vector<VendorWeights> seeded_vendors(const std::vector<std::int64_t>& counts) {
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

// One path alone, as a market of explicit weights: no prefix is shared, no delta generated on the
// way.
std::vector<float> one_path(Market& market, const std::vector<VendorWeights>& weights,
                            const std::int32_t* path, const SmallBatch& data) {
  std::vector<VendorWeights> alone;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Model& model = market.model(i);
    Vector values = market.delta(i, weights[i], path[i]);
    for (std::int64_t k = 0; k < values.size(); ++k)
      values.data()[k] = model.values()[k] + values.data()[k];
    alone.push_back(
        {VendorWeights::Kind::explicit_, 1, {}, 0, {}, std::make_shared<const Vector>(values)});
  }
  std::vector<float> out(13 * 3);
  market.forward(star_plan({1, 1, 1}), alone, data.batch(), out.data());
  return out;
}

}  // namespace

TEST_CASE("tree and star give every path what that path gives alone, bit for bit") {
  const auto market = small_market(2);
  const SmallBatch data;
  const std::vector<std::int64_t> counts{2, 3, 4};
  const auto weights = seeded_vendors(counts);
  for (const Plan& plan : {tree_plan(counts, {}), star_plan(counts)}) {
    std::vector<float> out(plan.path_count() * 39);
    market->forward(plan, weights, data.batch(), out.data());
    const auto paths = plan_paths(plan);
    for (std::int64_t p = 0; p < plan.path_count(); ++p)
      CHECK(std::vector<float>(out.begin() + p * 39, out.begin() + (p + 1) * 39) ==
            one_path(*market, weights, paths.data() + p * 3, data));
  }
}

TEST_CASE("losses are the mean cross-entropy of the logits") {
  const auto market = small_market(1);
  const SmallBatch data;
  const auto weights = seeded_vendors({2, 1, 3});
  const Plan plan = tree_plan({2, 1, 3}, {});
  std::vector<float> logits(plan.path_count() * 39), losses(plan.path_count());
  market->forward(plan, weights, data.batch(), logits.data());
  market->losses(plan, weights, data.batch(), data.labels(), losses.data());
  for (std::int64_t p = 0; p < plan.path_count(); ++p) {
    double total = 0;
    for (int b = 0; b < 13; ++b) {
      const float* row = logits.data() + p * 39 + b * 3;
      double sum = 0;
      for (int c = 0; c < 3; ++c) sum += std::exp(static_cast<double>(row[c]));
      total += std::log(sum) - row[data.y[b]];
    }
    CHECK(losses[p] == doctest::Approx(total / 13).epsilon(1e-6));
  }
}

TEST_CASE("the same bits for any number of threads") {
  const SmallBatch data;
  const Plan plan = star_plan({3, 4, 5});
  for (const char* dtype : {"float32", "bfloat16"}) {
    std::vector<float> expected(plan.path_count());
    small_market(1, dtype)->losses(plan, seeded_vendors({3, 4, 5}), data.batch(), data.labels(),
                                   expected.data());
    for (int threads : {2, 3, 5}) {
      std::vector<float> losses(plan.path_count());
      small_market(threads, dtype)
          ->losses(plan, seeded_vendors({3, 4, 5}), data.batch(), data.labels(), losses.data());
      CHECK(losses == expected);
    }
  }
}

TEST_CASE("a sample's own path equals that path of the tree") {
  const auto market = small_market(3);
  const SmallBatch data;
  const auto weights = seeded_vendors({2, 2, 2});
  const Plan plan = tree_plan({2, 2, 2}, {});
  std::vector<float> tree(plan.path_count() * 39), out(39);
  market->forward(plan, weights, data.batch(), tree.data());
  const auto all = plan_paths(plan);
  std::vector<std::int32_t> paths;
  for (int b = 0; b < 13; ++b)
    for (int i = 0; i < 3; ++i) paths.push_back(all[(b * 5 % 8) * 3 + i]);
  std::vector<float> losses(13);
  const Labels labels = data.labels();
  market->forward_paths(weights, data.batch(), paths.data(), {out.data(), losses.data(), &labels});
  for (int b = 0; b < 13; ++b)
    for (int c = 0; c < 3; ++c) CHECK(out[b * 3 + c] == tree[(b * 5 % 8) * 39 + b * 3 + c]);
  for (int b = 0; b < 13; ++b) {
    const float* logits = out.data() + b * 3;
    const double sum = std::exp(logits[0]) + std::exp(logits[1]) + std::exp(logits[2]);
    CHECK(losses[b] == doctest::Approx(std::log(sum) - logits[labels.data[b]]).epsilon(1e-5));
  }
}

TEST_CASE("the leader's path per sample is inference, bit by bit") {
  for (int threads : {1, 3}) {
    const auto market = small_market(threads);
    const SmallBatch data;
    std::vector<float> expected(39), out(39);
    market->infer(data.batch(), expected.data());
    const std::vector<std::int32_t> paths(39, 0);
    market->forward_paths(seeded_vendors({2, 5, 3}), data.batch(), paths.data(),
                          {out.data(), nullptr, nullptr});
    CHECK(out == expected);
  }
}

TEST_CASE("batch norm takes the whole batch while probing and running statistics in inference") {
  auto market = std::make_shared<Market>(
      make_backend("cpu", "float32", 2),
      std::vector<std::shared_ptr<Model>>{image_model(true, 5), linear_model(90, 3, false, 6)});
  std::vector<float> x(20 * 60);
  fill(x, 7);
  const Batch batch{x.data(), DType::float32, 20, {2, 6, 5}};
  const std::vector<VendorWeights> weights(2);
  LeaderStatistics leader;
  std::vector<float> out(60), again(60);
  market->forward(star_plan({1, 1}), weights, batch, out.data(), &leader);
  REQUIRE(leader.at(0).size() == 1);
  CHECK(leader[0][0].count == 20 * 30);
  // running statistics equal to the batch's make inference agree with probing
  Model& model = market->model(0);
  std::copy_n(leader[0][0].mean.data(), 3, model.data(model.find("layers.1.running_mean")));
  std::copy_n(leader[0][0].variance.data(), 3, model.data(model.find("layers.1.running_var")));
  market->infer(batch, again.data());
  for (int i = 0; i < 60; ++i) CHECK(again[i] == doctest::Approx(out[i]).epsilon(1e-5));
}

TEST_CASE("bad batches and labels are refused before anything runs") {
  const auto market = small_market(1);
  SmallBatch data;
  std::vector<float> losses(1);
  const std::vector<VendorWeights> weights(3);
  const Plan plan = star_plan({1, 1, 1});
  Batch empty = data.batch();
  empty.size = 0;
  CHECK_THROWS_WITH_AS(market->losses(plan, weights, empty, data.labels(), losses.data()),
                       doctest::Contains("empty batch"), Error);
  data.y[4] = 3;
  CHECK_THROWS_WITH_AS(market->losses(plan, weights, data.batch(), data.labels(), losses.data()),
                       "cross_entropy: expected labels from 0 to 2, received 3 at sample 4", Error);
  data.y[4] = 0;
  data.x[8] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(market->losses(plan, weights, data.batch(), data.labels(), losses.data()),
                       doctest::Contains("in sample 1 at element 1"), Error);
}

TEST_CASE("an unknown device or dtype is refused") {
  CHECK_THROWS_WITH_AS(make_backend("tpu", "float32", 1), doctest::Contains("'tpu'"), Error);
  CHECK_THROWS_WITH_AS(make_backend("hip:0", "float32", 1),
                       doctest::Contains("no libmarketplace_hip.so in"), Error);
  CHECK_THROWS_AS(make_backend("cpu", "int8", 1), Error);
  CHECK_THROWS_AS(make_backend("cpu", "float32", -1), Error);
}
