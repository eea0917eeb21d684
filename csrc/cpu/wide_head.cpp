#include "cpu/wide_head.h"

#include <algorithm>
#include <numeric>

#include "cpu/isa.h"

namespace marketplace::cpu {
namespace {

constexpr std::int64_t kStagingFloats = 1 << 20;
constexpr std::int64_t kScratchFloats = 1 << 14;

bool lone_linear(const Program& program) {
  if (program.steps.size() != 1 || program.steps[0].kind != StepKind::contract) return false;
  const Contraction& c = program.steps[0].contraction;
  return c.groups == 1 && c.row_offset.size() == 1 && c.run_offset.size() == 1;
}

}  // namespace

WideHead::WideHead(const Program& program, const Model& model, const KernelTable& kernels,
                   DType dtype)
    : program_(program), model_(model), kernels_(kernels), typed_(typed_kernels(kernels, dtype)) {
  if (!lone_linear(program)) return;
  const Contraction& c = program.steps[0].contraction;
  outputs_ = c.columns;
  depth_ = c.run_length;
  block_ = kernels.vector_floats * kernels.tile_vectors;
  block_bytes_ = c.panel_depth * block_ * size_bytes(dtype);
  workspace_floats_ = c.workspace_bytes / static_cast<std::int64_t>(sizeof(float));
  group_ = block_ / std::gcd(outputs_, block_);
  suits_ = staging_floats() <= kStagingFloats;
}

std::int64_t WideHead::staging_floats() const {
  return depth_ * (group_ * outputs_ + block_);
}

std::int64_t WideHead::packed_bytes(std::int64_t vendors) const {
  const std::int64_t columns = vendors * outputs_;
  return (columns + block_ - 1) / block_ * block_bytes_ + columns * 4;
}

std::int64_t WideHead::run_vendors(std::int64_t tile) const {
  return std::max<std::int64_t>(1, (kScratchFloats / tile - 2 * block_) / outputs_);
}

std::int64_t WideHead::scratch_floats(std::int64_t tile) const {
  return workspace_floats_ + tile * (run_vendors(tile) * outputs_ + 2 * block_);
}

void WideHead::pack(const VendorWeights& weights, std::int64_t g, float* staging,
                    std::byte* packed) const {
  const Step& step = program_.steps[0];
  const std::int64_t first = g * group_, last = std::min(weights.count, first + group_);
  const std::int64_t blocks = (weights.count * outputs_ + block_ - 1) / block_;
  auto* biases = reinterpret_cast<float*>(packed + blocks * block_bytes_);
  for (std::int64_t v = first; v < last; ++v) {
    vendor_parameter(kernels_, model_, weights, v, step.weight,
                     staging + (v - first) * outputs_ * depth_);
    if (step.bias >= 0)
      vendor_parameter(kernels_, model_, weights, v, step.bias, biases + v * outputs_);
  }
  PackArgs args{};
  args.weights = staging;
  args.columns = (last - first) * outputs_;
  args.runs = 1;
  args.run_length = depth_;
  args.panel_depth = step.contraction.panel_depth;
  args.target = step.contraction.target.data();
  args.panel = packed + first * outputs_ / block_ * block_bytes_;
  args.staging = staging + group_ * outputs_ * depth_;
  typed_.pack_panel(args);
}

WideHead::Result WideHead::run(const std::byte* packed, std::int64_t vendors, std::int64_t first,
                               std::int64_t last, const std::byte* in, std::int64_t samples,
                               float* scratch) const {
  const Step& step = program_.steps[0];
  const Contraction& c = step.contraction;
  const std::int64_t total = vendors * outputs_, blocks = (total + block_ - 1) / block_;
  // whole blocks around the vendors wanted; the last block of all may be narrow
  const std::int64_t begin = first * outputs_ / block_ * block_;
  const std::int64_t end = std::min(total, (last * outputs_ + block_ - 1) / block_ * block_);
  ContractArgs args{};
  args.in = in;
  args.sample_stride = program_.input_size;
  args.samples = samples;
  args.row_offset = c.row_offset.data();
  args.rows = 1;
  args.tiles = c.tiles;
  args.pieces = c.pieces.data();
  args.piece_count = static_cast<std::int64_t>(c.pieces.size());
  args.run_offset = c.run_offset.data();
  args.runs = 1;
  args.run_length = depth_;
  args.panel = packed + begin / block_ * block_bytes_;
  args.columns = end - begin;
  args.bias = step.bias < 0
                  ? nullptr
                  : reinterpret_cast<const float*>(packed + blocks * block_bytes_) + begin;
  args.relu = step.relu;
  args.float_out = true;
  args.workspace = scratch;
  args.workspace_bytes = c.workspace_bytes;
  float* logits = scratch + workspace_floats_;
  args.out = logits;
  args.out_row_stride = end - begin;
  typed_.contract(args);
  return {logits + first * outputs_ - begin, end - begin};
}

}  // namespace marketplace::cpu
