// From a graph to a program: layouts, fused activations, which values vendors share, packed
// weights.
#include <algorithm>
#include <limits>

#include "gpu/program.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kAlignBytes = 256;
constexpr std::int64_t kDepthBytes = 64;  // a panel's columns are whole steps of the product kernel

struct Value {
  int slot = kInputSlot;
  Layout layout;
};

class Lowering {
 public:
  Lowering(const Model& model, const Shape& input_shape, DType dtype)
      : graph_(model.graph()),
        readers_(graph_),
        shapes_(infer_shapes(graph_, input_shape)),
        element_bytes_(size_bytes(dtype)) {
    program_.slots.push_back({element_count(input_shape), true, false, 0, 0});
    program_.input_size = element_count(input_shape);
    program_.whole_batch = needs_whole_batch(graph_);
  }

  Program run(Layout input_layout, bool last) {
    values_[0].layout = input_layout;
    for (int node = 1; node < static_cast<int>(graph_.ops.size()); ++node)
      if (readers_.live(node) && !done_[node]) lower_op(node);
    const Shape& shape = shapes_[graph_.output];
    Value out = last ? as_float(planar(graph_.output)) : values_[graph_.output];
    // a result that all vendors share is still one per row
    if (program_.slots[out.slot].shared) out = copy(out, program_.slots[out.slot].floats);
    program_.output_slot = out.slot;
    program_.output_layout = out.layout;
    program_.output_shape = shape;
    program_.output_size = element_count(shape);
    program_.flops = count_flops(graph_, shapes_);
    finish(last);
    return std::move(program_);
  }

 private:
  void finish(bool last) {
    for (int i = 0; i < static_cast<int>(program_.steps.size()); ++i)
      for (int slot : {program_.steps[i].a, program_.steps[i].b, program_.steps[i].out})
        if (slot >= 0) program_.slots[slot].last = i;
    const Step& step = program_.steps.back();
    program_.linear_head = last && step.kind == StepKind::contract &&
                           step.out == program_.output_slot && step.contraction.rows() == 1 &&
                           step.contraction.groups == 1;
  }

  bool shared(int slot) const { return slot < 0 || program_.slots[slot].shared; }

  // One result per row of the plan where vendors' weights take part, see Slot.
  Step& emit(StepKind kind, int node, int a, int b, std::int64_t out_size, bool per_vendor) {
    Step step;
    step.kind = kind;
    step.node = node;
    step.a = a;
    step.b = b;
    step.out = static_cast<int>(program_.slots.size());
    const bool common = !per_vendor && shared(a) && shared(b);
    const int now = static_cast<int>(program_.steps.size());
    program_.slots.push_back({out_size, common, false, now, now});
    program_.steps.push_back(std::move(step));
    return program_.steps.back();
  }

  Value copy(Value from, bool floats) {
    const Step& step =
        emit(StepKind::copy, -1, from.slot, -1, program_.slots[from.slot].size, true);
    program_.slots[step.out].floats = floats;
    return {step.out, from.layout};
  }

