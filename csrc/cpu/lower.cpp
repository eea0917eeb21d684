// From a graph to a program: layouts, fused activations, scratch slots, packed weights.
#include <algorithm>

#include "cpu/program.h"

namespace marketplace::cpu {
namespace {

constexpr std::int64_t kAlignBytes = 64;
constexpr std::int64_t kAlignElements = 32;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

struct Value {
  int slot = kInputSlot;
  Layout layout = Layout::planar;
};

class Lowering {
 public:
  Lowering(const Model& model, const Shape& input_shape, DType dtype, const KernelTable& kernels)
      : graph_(model.graph()),
        shapes_(infer_shapes(graph_, input_shape)),
        element_bytes_(size_bytes(dtype)),
        kernels_(kernels) {
    program_.slots.push_back({element_count(input_shape)});
    program_.input_size = element_count(input_shape);
    mark_live(graph_.output);
  }

  Program run(Layout input_layout, bool planar_output) {
    values_[0].layout = input_layout;
    for (int node = 1; node < static_cast<int>(graph_.ops.size()); ++node)
      if (live_[node] && !done_[node]) lower_op(node);
    Value out = values_[graph_.output];
    const Shape& shape = shapes_[graph_.output];
    if (planar_output) out = planar(graph_.output);
    if (out.slot == kInputSlot) out = copy(out, shape);
    program_.output_slot = out.slot;
    program_.output_layout = out.layout;
    program_.output_shape = shape;
    program_.output_size = element_count(shape);
    program_.flops = count_flops(graph_, shapes_);
    place_slots();
    return std::move(program_);
  }

 private:
  void mark_live(int node) {
    if (live_[node]) return;
    live_[node] = true;
    const Op& op = graph_.ops[node];
    for (int input : {op.a, op.b})
      if (input >= 0) ++uses_[input], mark_live(input);
  }

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

  // A swap of (rows, channels) in memory; free where one of them is 1.
  Value swap(Value from, const Shape& shape, Layout to) {
    const std::int64_t pixels = shape[1] * shape[2];
    if (shape[0] == 1 || pixels == 1) return {from.slot, to};
    Step& step = emit(StepKind::transpose, -1, from.slot, element_count(shape));
    step.rows = to == Layout::channels_last ? shape[0] : pixels;
    step.channels = to == Layout::channels_last ? pixels : shape[0];
    return {step.out, to};
  }

  Value channels_last(int node) {
    const Value value = values_[node];
    if (value.layout == Layout::channels_last || shapes_[node].size() != 3) return value;
    return values_[node] = swap(value, shapes_[node], Layout::channels_last);
  }

  Value planar(int node) {
    const Value value = values_[node];
    if (value.layout == Layout::planar) return value;
    return values_[node] = swap(value, shapes_[node], Layout::planar);
  }

  std::int64_t reserve(std::int64_t bytes) {
    const std::int64_t at = program_.packed_bytes;
    program_.packed_bytes += round_up(bytes, kAlignBytes);
    return at;
  }

  // A parameter that kernels read as plain float32.
  std::int64_t reserve_floats(int id) {
    if (id < 0) return -1;
    const std::int64_t count = element_count(graph_.parameters[id].shape);
    return reserve(count * static_cast<std::int64_t>(sizeof(float)));
  }

  std::int64_t panel_bytes(const Contraction& c) const {
    const std::int64_t block = kernels_.vector_floats * kernels_.tile_vectors;
    const std::int64_t rest = c.columns % block;
    const std::int64_t tail = rest == 0                       ? 0
                              : rest > kernels_.vector_floats ? block
                                                              : kernels_.vector_floats;
    const std::int64_t stored = element_bytes_ == 2 ? round_up(c.run_length, 2) : c.run_length;
    const auto runs = static_cast<std::int64_t>(c.run_offset.size());
    return round_up((c.columns / block * block + tail) * stored * runs * element_bytes_,
                    kAlignBytes);
  }

  // Weights, bias and, where it is the only reader, the relu that follows.
  void finish_contraction(Step& step, const Op& op, int node) {
    const std::int64_t weights = element_count(graph_.parameters[op.weight].shape);
    step.weight = op.weight;
    step.bias = op.bias;
    step.contraction.panel_bytes = panel_bytes(step.contraction);
    const std::int64_t block = kernels_.vector_floats * kernels_.tile_vectors;
    const auto depth = static_cast<std::int64_t>(step.contraction.target.size());
    program_.staging_floats = std::max(program_.staging_floats, weights + depth * block);
    step.weight_at = reserve(step.contraction.panel_bytes * step.contraction.groups);
    step.bias_at = reserve_floats(op.bias);
    const int next = only_relu(node);
    if (next < 0) return;
    step.contraction.relu = true;
    done_[next] = true;
    values_[next] = values_[node];
  }

