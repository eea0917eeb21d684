// Node perturbation and update rules: for the sanitizers and other instruction sets. The oracle of
// the estimator is in Python; here an exact limit, the shapes of odd layers, and refusals.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "graph/chain.h"
#include "market/optimizer.h"
#include "markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

Op op_of(OpKind kind, const std::string& layer, int a) {
  Op op;
  op.kind = kind;
  op.layer = layer;
  op.a = a;
  return op;
}

// (B, 2, H, W) -> strided, padded, dilated convolution, norm, relu, pool, flatten.
std::shared_ptr<Model> windows_model(std::int64_t channels, std::uint64_t seed) {
  Graph graph;
  Op conv = op_of(OpKind::conv2d, "layers.0 (Conv2d)", 0);
  conv.weight = graph.add_parameter("layers.0.weight", {channels, 2, 3, 2}, false);
  conv.bias = graph.add_parameter("layers.0.bias", {channels}, false);
  conv.window = {{3, 2}, {2, 1}, {1, 2}, {1, 2}};
  Op norm = op_of(OpKind::instance_norm, "layers.1 (InstanceNorm)", graph.add_op(conv));
  norm.channels = channels;
  norm.weight = graph.add_parameter("layers.1.weight", {channels}, false);
  norm.bias = graph.add_parameter("layers.1.bias", {channels}, false);
  Op pool = op_of(OpKind::max_pool2d, "layers.3 (max_pool2d)",
                  graph.add_op(op_of(OpKind::unary, "layers.2 (relu)", graph.add_op(norm))));
  pool.window = {{2, 2}, {2, 2}, {0, 0}, {1, 1}};
  Op flatten = op_of(OpKind::flatten, "layers.4 (flatten)", graph.add_op(pool));
  flatten.axes = {1, -1};
  graph.set_output(graph.add_op(flatten));
  return with_random_weights(std::move(graph), seed);
}

// (B, 2, 9, 8) -> a convolution, the windows above, two linear layers.
std::shared_ptr<Market> image_market(int threads, const char* dtype = "float32") {
  Graph graph;
  Op conv = op_of(OpKind::conv2d, "layers.0 (Conv2d)", 0);
  conv.weight = graph.add_parameter("layers.0.weight", {2, 2, 2, 2}, false);
  conv.window.kernel[0] = conv.window.kernel[1] = 2;
  graph.set_output(graph.add_op(conv));
  return std::make_shared<Market>(
      make_backend("cpu", dtype, threads),
      std::vector<std::shared_ptr<Model>>{with_random_weights(std::move(graph), 5),
                                          windows_model(33, 6), linear_model(33 * 8, 17, true, 7),
                                          linear_model(17, 3, false, 8)});
}

const Shape kImage{2, 9, 8};

NodeProbe probe_of(const std::vector<std::int64_t>& counts, float scale) {
  NodeProbe probe;
  probe.scale = scale;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    probe.seeds.emplace_back();
    for (std::int64_t v = 0; v < counts[i]; ++v)
      probe.seeds[i].push_back(v == 0 ? 0 : 1000 * i + static_cast<std::uint64_t>(v));
  }
  return probe;
}

struct ImageBatch {
  std::vector<float> x;
  std::vector<std::int32_t> y;
  explicit ImageBatch(int count) : x(count * element_count(kImage)) {
    fill(x, 9);
    for (int b = 0; b < count; ++b) y.push_back(b % 3);
  }
  Batch batch() const {
    return {x.data(), DType::float32, static_cast<std::int64_t>(y.size()), kImage};
  }
  Labels labels() const { return {y.data(), std::nullopt}; }
};

double mean_loss(Market& market, const Batch& batch, const Labels& labels) {
  std::vector<float> losses(batch.size);
  market.base_losses(batch, labels, losses.data());
  double total = 0;
  for (float loss : losses) total += loss;
  return total / static_cast<double>(batch.size);
}

