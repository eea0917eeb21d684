// A spec's layers as a small list of ops in the order in which they were recorded, and the table of
// their parameters. Nodes are numbered by position; node 0 is the spec's input. Shapes are one
// sample's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/shape.h"

namespace marketplace {

enum class OpKind {
  input,
  conv2d,
  linear,
  instance_norm,
  batch_norm,
  layer_norm,
  unary,
  max_pool2d,
  avg_pool2d,
  mean,
  reshape,
  flatten,
  add,
  multiply,
  affine,
};

enum class UnaryKind { relu, gelu, gelu_tanh, sigmoid, tanh };

// Of a value or a parameter: element counts are multiplied without a check, and index loops.
constexpr std::int64_t kMostElements = std::int64_t{1} << 31;

// The sliding window of a convolution or a pool, (height, width) each.
struct Window {
  std::int64_t kernel[2] = {1, 1};
  std::int64_t stride[2] = {1, 1};
  std::int64_t padding[2] = {0, 0};
  std::int64_t dilation[2] = {1, 1};

  std::int64_t output_extent(int axis, std::int64_t input_extent) const {
    const std::int64_t span = dilation[axis] * (kernel[axis] - 1) + 1;
    const std::int64_t room = input_extent + 2 * padding[axis] - span;
    return room < 0 ? 0 : room / stride[axis] + 1;
  }
};

// Attributes by op; what an op does not name here it ignores.
struct Op {
  OpKind kind = OpKind::input;
  std::string layer;                        // "layers.2 (Conv2d)", for messages
  int a = -1, b = -1;                       // input nodes
  int weight = -1, bias = -1;               // parameter ids, -1 when absent
  int running_mean = -1, running_var = -1;  // batch_norm: buffer ids
  Window window;                            // conv2d, pools
  std::int64_t groups = 1;                  // conv2d
  std::int64_t channels = 0;                // instance_norm, batch_norm
  UnaryKind unary = UnaryKind::relu;        // unary
  double eps = 1e-5, momentum = 0.1;        // norms
  double scale = 1, shift = 0;              // affine: scale * x + shift
  bool count_include_pad = true;            // avg_pool2d
  bool keepdim = false;                     // mean
  std::vector<std::int64_t>
      axes;     // mean: axes; flatten: {start, end}; both count the batch as axis 0
  Shape shape;  // reshape: may hold one -1; layer_norm: normalised shape
};

struct ParameterInfo {
  std::string key;
  Shape shape;
  bool buffer = false;  // running statistics: never perturbed, no random numbers spent
};

struct Graph {
  std::vector<Op> ops{Op{}};
  std::vector<ParameterInfo> parameters;
  int output = 0;

  int add_parameter(const std::string& key, const Shape& shape, bool buffer);
  int add_op(Op op);  // checks what does not depend on the input's shape
  void set_output(int node);
};

std::string op_name(OpKind kind);
UnaryKind unary_kind(const std::string& name);

// The shape of every node for one sample's input shape; throws, naming the layer, where they do not
// fit.
std::vector<Shape> infer_shapes(const Graph& graph, const Shape& input);

// Multiply-adds count two; only convolutions and products count. Per sample.
std::int64_t count_flops(const Graph& graph, const std::vector<Shape>& shapes);

// Whether a batch normalisation makes the samples of a batch depend on one another while probing.
bool needs_whole_batch(const Graph& graph);

}  // namespace marketplace