  int only_relu(int node) const {
    if (uses_[node] != 1 || node == graph_.output) return -1;
    for (int next = node + 1; next < static_cast<int>(graph_.ops.size()); ++next) {
      const Op& op = graph_.ops[next];
      if (live_[next] && op.a == node && op.kind == OpKind::unary && op.unary == UnaryKind::relu)
        return next;
    }
    return -1;
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

  // Steps run over (kh, kw, c); where pixels of a kernel row are neighbours in memory, one run
  // holds the whole row. Weights come in the order (c, kh, kw).
  void conv_runs(const Op& op, std::int64_t width, std::int64_t channels, Contraction& c) const {
    const Window& w = op.window;
    const std::int64_t each = channels / op.groups;
    const bool whole_row = op.groups == 1 && w.dilation[1] == 1;
    c.run_length = whole_row ? w.kernel[1] * each : each;
    for (std::int64_t kh = 0; kh < w.kernel[0]; ++kh)
      for (std::int64_t kw = 0; kw < (whole_row ? 1 : w.kernel[1]); ++kw)
        c.run_offset.push_back((kh * w.dilation[0] * width + kw * w.dilation[1]) * channels);
    for (std::int64_t i = 0; i < each; ++i)
      for (std::int64_t pixel = 0; pixel < w.kernel[0] * w.kernel[1]; ++pixel)
        c.target.push_back(pixel * each + i);
  }

  void lower_conv(int node) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const Shape& out = shapes_[node];
    std::int64_t extent[2];
    const int slot = padded(op, channels_last(op.a).slot, in, extent);
    Step& step = emit(StepKind::contract, node, slot, element_count(out));
    Contraction& c = step.contraction;
    for (std::int64_t h = 0; h < out[1]; ++h)
      for (std::int64_t w = 0; w < out[2]; ++w)
        c.row_offset.push_back((h * op.window.stride[0] * extent[1] + w * op.window.stride[1]) *
                               in[0]);
    conv_runs(op, extent[1], in[0], c);
    c.groups = op.groups;
    c.columns = out[0] / op.groups;
    c.group_input = in[0] / op.groups;
    values_[node] = {step.out, Layout::channels_last};
    finish_contraction(step, op, node);
  }

  void lower_linear(int node) {
    const Op& op = graph_.ops[node];
    const Shape& weight = graph_.parameters[op.weight].shape;
    const int slot = planar(op.a).slot;
    Step& step = emit(StepKind::contract, node, slot, element_count(shapes_[node]));
    Contraction& c = step.contraction;
    for (std::int64_t r = 0; r < element_count(shapes_[node]) / weight[0]; ++r)
      c.row_offset.push_back(r * weight[1]);
    c.run_offset = {0};
    c.run_length = weight[1];
    for (std::int64_t k = 0; k < weight[1]; ++k) c.target.push_back(k);
    c.columns = weight[0];
    values_[node] = {step.out, Layout::planar};
    finish_contraction(step, op, node);
  }

  void lower_norm(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const bool layer = kind == StepKind::layer_norm;
    const Value value = layer ? planar(op.a) : channels_last(op.a);
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
  }

  void lower_pool(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const Shape& out = shapes_[node];
    const int slot = channels_last(op.a).slot;
    Step& step = emit(kind, node, slot, element_count(out));
    step.pool.height = in[1];
    step.pool.width = in[2];
    step.pool.channels = in[0];
    step.pool.out_height = out[1];
    step.pool.out_width = out[2];
    step.pool.count_include_pad = op.count_include_pad;
    for (int axis = 0; axis < 2; ++axis) {
      step.pool.kernel[axis] = op.window.kernel[axis];
      step.pool.stride[axis] = op.window.stride[axis];
      step.pool.padding[axis] = op.window.padding[axis];
      step.pool.dilation[axis] = op.window.dilation[axis];
    }
    values_[node] = {step.out, Layout::channels_last};
  }