  Value transpose(Value from, std::int64_t rows, std::int64_t columns, Layout to) {
    Step& step = emit(StepKind::transpose, -1, from.slot, -1, rows * columns, false);
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
  Value as_float(Value from) {
    if (element_bytes_ == 4) return from;
    int readers = 0;
    for (const Step& step : program_.steps)
      readers += (step.a == from.slot) + (step.b == from.slot);
    for (Step& step : program_.steps)
      if (step.out == from.slot && step.kind == StepKind::contract && readers == 0) {
        program_.slots[from.slot].floats = true;
        return from;
      }
    return copy(from, true);
  }

  std::int64_t reserve(std::int64_t bytes) {
    const std::int64_t at = program_.packed_bytes;
    program_.packed_bytes += round_up(bytes, kAlignBytes);
    return at;
  }

  // A parameter that kernels read as plain float32.
  std::int64_t reserve_floats(int id) {
    if (id < 0) return -1;
    Packing packing;
    packing.id = id;
    packing.at = reserve(element_count(graph_.parameters[id].shape) * 4);
    packing.depth = packing.padded_depth = element_count(graph_.parameters[id].shape);
    program_.packings.push_back(packing);
    return packing.at;
  }

  std::int64_t reserve_panel(int id, const Contraction& c) {
    Packing packing;
    packing.id = id;
    packing.panel = true;
    packing.at = reserve(c.groups * c.columns * c.padded_depth * element_bytes_);
    packing.depth = c.depth;
    packing.padded_depth = c.padded_depth;
    packing.order_outer = c.order_outer;
    packing.order_inner = c.order_inner;
    program_.packings.push_back(packing);
    return packing.at;
  }

  void add_taps(Contraction& c) {
    const Window& w = c.window;
    const std::int64_t each = c.channels / c.groups;
    c.taps_at = static_cast<std::int64_t>(program_.taps.size());
    for (std::int64_t kh = 0; kh < w.kernel[0]; ++kh)
      for (std::int64_t kw = 0; kw < w.kernel[1]; ++kw)
        for (std::int64_t i = 0; i < each; ++i)
          program_.taps.push_back(
              {(kh * w.dilation[0] * c.width + kw * w.dilation[1]) * c.channels + i,
               static_cast<std::int32_t>(kh * w.dilation[0]),
               static_cast<std::int32_t>(kw * w.dilation[1])});
    for (std::int64_t k = c.depth; k < c.padded_depth; ++k)
      program_.taps.push_back({0, std::numeric_limits<std::int32_t>::max() / 2, 0});
  }

  void finish_contraction(Step& step, const Op& op, int node) {
    Contraction& c = step.contraction;
    c.padded_depth = round_up(c.depth, kDepthBytes / element_bytes_);
    add_taps(c);
    step.weight = op.weight;
    step.bias = op.bias;
    step.weight_at = reserve_panel(op.weight, c);
    step.bias_at = reserve_floats(op.bias);
    values_[node] = {step.out, image_layout({c.columns * c.groups, c.out_height, c.out_width})};
    fuse_activation(step, node, true);
  }

  // A function that alone reads a step's result happens on the way out; the node whose value that
  // is. Any function behind a product, a relu elsewhere.
  int fuse_activation(Step& step, int node, bool any) {
    const int next = readers_.only(node);
    if (next < 0 || graph_.ops[next].kind != OpKind::unary) return node;
    if (!any && graph_.ops[next].unary != UnaryKind::relu) return node;
    step.activation = activation_of(graph_.ops[next].unary);
    done_[next] = true;
    values_[next] = values_[node];
    return next;
  }

  void lower_conv(int node) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const Shape& out = shapes_[node];
    const int slot = channels_last(op.a).slot;
    Step& step = emit(StepKind::contract, node, slot, -1, element_count(out), true);
    Contraction& c = step.contraction;
    c.window = op.window;
    c.channels = in[0], c.height = in[1], c.width = in[2];
    c.out_height = out[1], c.out_width = out[2];
    c.groups = op.groups;
    c.columns = out[0] / op.groups;
    c.order_outer = in[0] / op.groups;
    c.order_inner = op.window.kernel[0] * op.window.kernel[1];
    c.depth = c.order_outer * c.order_inner;
    finish_contraction(step, op, node);
  }

  // A flattened image need not be put in order: its weights are, while they are packed.
  void lower_linear(int node) {
    const Op& op = graph_.ops[node];
    const Shape& weight = graph_.parameters[op.weight].shape;
    const Layout layout = shapes_[op.a].size() == 1 ? values_[op.a].layout : planar(op.a).layout;
    const int slot = values_[op.a].slot;
    const std::int64_t size = element_count(shapes_[node]);
    Step& step = emit(StepKind::contract, node, slot, -1, size, true);
    Contraction& c = step.contraction;
    c.height = c.out_height = size / weight[0];
    c.channels = c.depth = weight[1];
    c.columns = weight[0];
    if (!layout.planar()) c.order_outer = layout.channels, c.order_inner = layout.pixels;
    finish_contraction(step, op, node);
    values_[node].layout = {};
    if (const int next = readers_.only(node); next >= 0 && done_[next]) values_[next].layout = {};
  }

