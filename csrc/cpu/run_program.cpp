// A program's steps on one tile of samples.
#include <algorithm>
#include <cstring>

#include "cpu/program.h"

namespace marketplace::cpu {
namespace {

class Runner {
 public:
  Runner(const Program& program, const TypedKernels& typed, std::int64_t element_bytes,
         const RunArgs& args)
      : program_(program), typed_(typed), element_bytes_(element_bytes), args_(args) {}

  void run(const Step& step) {
    const void* a = in(step.a);
    std::byte* out = slot(step.out);
    const std::int64_t count = program_.slots[step.a].size * args_.samples;
    switch (step.kind) {
      case StepKind::contract: return contract(step);
      case StepKind::winograd: return winograd(step);
      case StepKind::grouped: return grouped(step);
      case StepKind::instance_norm: return instance_norm(step);
      case StepKind::batch_norm: return batch_norm(step);
      case StepKind::layer_norm: return layer_norm(step);
      case StepKind::unary: return typed_.unary(step.unary, a, out, count);
      case StepKind::affine: return typed_.affine(step.scale, step.shift, a, out, count);
      case StepKind::add: return typed_.add(a, in(step.b), out, count, step.relu);
      case StepKind::multiply: return typed_.multiply(a, in(step.b), out, count);
      case StepKind::max_pool: return typed_.max_pool(pool(step));
      case StepKind::avg_pool: return typed_.avg_pool(pool(step));
      case StepKind::mean:
        return typed_.mean(a, out, step.outer * args_.samples, step.axis, step.inner);
      case StepKind::transpose:
        return typed_.transpose(a, out, args_.samples, step.rows, step.channels);
      case StepKind::pad:
        return typed_.pad(a, out, args_.samples, step.height, step.width, step.channels, step.pad_h,
                          step.pad_w);
      case StepKind::copy: std::memcpy(out, a, count * element_bytes_); return;
      case StepKind::to_float: return typed_.to_float(a, reinterpret_cast<float*>(out), count);
    }
  }

 private:
  const void* in(int s) const {
    if (s < 0) return nullptr;
    return s == kInputSlot ? args_.in : slot(s);
  }

  std::byte* slot(int s) const {
    if (s == program_.output_slot) return args_.out;
    return args_.scratch + program_.slots[s].offset * args_.samples * element_bytes_;
  }

  std::byte* workspace() const {
    return args_.scratch + program_.scratch_size * args_.samples * element_bytes_;
  }

  const float* floats(std::int64_t at) const {
    return at < 0 ? nullptr : reinterpret_cast<const float*>(args_.packed + at);
  }

  // What both kinds of sums over a Contraction's rows and runs have in common.
  template <class Args>
  Args product(const Step& step) const {
    const Contraction& c = step.contraction;
    Args args{};
    args.sample_stride = program_.slots[step.a].size;
    args.samples = args_.samples;
    args.row_offset = c.row_offset.data();
    args.rows = static_cast<std::int64_t>(c.row_offset.size());
    args.run_offset = c.run_offset.data();
    args.runs = static_cast<std::int64_t>(c.run_offset.size());
    args.relu = step.relu;
    args.out_row_stride = c.groups * c.columns;
    return args;
  }

  void contract(const Step& step) const {
    const Contraction& c = step.contraction;
    auto args = product<ContractArgs>(step);
    args.tiles = c.tiles;
    args.pieces = c.pieces.data();
    args.piece_count = static_cast<std::int64_t>(c.pieces.size());
    args.run_length = c.run_length;
    args.columns = c.columns;
    args.float_out = c.float_out;
    args.workspace = workspace();
    args.workspace_bytes = c.workspace_bytes;
    for (std::int64_t g = 0; g < c.groups; ++g) {
      args.in = static_cast<const std::byte*>(in(step.a)) + g * c.group_input * element_bytes_;
      args.panel = args_.packed + step.weight_at + g * c.panel_bytes;
      args.bias = step.bias_at < 0 ? nullptr : floats(step.bias_at) + g * c.columns;
      args.out = slot(step.out) + g * c.columns * (c.float_out ? 4 : element_bytes_);
      typed_.contract(args);
    }
  }

  void winograd(const Step& step) const {
    WinogradArgs args = step.winograd;
    args.in = in(step.a);
    args.out = slot(step.out);
    args.samples = args_.samples;
    args.panel = args_.packed + step.weight_at;
    args.bias = floats(step.bias_at);
    args.relu = step.relu;
    args.workspace = workspace();
    typed_.winograd(args);
  }

  void grouped(const Step& step) const {
    const Contraction& c = step.contraction;
    auto args = product<GroupedArgs>(step);
    args.in = in(step.a);
    args.groups = c.groups;
    args.group_inputs = c.group_input;
    args.group_outputs = c.columns;
    args.panel = floats(step.weight_at);
    args.bias = floats(step.bias_at);
    args.out = slot(step.out);
    typed_.grouped(args);
  }

  NormArgs norm(const Step& step) const {
    NormArgs args{};
    args.in = in(step.a);
    args.out = slot(step.out);
    args.channels = step.channels;
    args.weight = floats(step.weight_at);
    args.bias = floats(step.bias_at);
    args.eps = step.eps;
    args.relu = step.relu;
    args.mean = args_.statistics;
    args.variance = args_.statistics + program_.largest_channels;
    return args;
  }

  void instance_norm(const Step& step) const {
    NormArgs args = norm(step);
    args.groups = args_.samples;
    args.rows = step.rows;
    if (step.pooled) args.pool = &step.pool;
    typed_.channel_norm(args);
  }

  void layer_norm(const Step& step) const {
    NormArgs args = norm(step);
    args.groups = step.rows * args_.samples;
    typed_.layer_norm(args);
  }

  void batch_norm(const Step& step) const {
    NormArgs args = norm(step);
    args.groups = 1;
    args.rows = step.rows * args_.samples;
    if (args_.inference) {
      const Op& op = args_.model->graph().ops[step.node];
      std::copy_n(args_.model->data(op.running_mean), step.channels, args.mean);
      std::copy_n(args_.model->data(op.running_var), step.channels, args.variance);
      args.fixed = true;
    }
    typed_.channel_norm(args);
    if (!args_.leader) return;
    args_.leader->push_back({step.node, args.rows,
                             std::vector<float>(args.mean, args.mean + step.channels),
                             std::vector<float>(args.variance, args.variance + step.channels)});
  }

  PoolArgs pool(const Step& step) const {
    PoolArgs args = step.pool;
    args.in = in(step.a);
    args.out = slot(step.out);
    args.samples = args_.samples;
    return args;
  }

  const Program& program_;
  const TypedKernels& typed_;
  const std::int64_t element_bytes_;
  const RunArgs& args_;
};

}  // namespace

void run_program(const Program& program, const TypedKernels& typed, std::int64_t element_bytes,
                 const RunArgs& args) {
  Runner runner(program, typed, element_bytes, args);
  for (const Step& step : program.steps) runner.run(step);
}

}  // namespace marketplace::cpu