// Into vectors that are made where there are none.
double node_gradients(Market& market, const std::vector<std::int64_t>& counts, float scale,
                      const Batch& batch, const Labels& labels, Directions& gradients,
                      bool add = false) {
  for (std::size_t i = gradients.size(); i < market.models().size(); ++i)
    gradients.emplace_back(market.model(i).parameter_count());
  return market.node_gradients(counts, probe_of(counts, scale), batch, labels, add, gradients);
}

}  // namespace

TEST_CASE("node perturbation of odd images: same bits for any number of threads, all specs learn") {
  const ImageBatch data(21);
  for (const auto& counts : std::vector<std::vector<std::int64_t>>{
           {3, 4, 2, 1}, {1, 3, 2, 1}, {2, 1, 3, 1}, {1, 1, 1, 1}}) {
    Directions one, three;
    auto market = image_market(1);
    const double loss = node_gradients(*market, counts, 0.3f, data.batch(), data.labels(), one);
    CHECK(loss == doctest::Approx(mean_loss(*market, data.batch(), data.labels())).epsilon(1e-5));
    CHECK(loss ==
          node_gradients(*image_market(3), counts, 0.3f, data.batch(), data.labels(), three));
    CHECK(one == three);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const float* g = std::as_const(one[i]).data();
      const bool moves = std::any_of(g, g + one[i].size(), [](float x) { return x != 0; });
      CHECK(moves == (counts[i] > 1 || i == 3));
    }
    node_gradients(*market, counts, 0.3f, data.batch(), data.labels(), one, true);
    for (std::size_t i = 0; i < counts.size(); ++i)
      for (std::int64_t k = 0; k < one[i].size(); ++k)
        CHECK(one[i].data()[k] == 2 * three[i].data()[k]);
  }
}

TEST_CASE("a small step along the output layer's gradient lowers the loss by its square") {
  const ImageBatch data(13);
  const std::vector<std::int64_t> counts{1, 1, 1, 1};
  Directions gradients;
  auto market = image_market(1);
  node_gradients(*market, counts, 0.1f, data.batch(), data.labels(), gradients);
  const double before = mean_loss(*market, data.batch(), data.labels());
  double square = 0;
  for (std::int64_t i = 0; i < gradients[3].size(); ++i)
    square += static_cast<double>(gradients[3].data()[i]) * gradients[3].data()[i];
  Model& model = market->model(3);
  const float rate = 1e-2f;
  for (std::int64_t i = 0; i < model.parameter_count(); ++i)
    model.values()[i] -= rate * gradients[3].data()[i];
  const double fallen = before - mean_loss(*market, data.batch(), data.labels());
  CHECK(fallen == doctest::Approx(rate * square).epsilon(0.05));
}

TEST_CASE("with one pixel a channel every weight's gradient is that of a difference") {
  const SmallBatch data;
  const std::vector<std::int64_t> counts{3, 2, 1};
  Directions gradients;
  auto market = small_market(2);
  node_gradients(*market, counts, 0.01f, data.batch(), data.labels(), gradients);
  for (std::size_t spec : {0u, 1u, 2u})
    for (std::int64_t i = 0; i < market->model(spec).parameter_count(); i += 5) {
      float& weight = market->model(spec).values()[i];
      const float kept = weight, step = 4e-3f;
      weight = kept + step;
      const double up = mean_loss(*market, data.batch(), data.labels());
      weight = kept - step;
      const double down = mean_loss(*market, data.batch(), data.labels());
      weight = kept;
      CHECK(std::abs(gradients[spec].data()[i] - (up - down) / (2 * step)) < 2e-3);
    }
}

TEST_CASE("nodes: a frozen prefix in bfloat16, bytes, ignored labels, several shapes in turn") {
  auto market = image_market(2, "bfloat16");
  const std::vector<std::int64_t> counts{1, 3, 2, 1};
  for (int count : {1, 9, 17, 2}) {
    ImageBatch data(count);
    if (count > 2) data.y[1] = -1;
    Directions gradients;
    const Labels labels{data.y.data(), -1};
    const double loss = node_gradients(*market, counts, 0.2f, data.batch(), labels, gradients);
    CHECK(std::isfinite(loss));
    const std::vector<std::uint8_t> bytes(data.x.size(), 7);
    const Batch plain{bytes.data(), DType::uint8, count, kImage};
    CHECK(std::isfinite(node_gradients(*market, counts, 0.2f, plain, labels, gradients)));
  }
}