  std::vector<bool> reduced_axes(const Op& op, std::size_t rank) const {
    std::vector<bool> reduced(rank, op.axes.empty());
    const auto full = static_cast<std::int64_t>(rank) + 1;
    for (std::int64_t axis : op.axes) reduced[(axis < 0 ? axis + full : axis) - 1] = true;
    return reduced;
  }

  void lower_mean(int node) {
    const Op& op = graph_.ops[node];
    const Shape& in = shapes_[op.a];
    const std::vector<bool> reduced = reduced_axes(op, in.size());
    if (values_[op.a].layout == Layout::channels_last && !reduced[0] && reduced[1] && reduced[2]) {
      Step& step = emit(StepKind::mean, node, values_[op.a].slot, in[0]);
      step.outer = 1, step.axis = in[1] * in[2], step.inner = in[0];
      values_[node] = {step.out, Layout::planar};
      return;
    }
    // neighbouring axes at once, from the last to the first; a mean of equal means is the mean
    int slot = planar(op.a).slot;
    std::int64_t inner = 1;
    for (std::size_t end = in.size(); end > 0;) {
      std::size_t start = end;
      std::int64_t axis = 1;
      while (start > 0 && reduced[start - 1] == reduced[end - 1]) axis *= in[--start];
      if (reduced[end - 1]) {
        std::int64_t outer = 1;
        for (std::size_t i = 0; i < start; ++i) outer *= in[i];
        Step& step = emit(StepKind::mean, node, slot, outer * inner);
        step.outer = outer, step.axis = axis, step.inner = inner;
        slot = step.out;
      } else {
        inner *= axis;
      }
      end = start;
    }
    values_[node] = {slot, Layout::planar};
  }

  void lower_binary(int node, StepKind kind) {
    const Op& op = graph_.ops[node];
    const bool last = values_[op.a].layout == Layout::channels_last ||
                      values_[op.b].layout == Layout::channels_last;
    const Value a = last ? channels_last(op.a) : planar(op.a);
    const Value b = last ? channels_last(op.b) : planar(op.b);
    Step& step = emit(kind, node, a.slot, element_count(shapes_[node]));
    step.b = b.slot;
    values_[node] = {step.out, a.layout};
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
      case OpKind::flatten: values_[node] = planar(graph_.ops[node].a); return;
      case OpKind::add: return lower_binary(node, StepKind::add);
      case OpKind::multiply: return lower_binary(node, StepKind::multiply);
    }
  }

  // First fit over live ranges; the output slot lies in the caller's buffer.
  void place_slots() {
    for (int i = 0; i < static_cast<int>(program_.steps.size()); ++i)
      for (int slot : {program_.steps[i].a, program_.steps[i].b, program_.steps[i].out})
        if (slot >= 0) program_.slots[slot].last = i;
    for (int s = kInputSlot + 1; s < static_cast<int>(program_.slots.size()); ++s) {
      if (s == program_.output_slot) continue;
      Slot& slot = program_.slots[s];
      slot.place = round_up(slot.size, kAlignElements);
      slot.offset = first_fit(s);
      program_.scratch_size = std::max(program_.scratch_size, slot.offset + slot.place);
    }
  }

  std::int64_t first_fit(int s) const {
    const Slot& slot = program_.slots[s];
    std::int64_t offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (int o = kInputSlot + 1; o < s; ++o) {
        const Slot& other = program_.slots[o];
        if (o == program_.output_slot || other.last < slot.first || other.first > slot.last)
          continue;
        if (offset < other.offset + other.place && other.offset < offset + slot.place) {
          offset = other.offset + other.place;
          moved = true;
        }
      }
    }
    return offset;
  }

  const Graph& graph_;
  std::vector<Shape> shapes_;
  const std::int64_t element_bytes_;
  const KernelTable& kernels_;
  Program program_;
  std::vector<bool> live_ = std::vector<bool>(graph_.ops.size(), false);
  std::vector<bool> done_ = std::vector<bool>(graph_.ops.size(), false);
  std::vector<int> uses_ = std::vector<int>(graph_.ops.size(), 0);
  std::vector<Value> values_ = std::vector<Value>(graph_.ops.size());
};

}  // namespace

Program lower(const Model& model, const Shape& input_shape, Layout input_layout, bool planar_output,
              DType dtype, const KernelTable& kernels) {
  return Lowering(model, input_shape, dtype, kernels).run(input_layout, planar_output);
}

}  // namespace marketplace::cpu
