// Shape inference: every node's shape for one sample, before anything runs.
#include <algorithm>

#include "core/error.h"
#include "graph/graph.h"

namespace marketplace {

std::string op_name(OpKind kind) {
  switch (kind) {
    case OpKind::input: return "input";
    case OpKind::conv2d: return "conv2d";
    case OpKind::linear: return "linear";
    case OpKind::instance_norm: return "instance_norm";
    case OpKind::batch_norm: return "batch_norm";
    case OpKind::layer_norm: return "layer_norm";
    case OpKind::unary: return "unary";
    case OpKind::max_pool2d: return "max_pool2d";
    case OpKind::avg_pool2d: return "avg_pool2d";
    case OpKind::mean: return "mean";
    case OpKind::reshape: return "reshape";
    case OpKind::flatten: return "flatten";
    case OpKind::add: return "add";
    case OpKind::multiply: return "multiply";
    case OpKind::affine: return "affine";
  }
  return "?";
}

namespace {

void check_size(const Shape& shape, const std::string& where) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) {
    if (extent < 1) fail(where, "extents of at least 1", to_string(shape, true));
    if (extent > kMostElements / count)
      fail(where, "a result of at most 2^31 elements", to_string(shape, true));
    count *= extent;
  }
}

struct Inference {
  const Graph& graph;
  const Op& op;
  const Shape& x;  // shape of the first input
  std::string where;

  [[noreturn]] void refuse(const std::string& expected) const {
    fail(where, expected, to_string(x, true));
  }

  Shape window_output(std::int64_t channels) const {
    const std::int64_t height = op.window.output_extent(0, x[1]);
    const std::int64_t width = op.window.output_extent(1, x[2]);
    if (height < 1 || width < 1) {
      const auto span = [&](int axis) {
        return std::to_string(op.window.dilation[axis] * (op.window.kernel[axis] - 1) + 1);
      };
      refuse("an image of at least " + span(0) + " x " + span(1) + " with its padding");
    }
    return {channels, height, width};
  }

  Shape conv2d() const {
    const Shape& weight = graph.parameters[op.weight].shape;
    const std::int64_t channels = weight[1] * op.groups;
    if (x.size() != 3 || x[0] != channels) refuse("(B, " + std::to_string(channels) + ", H, W)");
    const auto& padding = op.window.padding;
    check_size({x[0], x[1] + 2 * padding[0], x[2] + 2 * padding[1]}, where + " (padded)");
    return window_output(weight[0]);
  }

  Shape pool() const {
    if (x.size() != 3) refuse("(B, C, H, W)");
    return window_output(x[0]);
  }

  Shape linear() const {
    const Shape& weight = graph.parameters[op.weight].shape;
    if (x.empty() || x.back() != weight[1]) refuse("(B, ..., " + std::to_string(weight[1]) + ")");
    Shape out = x;
    out.back() = weight[0];
    return out;
  }

  Shape channel_norm() const {
    const bool ranks = x.size() == 3 || (op.kind == OpKind::batch_norm && x.size() == 1);
    if (!ranks || x[0] != op.channels)
      refuse("(B, " + std::to_string(op.channels) +
             (op.kind == OpKind::batch_norm ? ") or (B, " + std::to_string(op.channels) : "") +
             ", H, W)");
    return x;
  }

  Shape layer_norm() const {
    if (op.shape.empty() || op.shape.size() > x.size() ||
        !std::equal(op.shape.rbegin(), op.shape.rend(), x.rbegin()))
      refuse("a shape that ends in " + to_string(op.shape));
    return x;
  }

  // An axis as the caller counts it (batch = 0, negative from the end) to the sample's own.
  std::int64_t sample_axis(std::int64_t axis) const {
    const auto rank = static_cast<std::int64_t>(x.size()) + 1;
    const std::int64_t resolved = axis < 0 ? axis + rank : axis;
    if (resolved < 1 || resolved >= rank)
      fail(where,
           "an axis from 1 to " + std::to_string(rank - 1) + " (axis 0 is the batch) of " +
               to_string(x, true),
           std::to_string(axis));
    return resolved - 1;
  }

