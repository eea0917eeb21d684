// From a graph to a program: layouts, fused activations, scratch slots, packed weights.
#include <algorithm>
#include <numeric>

#include "cpu/geometry.h"
#include "cpu/program.h"
#include "cpu/tile_rows.h"
#include "cpu/winograd.h"

namespace marketplace::cpu {
namespace {

struct Value {
  int slot = kInputSlot;
  Layout layout;
};

class Lowering {
 public:
  Lowering(const Model& model, const Shape& input_shape, DType dtype, const KernelTable& kernels,
           Convolution convolution)
      : graph_(model.graph()),
        readers_(graph_),
        shapes_(infer_shapes(graph_, input_shape)),
        dtype_(dtype),
        element_bytes_(size_bytes(dtype)),
        kernels_(kernels),
        convolution_(convolution) {
    program_.slots.push_back({element_count(input_shape)});
    program_.input_size = element_count(input_shape);
  }

  Program run(Layout input_layout, bool last) {
    values_[0].layout = input_layout;
    for (int node = 1; node < static_cast<int>(graph_.ops.size()); ++node)
      if (readers_.live(node) && !done_[node]) lower_op(node);
    Value out = values_[graph_.output];
    const Shape& shape = shapes_[graph_.output];
    if (last) out = as_float(planar(graph_.output), element_count(shape));
    if (out.slot == kInputSlot) out = copy(out, shape);
    program_.output_slot = out.slot;
    program_.output_layout = out.layout;
    program_.output_shape = shape;
    program_.output_size = element_count(shape);
    program_.flops = count_flops(graph_, shapes_);
    place_slots(program_);
    return std::move(program_);
  }

 private:
  int new_slot(std::int64_t size) {
    program_.slots.push_back({size, 0, 0, static_cast<int>(program_.steps.size()), 0});
    return static_cast<int>(program_.slots.size()) - 1;
  }

  Step& emit(StepKind kind, int node, int a, std::int64_t out_size) {
    Step step;
    step.kind = kind;
    step.node = node;
    step.a = a;
    step.out = new_slot(out_size);
    program_.steps.push_back(std::move(step));
    return program_.steps.back();
  }

  Value copy(Value from, const Shape& shape) {
    return {emit(StepKind::copy, -1, from.slot, element_count(shape)).out, from.layout};
  }

  Value transpose(Value from, std::int64_t rows, std::int64_t columns, Layout to) {
    Step& step = emit(StepKind::transpose, -1, from.slot, rows * columns);
    step.rows = rows;
    step.channels = columns;
    return {step.out, to};
  }

  Value planar(int node) {
    const Value value = values_[node];
    if (value.layout.planar()) return value;
    return values_[node] = transpose(value, value.layout.pixels, value.layout.channels, {});
  }

  Value channels_last(int node) {
    const Layout wanted = image_layout(shapes_[node]);
    if (values_[node].layout == wanted) return values_[node];
    const Value value = planar(node);
    if (wanted.planar()) return value;
    return values_[node] = transpose(value, wanted.channels, wanted.pixels, wanted);
  }

  // Float32 whatever the compute type: losses differ by less than bfloat16 can tell apart.
  Value as_float(Value from, std::int64_t count) {
    if (element_bytes_ == 4) return from;
    for (Step& step : program_.steps)
      if (step.out == from.slot && step.kind == StepKind::contract && readers(from.slot) == 0) {
        step.contraction.float_out = true;
        return from;
      }
    return {emit(StepKind::to_float, -1, from.slot, count).out, {}};
  }

  int readers(int slot) const {
    int count = 0;
    for (const Step& step : program_.steps) count += (step.a == slot) + (step.b == slot);
    return count;
  }

  std::int64_t reserve(std::int64_t bytes) {
    const std::int64_t at = program_.packed_bytes;
    program_.packed_bytes += round_up(bytes, kLineBytes);
    return at;
  }

