// Small markets for the C++ tests, and the plainest possible way to evaluate one.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "core/threefry.h"
#include "devices.h"
#include "graph/model.h"
#include "market/market.h"

namespace marketplace::tests {

inline void fill(std::vector<float>& values, std::uint64_t seed) {
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = word_to_float(threefry2x32(seed, static_cast<std::uint32_t>(i), 0).lane0) - 0.5f;
}

inline std::shared_ptr<Model> with_random_weights(Graph graph, std::uint64_t seed) {
  auto model = std::make_shared<Model>(std::move(graph));
  std::vector<float> values(model->parameter_count());
  fill(values, seed);
  std::copy(values.begin(), values.end(), model->values());
  return model;
}

// (B, in) -> (B, out), with a relu when asked.
inline std::shared_ptr<Model> linear_model(std::int64_t in, std::int64_t out, bool relu,
                                           std::uint64_t seed) {
  Graph graph;
  Op op;
  op.kind = OpKind::linear;
  op.layer = "layers.0 (Linear)";
  op.a = 0;
  op.weight = graph.add_parameter("layers.0.weight", {out, in}, false);
  op.bias = graph.add_parameter("layers.0.bias", {out}, false);
  int node = graph.add_op(op);
  if (relu) {
    Op next;
    next.kind = OpKind::unary;
    next.layer = "layers.1 (relu)";
    next.a = node;
    node = graph.add_op(next);
  }
  graph.set_output(node);
  return with_random_weights(std::move(graph), seed);
}

// (B, 2, 6, 5) -> convolution with padding, batch or instance norm, flatten: (B, 3 * 6 * 5)
inline std::shared_ptr<Model> image_model(bool batch_norm, std::uint64_t seed) {
  Graph graph;
  Op conv;
  conv.kind = OpKind::conv2d;
  conv.layer = "layers.0 (Conv2d)";
  conv.a = 0;
  conv.weight = graph.add_parameter("layers.0.weight", {3, 2, 3, 3}, false);
  for (int axis : {0, 1}) conv.window.kernel[axis] = 3, conv.window.padding[axis] = 1;
  Op norm;
  norm.kind = batch_norm ? OpKind::batch_norm : OpKind::instance_norm;
  norm.layer = "layers.1 (norm)";
  norm.a = graph.add_op(conv);
  norm.channels = 3;
  if (batch_norm) {
    norm.running_mean = graph.add_parameter("layers.1.running_mean", {3}, true);
    norm.running_var = graph.add_parameter("layers.1.running_var", {3}, true);
  }
  Op flatten;
  flatten.kind = OpKind::flatten;
  flatten.layer = "layers.2 (flatten)";
  flatten.a = graph.add_op(norm);
  flatten.axes = {1, -1};
  graph.set_output(graph.add_op(flatten));
  return with_random_weights(std::move(graph), seed);
}

inline std::shared_ptr<Market> small_market(int threads, const char* dtype = "float32") {
  return std::make_shared<Market>(make_backend("cpu", dtype, threads),
                                  std::vector<std::shared_ptr<Model>>{
                                      linear_model(7, 33, true, 1), linear_model(33, 5, true, 2),
                                      linear_model(5, 3, false, 3)});
}

struct SmallBatch {
  std::vector<float> x = std::vector<float>(13 * 7);
  std::vector<std::int32_t> y;
  SmallBatch() {
    fill(x, 4);
    for (int b = 0; b < 13; ++b) y.push_back(b % 3);
  }
  Batch batch() const { return {x.data(), DType::float32, 13, {7}}; }
  Labels labels() const { return {y.data(), std::nullopt}; }
};

}  // namespace marketplace::tests