  Shape mean() const {
    std::vector<bool> reduced(x.size(), op.axes.empty());
    for (std::int64_t axis : op.axes) reduced[sample_axis(axis)] = true;
    Shape out;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!reduced[i])
        out.push_back(x[i]);
      else if (op.keepdim)
        out.push_back(1);
    }
    return out;
  }

  Shape reshape() const {
    Shape out = op.shape;
    std::int64_t known = 1, holes = 0;
    const std::int64_t total = element_count(x);
    for (std::int64_t extent : out) {
      if (extent == -1)
        ++holes;
      else if (extent < 1 || extent > total / known)
        refuse("as many elements as " + to_string(op.shape, true));
      else
        known *= extent;
    }
    const bool fits = holes == 0 ? known == total : holes == 1 && total % known == 0;
    if (!fits) refuse("as many elements as " + to_string(op.shape, true));
    for (std::int64_t& extent : out)
      if (extent == -1) extent = total / known;
    return out;
  }

  Shape flatten() const {
    if (x.empty()) refuse("(B, ...)");
    const std::int64_t start = sample_axis(op.axes.at(0)), end = sample_axis(op.axes.at(1));
    if (start > end)
      fail(where, "start_dim at most end_dim",
           std::to_string(op.axes[0]) + " and " + std::to_string(op.axes[1]));
    Shape out(x.begin(), x.begin() + start);
    std::int64_t merged = 1;
    for (std::int64_t i = start; i <= end; ++i) merged *= x[i];
    out.push_back(merged);
    out.insert(out.end(), x.begin() + end + 1, x.end());
    return out;
  }

  Shape binary(const Shape& other) const {
    if (x != other)
      fail(where, "two operands of one shape",
           to_string(x, true) + " and " + to_string(other, true));
    return x;
  }
};

}  // namespace

std::vector<Shape> infer_shapes(const Graph& graph, const Shape& input) {
  check_size(input, "input");
  std::vector<Shape> shapes{input};
  for (std::size_t node = 1; node < graph.ops.size(); ++node) {
    const Op& op = graph.ops[node];
    const Inference infer{graph, op, shapes[op.a], op_name(op.kind) + ": " + op.layer};
    switch (op.kind) {
      case OpKind::conv2d: shapes.push_back(infer.conv2d()); break;
      case OpKind::linear: shapes.push_back(infer.linear()); break;
      case OpKind::instance_norm:
      case OpKind::batch_norm: shapes.push_back(infer.channel_norm()); break;
      case OpKind::layer_norm: shapes.push_back(infer.layer_norm()); break;
      case OpKind::max_pool2d:
      case OpKind::avg_pool2d: shapes.push_back(infer.pool()); break;
      case OpKind::mean: shapes.push_back(infer.mean()); break;
      case OpKind::reshape: shapes.push_back(infer.reshape()); break;
      case OpKind::flatten: shapes.push_back(infer.flatten()); break;
      case OpKind::add:
      case OpKind::multiply: shapes.push_back(infer.binary(shapes[op.b])); break;
      default: shapes.push_back(shapes[op.a]); break;
    }
    check_size(shapes.back(), infer.where);
  }
  return shapes;
}

std::int64_t count_flops(const Graph& graph, const std::vector<Shape>& shapes) {
  std::int64_t flops = 0;
  for (std::size_t node = 1; node < graph.ops.size(); ++node) {
    const Op& op = graph.ops[node];
    if (op.kind != OpKind::conv2d && op.kind != OpKind::linear) continue;
    const Shape& weight = graph.parameters[op.weight].shape;
    flops += 2 * element_count(shapes[node]) * (element_count(weight) / weight[0]);
  }
  return flops;
}

}  // namespace marketplace