  // A parameter that kernels read as plain float32.
  std::int64_t reserve_floats(int id) {
    if (id < 0) return -1;
    const std::int64_t count = element_count(graph_.parameters[id].shape);
    return reserve(count * static_cast<std::int64_t>(sizeof(float)));
  }

  // Weights, bias and, where it is the only reader, the relu that follows.
  void finish_contraction(Step& step, const Op& op, int node) {
    Contraction& c = step.contraction;
    const auto runs = static_cast<std::int64_t>(c.run_offset.size());
    c.panel_depth = padded_depth(runs, c.run_length, dtype_, kernels_);
    c.panel_bytes =
        round_up(padded_columns(c.columns, kernels_) * c.panel_depth * element_bytes_, kLineBytes);
    if (multiplies_tiles(kernels_, dtype_)) place_rows(c);
    program_.workspace_bytes = std::max(program_.workspace_bytes, c.workspace_bytes);
    finish_product(step, op, node, c.panel_bytes * c.groups);
  }

  void finish_product(Step& step, const Op& op, int node, std::int64_t panel_bytes) {
    const std::int64_t weights = element_count(graph_.parameters[op.weight].shape);
    step.weight = op.weight;
    step.bias = op.bias;
    const std::int64_t block = kernels_.vector_floats * kernels_.tile_vectors;
    const auto depth = static_cast<std::int64_t>(step.contraction.target.size());
    program_.staging_floats = std::max(program_.staging_floats, weights + depth * block);
    step.weight_at = reserve(panel_bytes);
    step.bias_at = reserve_floats(op.bias);
    fuse_relu(step, node);
  }

  // A relu that alone reads a step's result happens on the way out; the node whose value that is.
  int fuse_relu(Step& step, int node) {
    const int next = readers_.only(node);
    const bool relu = next >= 0 && graph_.ops[next].kind == OpKind::unary &&
                      graph_.ops[next].unary == UnaryKind::relu;
    if (!relu) return node;
    step.relu = true;
    done_[next] = true;
    values_[next] = values_[node];
    return next;
  }

  // The input of a convolution with its zeros around it; (H, W) of the result.
  int padded(const Op& op, int slot, const Shape& in, std::int64_t (&extent)[2]) {
    extent[0] = in[1] + 2 * op.window.padding[0];
    extent[1] = in[2] + 2 * op.window.padding[1];
    if (op.window.padding[0] == 0 && op.window.padding[1] == 0) return slot;
    Step& step = emit(StepKind::pad, -1, slot, extent[0] * extent[1] * in[0]);
    step.height = in[1];
    step.width = in[2];
    step.channels = in[0];
    step.pad_h = op.window.padding[0];
    step.pad_w = op.window.padding[1];
    return step.out;
  }

  void lower_conv(int node) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const Shape& out = shapes_[node];
    if (convolution_ == Convolution::fastest)
      if (const int outputs = winograd_outputs(op, in, out, dtype_, kernels_))
        return lower_winograd(node, outputs);
    std::int64_t extent[2];
    const int slot = padded(op, channels_last(op.a).slot, in, extent);
    const bool grouped = groups_share_vectors(op, in, out);
    const StepKind kind = grouped ? StepKind::grouped : StepKind::contract;
    Step& step = emit(kind, node, slot, element_count(out));
    step.contraction = conv_contraction(op, extent[1], in[0], out);
    values_[node] = {step.out, image_layout(out)};
    if (grouped)
      finish_product(step, op, node, grouped_panel_bytes(step.contraction));
    else
      finish_contraction(step, op, node);
  }

  // Two groups or more to a vector; one of more than half a vector may as well have it alone.
  bool groups_share_vectors(const Op& op, const Shape& in, const Shape& out) const {
    return op.groups > 1 && 2 * std::max(in[0], out[0]) <= kernels_.vector_floats * op.groups;
  }