  void lower_norm(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const bool layer = kind == StepKind::layer_norm;
    const Value value = layer || in.size() != 3 ? planar(op.a) : channels_last(op.a);
    const bool per_vendor = op.weight >= 0 || op.bias >= 0 || kind == StepKind::batch_norm;
    Step& step = emit(kind, node, value.slot, -1, element_count(in), per_vendor);
    step.channels = layer ? element_count(op.shape) : in[0];
    step.rows = element_count(in) / step.channels;
    step.eps = static_cast<float>(op.eps);
    step.weight = op.weight;
    step.bias = op.bias;
    step.weight_at = reserve_floats(op.weight);
    step.bias_at = reserve_floats(op.bias);
    program_.largest_channels = std::max(program_.largest_channels, step.channels);
    values_[node] = {step.out, value.layout};
    const int last = fuse_activation(step, node, false);
    if (kind == StepKind::instance_norm) fuse_pool(step, last);
  }

  // The max pool that alone reads a normalised image, if its windows lie side by side.
  void fuse_pool(Step& step, int node) {
    const int pool = readers_.only(node);
    if (pool < 0 || graph_.ops[pool].kind != OpKind::max_pool2d) return;
    if (!side_by_side(graph_.ops[pool].window)) return;
    step.pooled = true;
    set_pool(step, pool);
    program_.slots[step.out].size = element_count(shapes_[pool]);
    done_[pool] = true;
    values_[pool] = {step.out, image_layout(shapes_[pool])};
  }

  void set_pool(Step& step, int node) {
    const Op& op = graph_.ops[node];
    step.window = op.window;
    step.in_shape = shapes_[op.a];
    step.out_shape = shapes_[node];
    step.count_include_pad = op.count_include_pad;
  }

  void lower_pool(int node, StepKind kind) {
    const int slot = channels_last(graph_.ops[node].a).slot;
    set_pool(emit(kind, node, slot, -1, element_count(shapes_[node]), false), node);
    values_[node] = {program_.steps.back().out, image_layout(shapes_[node])};
  }

  int emit_mean(int node, int slot, const MeanPass& pass) {
    Step& step = emit(StepKind::mean, node, slot, -1, pass.outer * pass.inner, false);
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
    const bool image = shapes_[node].size() == 3;  // the layout that neighbours most likely want
    const bool agree = values_[op.a].layout == values_[op.b].layout;
    const Value a = agree ? values_[op.a] : image ? channels_last(op.a) : planar(op.a);
    const Value b = agree ? values_[op.b] : image ? channels_last(op.b) : planar(op.b);
    Step& step = emit(kind, node, a.slot, b.slot, element_count(shapes_[node]), false);
    values_[node] = {step.out, a.layout};
    if (kind == StepKind::add) fuse_activation(step, node, false);
  }

  void lower_elementwise(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const Value a = values_[op.a];
    Step& step = emit(kind, node, a.slot, -1, element_count(shapes_[node]), false);
    if (kind == StepKind::unary) step.activation = activation_of(op.unary);
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
  const std::int64_t element_bytes_;
  Program program_;
  std::vector<bool> done_ = std::vector<bool>(graph_.ops.size(), false);
  std::vector<Value> values_ = std::vector<Value>(graph_.ops.size());
};

}  // namespace

Program lower(const Model& model, const Shape& input_shape, Layout input_layout, bool last,
              DType dtype) {
  return Lowering(model, input_shape, dtype).run(input_layout, last);
}

}  // namespace marketplace::gpu
