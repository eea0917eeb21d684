#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/norm.h"
#include "gpu/kernels/pool.h"
#include "gpu/run_program.h"

namespace marketplace::gpu {
namespace {

class Runner {
 public:
  Runner(DType dtype, const DeviceInfo& device, const RunArgs& args, const Stream& stream)
      : dtype_(dtype), device_(device), args_(args), stream_(stream), program_(*args.program) {}

  void run(const Step& step) {
    const std::byte* in = pointer(step.a);
    std::byte* out = pointer(step.out);
    const std::int64_t count = images(step.a) * program_.slots[step.a].size;
    switch (step.kind) {
      case StepKind::contract: return contract(step);
      case StepKind::instance_norm: return instance_norm(step);
      case StepKind::batch_norm: return batch_norm(step);
      case StepKind::layer_norm: return layer_norm_gpu(dtype_, norm(step), stream_);
      case StepKind::unary: return unary_gpu(dtype_, step.activation, in, out, count, stream_);
      case StepKind::affine:
        return affine_gpu(dtype_, step.scale, step.shift, in, out, count, stream_);
      case StepKind::add:
      case StepKind::multiply: return binary(step);
      case StepKind::max_pool: return pool_gpu(dtype_, true, pool(step), stream_);
      case StepKind::avg_pool: return pool_gpu(dtype_, false, pool(step), stream_);
      case StepKind::mean:
        return mean_gpu(dtype_, in, out, step.outer * images(step.a), step.axis, step.inner,
                        stream_);
      case StepKind::transpose:
        return transpose_gpu(dtype_, in, out, images(step.a), step.rows, step.channels, stream_);
      case StepKind::copy:
        return copy_gpu(dtype_, program_.slots[step.out].floats, operand(step.a, step.out), out,
                        rows_of(step.out), each(step.out), stream_);
    }
  }

 private:
  bool shared(int slot) const { return program_.slots[slot].shared; }
  std::int64_t rows_of(int slot) const {
    return shared(slot) ? args_.chunk->parents : args_.chunk->rows;
  }
  std::int64_t images(int slot) const { return rows_of(slot) * args_.samples; }
  std::int64_t each(int slot) const { return program_.slots[slot].size * args_.samples; }

  std::byte* pointer(int slot) const {
    if (slot == kInputSlot) return const_cast<std::byte*>(args_.in);  // never an output
    if (slot == program_.output_slot) return args_.out;
    return args_.scratch + args_.places->offset[slot];
  }

  // A value as the rows of another see it.
  Operand operand(int slot, int reader) const {
    const bool mapped = shared(slot) && !shared(reader);
    return {pointer(slot), mapped ? args_.table + args_.chunk->parent_at : nullptr};
  }

  void contract(const Step& step) const {
    const Contraction& c = step.contraction;
    ContractArgs args(c);
    args.in = pointer(step.a);
    args.out = pointer(step.out);
    args.packed = args_.packed;
    args.packed_stride = program_.packed_bytes;
    args.weight_at = step.weight_at;
    args.bias_at = step.bias_at;
    args.taps = args_.taps + c.taps_at;
    args.samples = args_.samples;
    args.groups = c.groups;
    args.group_stride = c.groups == 1 ? 0 : c.channels / c.groups;
    args.padded_depth = c.padded_depth;
    args.whole = c.window.padding[0] == 0 && c.window.padding[1] == 0 && c.depth == c.padded_depth;
    args.activation = step.activation;
    args.float_out = program_.slots[step.out].floats;
    if (step.out == program_.output_slot) args.loss = args_.loss;
    launch_products(step, args);
  }

  // What vendors share meets all of them at once, unless channel groups keep them apart.
  const std::vector<ProductClass>& classes(const Step& step) const {
    const Chunk& chunk = *args_.chunk;
    if (!shared(step.a)) return chunk.own;
    return step.contraction.groups > 1 ? chunk.apart : chunk.products;
  }