  std::int64_t grouped_panel_bytes(const Contraction& c) const {
    const std::int64_t at_once = kernels_.vector_floats / std::max(c.group_input, c.columns);
    const auto depth = static_cast<std::int64_t>(c.target.size());
    return (c.groups + at_once - 1) / at_once * depth * kernels_.vector_floats *
           static_cast<std::int64_t>(sizeof(float));
  }

  void lower_winograd(int node, int outputs) {
    const Op& op = graph_.ops[node];
    const Shape& out = shapes_[node];
    const int slot = channels_last(op.a).slot;
    Step& step = emit(StepKind::winograd, node, slot, element_count(out));
    step.winograd = winograd_args(op, shapes_[op.a], out, outputs, dtype_, kernels_);
    const std::int64_t taps = op.window.kernel[0] * op.window.kernel[1];
    step.contraction.target.resize(step.winograd.channels * taps);
    std::iota(step.contraction.target.begin(), step.contraction.target.end(), 0);
    program_.workspace_bytes = std::max(program_.workspace_bytes,
                                        winograd_workspace_bytes(step.winograd, dtype_, kernels_));
    values_[node] = {step.out, image_layout(out)};
    finish_product(step, op, node, winograd_panel_bytes(step.winograd, dtype_, kernels_));
  }

  // A flattened image need not be put in order: its weights are, while they are packed.
  Layout linear_layout(const Op& op) {
    return shapes_[op.a].size() == 1 ? values_[op.a].layout : planar(op.a).layout;
  }

  void lower_linear(int node) {
    const Op& op = graph_.ops[node];
    const Shape& weight = graph_.parameters[op.weight].shape;
    const Layout layout = linear_layout(op);
    Step& step = emit(StepKind::contract, node, values_[op.a].slot, element_count(shapes_[node]));
    step.contraction = linear_contraction(weight, element_count(shapes_[node]), layout);
    values_[node] = {step.out, {}};
    finish_contraction(step, op, node);
  }

  void lower_norm(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const bool layer = kind == StepKind::layer_norm;
    const Value value = layer || in.size() != 3 ? planar(op.a) : channels_last(op.a);
    Step& step = emit(kind, node, value.slot, element_count(in));
    step.channels = layer ? element_count(op.shape) : in[0];
    step.rows = element_count(in) / step.channels;
    step.eps = static_cast<float>(op.eps);
    step.weight = op.weight;
    step.bias = op.bias;
    step.weight_at = reserve_floats(op.weight);
    step.bias_at = reserve_floats(op.bias);
    program_.largest_channels = std::max(program_.largest_channels, step.channels);
    values_[node] = {step.out, value.layout};
    if (layer) return;
    const int last = fuse_relu(step, node);
    const int pool = kind == StepKind::instance_norm ? only_pool(last) : -1;
    if (pool < 0) return;
    program_.slots[step.out].size = element_count(shapes_[pool]);
    step.pooled = true;
    step.pool = pool_args(graph_.ops[pool], shapes_[graph_.ops[pool].a], shapes_[pool]);
    done_[pool] = true;
    values_[pool] = {step.out, image_layout(shapes_[pool])};
  }

  // The max pool that alone reads a node, if its windows lie side by side.
  int only_pool(int node) const {
    const int next = readers_.only(node);
    if (next < 0 || graph_.ops[next].kind != OpKind::max_pool2d) return -1;
    return side_by_side(graph_.ops[next].window) ? next : -1;
  }

  void lower_pool(int node, StepKind kind) {
    const int slot = channels_last(graph_.ops[node].a).slot;
    Step& step = emit(kind, node, slot, element_count(shapes_[node]));
    step.pool = pool_args(graph_.ops[node], shapes_[graph_.ops[node].a], shapes_[node]);
    values_[node] = {step.out, image_layout(shapes_[node])};
  }

  int emit_mean(int node, int slot, const MeanPass& pass) {
    Step& step = emit(StepKind::mean, node, slot, pass.outer * pass.inner);
    step.outer = pass.outer, step.axis = pass.axis, step.inner = pass.inner;
    return step.out;
  }

