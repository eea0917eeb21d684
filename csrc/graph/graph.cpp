#include "graph/graph.h"

#include "core/error.h"

namespace marketplace {
namespace {

// Products of two of them are computed without a check.
void check_number(const std::string& where, const std::string& name, std::int64_t least,
                  std::int64_t value) {
  if (value < least || value > INT32_MAX)
    fail(where, name + " from " + std::to_string(least) + " to " + std::to_string(INT32_MAX),
         std::to_string(value));
}

void check_window(const Op& op, const std::string& where) {
  for (int axis = 0; axis < 2; ++axis) {
    check_number(where, "kernel_size", 1, op.window.kernel[axis]);
    check_number(where, "stride", 1, op.window.stride[axis]);
    check_number(where, "dilation", 1, op.window.dilation[axis]);
    check_number(where, "padding", 0, op.window.padding[axis]);
  }
}

void check_pool(const Op& op, const std::string& where) {
  check_window(op, where);
  for (int axis = 0; axis < 2; ++axis)
    if (2 * op.window.padding[axis] > op.window.kernel[axis])
      fail(where, "padding of at most half the kernel_size",
           std::to_string(op.window.padding[axis]));
}

void check_conv(const Graph& graph, const Op& op, const std::string& where) {
  check_window(op, where);
  const Shape& weight = graph.parameters.at(op.weight).shape;
  if (weight.size() != 4) fail(where, "weight (O, C/groups, kh, kw)", to_string(weight));
  if (op.groups < 1 || weight[0] % op.groups != 0)
    fail(where, "groups that divide the " + std::to_string(weight[0]) + " output channels",
         std::to_string(op.groups));
  if (op.bias >= 0 && graph.parameters.at(op.bias).shape != Shape{weight[0]})
    fail(where, "bias " + to_string(Shape{weight[0]}), to_string(graph.parameters[op.bias].shape));
}

void check_linear(const Graph& graph, const Op& op, const std::string& where) {
  const Shape& weight = graph.parameters.at(op.weight).shape;
  if (weight.size() != 2) fail(where, "weight (O, C)", to_string(weight));
  if (op.bias >= 0 && graph.parameters.at(op.bias).shape != Shape{weight[0]})
    fail(where, "bias " + to_string(Shape{weight[0]}), to_string(graph.parameters[op.bias].shape));
}

void check_norm(const Graph& graph, const Op& op, const std::string& where) {
  if (!(op.eps >= 0)) fail(where, "eps of at least 0", std::to_string(op.eps));
  const Shape expected = op.kind == OpKind::layer_norm ? op.shape : Shape{op.channels};
  for (int id : {op.weight, op.bias, op.running_mean, op.running_var})
    if (id >= 0 && graph.parameters.at(id).shape != expected)
      fail(where, "parameters " + to_string(expected), to_string(graph.parameters[id].shape));
}

}  // namespace

int Graph::add_parameter(const std::string& key, const Shape& shape, bool buffer) {
  for (const ParameterInfo& other : parameters)
    if (other.key == key) fail("parameter", "a key of its own", "'" + key + "' twice");
  for (std::int64_t extent : shape)
    if (extent < 1) fail("parameter " + key, "extents of at least 1", to_string(shape));
  std::int64_t left = kMostElements;
  for (std::int64_t extent : shape)
    if ((left /= extent) == 0) fail("parameter " + key, "at most 2^31 elements", to_string(shape));
  parameters.push_back({key, shape, buffer});
  return static_cast<int>(parameters.size()) - 1;
}

int Graph::add_op(Op op) {
  const std::string where = op_name(op.kind) + ": " + op.layer;
  const int count = static_cast<int>(ops.size());
  const bool two = op.kind == OpKind::add || op.kind == OpKind::multiply;
  for (const int input : {op.a, two ? op.b : op.a})
    if (input < 0 || input >= count) fail(where, "an earlier node as input", std::to_string(input));
  switch (op.kind) {
    case OpKind::conv2d: check_conv(*this, op, where); break;
    case OpKind::linear: check_linear(*this, op, where); break;
    case OpKind::instance_norm:
    case OpKind::batch_norm:
    case OpKind::layer_norm: check_norm(*this, op, where); break;
    case OpKind::max_pool2d:
    case OpKind::avg_pool2d: check_pool(op, where); break;
    default: break;
  }
  ops.push_back(std::move(op));
  return count;
}

void Graph::set_output(int node) {
  if (node < 0 || node >= static_cast<int>(ops.size()))
    fail("output", "a node of the graph", std::to_string(node));
  output = node;
}

UnaryKind unary_kind(const std::string& name) {
  if (name == "relu") return UnaryKind::relu;
  if (name == "gelu") return UnaryKind::gelu;
  if (name == "gelu_tanh") return UnaryKind::gelu_tanh;
  if (name == "sigmoid") return UnaryKind::sigmoid;
  if (name == "tanh") return UnaryKind::tanh;
  fail("unary", "relu, gelu, gelu_tanh, sigmoid or tanh", "'" + name + "'");
}

bool needs_whole_batch(const Graph& graph) {
  for (const Op& op : graph.ops)
    if (op.kind == OpKind::batch_norm) return true;
  return false;
}

}  // namespace marketplace