  void launch_products(const Step& step, ContractArgs args) const {
    for (const ProductClass& shape : classes(step)) {
      args.products = reinterpret_cast<const Product*>(args_.table + shape.at);
      args.product_count = shape.count;
      args.parents = shape.parents;
      args.vendors = shape.vendors;
      contract_gpu(dtype_, device_, args, stream_);
    }
  }

  NormArgs norm(const Step& step) const {
    NormArgs args;
    const Operand in = operand(step.a, step.out);
    args.in = in.data;
    args.map = in.map;
    args.out = pointer(step.out);
    args.packed = args_.packed;
    args.packed_stride = program_.packed_bytes;
    args.weight_at = step.weight_at;
    args.bias_at = step.bias_at;
    args.vendor = args_.table + args_.chunk->vendor_at;
    args.rows = rows_of(step.out);
    args.samples = args_.samples;
    args.pixels = step.rows;
    args.channels = step.channels;
    args.eps = step.eps;
    args.relu = step.activation == Activation::relu;
    args.statistics = args_.statistics;
    args.partial = args_.partial;
    return args;
  }

  void instance_norm(const Step& step) const {
    NormArgs args = norm(step);
    if (step.pooled) {
      args.pooled = true;
      args.width = static_cast<std::int32_t>(step.in_shape[2]);
      args.out_width = static_cast<std::int32_t>(step.out_shape[2]);
      args.out_pixels = static_cast<std::int32_t>(step.out_shape[1] * step.out_shape[2]);
      for (int axis : {0, 1})
        args.window[axis] = static_cast<std::int32_t>(step.window.kernel[axis]);
    }
    instance_norm_gpu(dtype_, args, stream_);
  }

  void batch_norm(const Step& step) {
    NormArgs args = norm(step);
    const StatisticsPlace& place = args_.batch_norms[batch_norm_++];
    args.fixed = place.fixed;
    batch_norm_gpu(dtype_, args, stream_);
    if (place.leader == nullptr || args_.chunk->leader < 0) return;
    const std::int64_t count = 2 * step.channels;
    copy_on_device(place.leader, args.statistics + args_.chunk->leader * count, count * 4, stream_);
  }

  void binary(const Step& step) const {
    binary_gpu(dtype_, step.kind == StepKind::multiply, step.activation == Activation::relu,
               operand(step.a, step.out), operand(step.b, step.out), pointer(step.out),
               rows_of(step.out), each(step.out), stream_);
  }

  PoolArgs pool(const Step& step) const {
    PoolArgs args;
    args.in = pointer(step.a);
    args.out = pointer(step.out);
    args.images = images(step.a);
    args.channels = step.in_shape[0];
    args.height = static_cast<std::int32_t>(step.in_shape[1]);
    args.width = static_cast<std::int32_t>(step.in_shape[2]);
    args.out_height = static_cast<std::int32_t>(step.out_shape[1]);
    args.out_width = static_cast<std::int32_t>(step.out_shape[2]);
    args.count_include_pad = step.count_include_pad;
    for (int axis : {0, 1}) {
      args.kernel[axis] = static_cast<std::int32_t>(step.window.kernel[axis]);
      args.stride[axis] = static_cast<std::int32_t>(step.window.stride[axis]);
      args.padding[axis] = static_cast<std::int32_t>(step.window.padding[axis]);
      args.dilation[axis] = static_cast<std::int32_t>(step.window.dilation[axis]);
    }
    return args;
  }

  const DType dtype_;
  const DeviceInfo& device_;
  const RunArgs& args_;
  const Stream& stream_;
  const Program& program_;
  std::size_t batch_norm_ = 0;
};

}  // namespace

void run_program(DType dtype, const DeviceInfo& device, const RunArgs& args, const Stream& stream) {
  Runner runner(dtype, device, args, stream);
  for (const Step& step : args.program->steps) runner.run(step);
}

}  // namespace marketplace::gpu