  void lower_mean(int node) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    if (!values_[op.a].layout.planar() && averages_pixels(op, in) &&
        values_[op.a].layout == image_layout(in)) {
      values_[node] = {emit_mean(node, values_[op.a].slot, {1, in[1] * in[2], in[0]}), {}};
      return;
    }
    int slot = planar(op.a).slot;
    for (const MeanPass& pass : mean_passes(op, in)) slot = emit_mean(node, slot, pass);
    values_[node] = {slot, {}};
  }

  void lower_binary(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const bool image =
        shapes_[node].size() == 3;  // the layout that its neighbours most likely want
    const bool agree = values_[op.a].layout == values_[op.b].layout;
    const Value a = agree ? values_[op.a] : image ? channels_last(op.a) : planar(op.a);
    const Value b = agree ? values_[op.b] : image ? channels_last(op.b) : planar(op.b);
    Step& step = emit(kind, node, a.slot, element_count(shapes_[node]));
    step.b = b.slot;
    values_[node] = {step.out, a.layout};
    if (kind == StepKind::add) fuse_relu(step, node);
  }

  void lower_elementwise(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const Value a = values_[op.a];
    Step& step = emit(kind, node, a.slot, element_count(shapes_[node]));
    step.unary = static_cast<Unary>(op.unary);
    step.scale = static_cast<float>(op.scale);
    step.shift = static_cast<float>(op.shift);
    values_[node] = {step.out, a.layout};
  }

  void lower_op(int node) {
    switch (graph_.ops[node].kind) {
      case OpKind::input: break;
      case OpKind::conv2d: return lower_conv(node);
      case OpKind::linear: return lower_linear(node);
      case OpKind::instance_norm: return lower_norm(node, StepKind::instance_norm);
      case OpKind::batch_norm: return lower_norm(node, StepKind::batch_norm);
      case OpKind::layer_norm: return lower_norm(node, StepKind::layer_norm);
      case OpKind::unary: return lower_elementwise(node, StepKind::unary);
      case OpKind::affine: return lower_elementwise(node, StepKind::affine);
      case OpKind::max_pool2d: return lower_pool(node, StepKind::max_pool);
      case OpKind::avg_pool2d: return lower_pool(node, StepKind::avg_pool);
      case OpKind::mean: return lower_mean(node);
      case OpKind::reshape:
      case OpKind::flatten: values_[node] = values_[graph_.ops[node].a]; return;
      case OpKind::add: return lower_binary(node, StepKind::add);
      case OpKind::multiply: return lower_binary(node, StepKind::multiply);
    }
  }

  const Graph& graph_;
  const Readers readers_;
  std::vector<Shape> shapes_;
  const DType dtype_;
  const std::int64_t element_bytes_;
  const KernelTable& kernels_;
  const Convolution convolution_;
  Program program_;
  std::vector<bool> done_ = std::vector<bool>(graph_.ops.size(), false);
  std::vector<Value> values_ = std::vector<Value>(graph_.ops.size());
};

}  // namespace

std::int64_t padded_columns(std::int64_t columns, const KernelTable& kernels) {
  const std::int64_t block = kernels.vector_floats * kernels.tile_vectors;
  const std::int64_t rest = columns % block;
  const std::int64_t tail = rest == 0                      ? 0
                            : rest > kernels.vector_floats ? block
                                                           : kernels.vector_floats;
  return columns / block * block + tail;
}

std::int64_t padded_depth(std::int64_t runs, std::int64_t run_length, DType dtype,
                          const KernelTable& kernels) {
  if (dtype == DType::float32) return runs * run_length;
  const std::int64_t depth = runs * round_up(run_length, 2);
  return kernels.matrix_units ? round_up(depth, kMatrixSteps) : depth;
}

Program lower(const Model& model, const Shape& input_shape, Layout input_layout, bool last,
              DType dtype, const KernelTable& kernels, Convolution convolution) {
  return Lowering(model, input_shape, dtype, kernels, convolution).run(input_layout, last);
}

}  // namespace marketplace::cpu
