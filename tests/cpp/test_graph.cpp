#include <doctest/doctest.h>

#include "core/error.h"
#include "markets.h"

using namespace marketplace;
using namespace marketplace::tests;

TEST_CASE("shapes are inferred and flops counted before anything runs") {
  const auto model = image_model(false, 1);
  const auto shapes = infer_shapes(model->graph(), {2, 6, 5});
  CHECK(shapes[1] == Shape{3, 6, 5});
  CHECK(shapes[3] == Shape{90});
  CHECK(count_flops(model->graph(), shapes) == 2 * 90 * 18);
}

TEST_CASE("errors name the layer, what it expected and what it received") {
  const auto model = image_model(false, 1);
  CHECK_THROWS_WITH_AS(infer_shapes(model->graph(), {3, 6, 5}),
                       "conv2d: layers.0 (Conv2d): expected (B, 2, H, W), received (B, 3, 6, 5)",
                       Error);
  CHECK_THROWS_WITH_AS(linear_model(4, 2, false, 1)->find("nothing"),
                       doctest::Contains("expected a key of the model"), Error);
}

TEST_CASE("an image smaller than the kernel is refused") {
  Graph graph;
  Op op;
  op.kind = OpKind::max_pool2d;
  op.layer = "layers.0 (max_pool2d)";
  op.a = 0;
  op.window.kernel[0] = op.window.kernel[1] = 3;
  graph.set_output(graph.add_op(op));
  CHECK(infer_shapes(graph, {1, 3, 3})[1] == Shape{1, 1, 1});
  CHECK_THROWS_WITH_AS(infer_shapes(graph, {1, 2, 3}), doctest::Contains("at least 3 x 3"), Error);
}

TEST_CASE("parameters are laid out by key, buffers spend no random numbers") {
  Graph graph;
  graph.add_parameter("b", {3}, false);
  graph.add_parameter("running", {4}, true);
  graph.add_parameter("a", {2, 2}, false);
  const Model model(graph);
  CHECK(model.parameter_count() == 7);
  CHECK(model.counter(2) == 0);
  CHECK(model.counter(0) == 4);
  CHECK(model.counter_end() == 7);
  CHECK(model.offset(0) == 4);
}

TEST_CASE("running statistics follow the leader's, the variance unbiased") {
  const auto model = image_model(true, 1);
  const int mean = model->find("layers.1.running_mean"), var = model->find("layers.1.running_var");
  model->absorb({2, 5, {1, 2, 3}, {4, 4, 4}});
  CHECK(model->data(mean)[1] == doctest::Approx(0.2));
  CHECK(model->data(var)[0] == doctest::Approx(0.5));
}