TEST_CASE("the optimizer steps, sums and forgets measured gradients") {
  OptimizerOptions options;
  options.plan = PlanKind::node;
  options.learning_rate = 0.02f;
  options.seed = 3;
  for (RuleKind kind : {RuleKind::unit, RuleKind::momentum, RuleKind::clipup, RuleKind::adam}) {
    options.rule.kind = kind;
    const SmallBatch data;
    const auto train = [&](int threads) {
      Optimizer optimizer(small_market(threads), {3, 2, 1}, {0, 0, 0}, options, std::nullopt);
      CHECK_THROWS_WITH_AS(
          optimizer.step({1.0f}, {0, 0, 0}, UnitVectorMode::whole),
          "step: expected a probe before every step of plan 'node', received none since the last "
          "step",
          Error);
      const double before = mean_loss(optimizer.market(), data.batch(), data.labels());
      for (int t = 0; t < 12; ++t) {
        Probe found = optimizer.probe(data.batch(), data.labels());
        optimizer.add_replica(found.losses, found.paths, UnitVectorMode::whole);
        optimizer.probe(data.batch(), data.labels());
        found = optimizer.probe(data.batch(), data.labels(), true);
        optimizer.step(found.losses, found.paths, UnitVectorMode::whole);
      }
      CHECK(mean_loss(optimizer.market(), data.batch(), data.labels()) < before);
      std::vector<float> all;
      for (const auto& model : optimizer.market().models())
        all.insert(all.end(), model->values(), model->values() + model->parameter_count());
      return all;
    };
    CHECK(train(1) == train(3));
  }
}

TEST_CASE("moments that do not fit are refused, and the old ones stay") {
  RuleOptions options;
  options.kind = RuleKind::adam;
  UpdateRule rule(options);
  const auto backend = make_backend("cpu", "float32", 1);
  Directions directions{{1, -2}, {}, {0.5f}};
  rule.apply(directions, UnitVectorMode::whole, *backend);
  CHECK(rule.state().first.empty());
  rule.finish();
  CHECK(directions[0].data()[1] == doctest::Approx(-1));
  const UpdateRule::State kept = rule.state();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::int64_t> counts{2, 0, 1};
  const auto refused = [&](UpdateRule::State state) {
    CHECK_THROWS_AS(rule.restore(std::move(state), counts), Error);
    CHECK(rule.state().first == kept.first);
  };
  refused({1, {{1, 2}, {}}, kept.second});
  refused({1, {{1, 2}, {}, {nan}}, kept.second});
  refused({1, kept.first, {{1, 2}, {}, {-1}}});
  refused({1, kept.first, {}});
  refused({0, kept.first, {}});
  rule.restore({0, {}, {}}, counts);
  CHECK(rule.state().steps == 0);
  options.momentum = 1;
  CHECK_THROWS_AS(UpdateRule{options}, Error);
}

TEST_CASE("what node perturbation cannot follow is refused by name") {
  auto market = std::make_shared<Market>(
      make_backend("cpu", "float32", 1),
      std::vector<std::shared_ptr<Model>>{image_model(true, 1), linear_model(90, 3, false, 2)});
  const std::vector<std::int64_t> counts{2, 1};
  CHECK_THROWS_WITH_AS(market->node_flops(counts, {2, 6, 5}),
                       "plan 'node': expected ops that keep samples and channels apart, received "
                       "batch_norm in layers.1 (norm)",
                       Error);
  CHECK_THROWS_AS(market->node_flops({2}, {2, 6, 5}), Error);
  CHECK(market->node_flops({1, 1}, {2, 6, 5}) ==
        2 * 90 * 18 + 2 * 2 * 90 * 3);  // the product twice: the answer and its gradient
}
