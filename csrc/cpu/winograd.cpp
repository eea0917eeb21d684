#include "cpu/winograd.h"

#include <algorithm>

namespace marketplace::cpu {
namespace {

// What a tile costs beside its products, in multiplications of one lane.
struct Filtering {
  int kernel, outputs;         // along one side, of a tile
  std::int64_t input, output;  // per channel in and out: loads, transform, stores
  std::int64_t weight;         // per kernel, once for a vendor's batch
};
constexpr Filtering kFilterings[] = {
    {3, 4, 200, 180, 480}, {3, 3, 120, 100, 280}, {3, 2, 50, 40, 120}, {5, 2, 200, 110, 800}};

// Samples that a vendor's transformed weights serve; small batches, so that these lose nothing.
constexpr std::int64_t kServedSamples = 16;
constexpr std::int64_t kLeastChannels = 32;
// Larger panels would leave the last-level cache between two blocks of tiles, and a vendor's
// memory grows by them: a 3 x 3 kernel's 1.8 to 4 times, a 5 x 5 kernel's 1.4 times.
constexpr std::int64_t kMostPanelBytes = 4 << 20;

// A block of transformed tiles, with the sums of one panel block, stays in a core's second level.
constexpr std::int64_t kTilesBytes = 512 << 10;
constexpr std::int64_t kRowBlock = 12;  // full rows of the product for every instruction set
constexpr std::int64_t kMostTiles = 96;

std::int64_t plane_count(int kernel, int outputs) {
  const std::int64_t side = outputs + kernel - 1;
  return side * side;
}

std::int64_t tile_bytes(const WinogradArgs& args, DType dtype, const KernelTable& kernels) {
  const std::int64_t stride = round_up(args.channels, kernels.vector_floats);
  const std::int64_t columns = kernels.vector_floats * kernels.tile_vectors;
  return plane_count(args.kernel, args.outputs) * (stride * size_bytes(dtype) + columns * 4);
}

std::int64_t tile_count(const Shape& out, int outputs) {
  return (out[1] + outputs - 1) / outputs * ((out[2] + outputs - 1) / outputs);
}

// Square windows of one group that move by single pixels.
bool plain_window(const Op& op) {
  const Window& window = op.window;
  for (int axis : {0, 1})
    if (window.stride[axis] != 1 || window.dilation[axis] != 1) return false;
  return op.groups == 1 && window.kernel[0] == window.kernel[1];
}

// One sample's, in multiplications of one float32 lane; bfloat16 products do two at once.
std::int64_t filtering_cost(const Filtering& f, std::int64_t channels, const Shape& out,
                            std::int64_t products_at_once) {
  const std::int64_t weights = channels * out[0], tiles = tile_count(out, f.outputs);
  return tiles * plane_count(f.kernel, f.outputs) * weights / products_at_once +
         tiles * (f.input * channels + f.output * out[0]) + f.weight * weights / kServedSamples;
}

}  // namespace

int winograd_outputs(const Op& op, const Shape& in, const Shape& out, DType dtype,
                     const KernelTable& kernels) {
  if (!plain_window(op) || in[0] < kLeastChannels || out[0] < kLeastChannels) return 0;
  const bool narrow = dtype == DType::bfloat16;
  if (multiplies_tiles(kernels, dtype)) return 0;  // done before the transforms would be
  const std::int64_t at_once = narrow ? 2 : 1;
  int best = 0;
  // transforms must save a third: what the model leaves out eats smaller gains
  const std::int64_t taps = op.window.kernel[0] * op.window.kernel[1];
  std::int64_t least = taps * in[0] * element_count(out) / at_once * 2 / 3;
  for (const Filtering& f : kFilterings) {
    if (f.kernel != op.window.kernel[0]) continue;
    // rounded to bfloat16, the operands of more than 4 x 4 inputs double the error of a layer
    if (narrow && f.outputs + f.kernel > 5) continue;
    const WinogradArgs args = winograd_args(op, in, out, f.outputs, dtype, kernels);
    const std::int64_t cost = filtering_cost(f, in[0], out, at_once);
    if (cost >= least || winograd_panel_bytes(args, dtype, kernels) > kMostPanelBytes) continue;
    least = cost;
    best = f.outputs;
  }
  return best;
}

WinogradArgs winograd_args(const Op& op, const Shape& in, const Shape& out, int outputs,
                           DType dtype, const KernelTable& kernels) {
  WinogradArgs args{};
  args.kernel = static_cast<int>(op.window.kernel[0]);
  args.outputs = outputs;
  args.channels = in[0];
  args.height = in[1];
  args.width = in[2];
  args.columns = out[0];
  args.out_height = out[1];
  args.out_width = out[2];
  for (int axis : {0, 1}) args.padding[axis] = op.window.padding[axis];
  const std::int64_t fitting = kTilesBytes / tile_bytes(args, dtype, kernels);
  args.block = std::clamp(fitting / kRowBlock * kRowBlock, kRowBlock, kMostTiles);
  return args;
}

std::int64_t winograd_panel_bytes(const WinogradArgs& args, DType dtype,
                                  const KernelTable& kernels) {
  const std::int64_t depth = dtype == DType::bfloat16 ? round_up(args.channels, 2) : args.channels;
  return plane_count(args.kernel, args.outputs) * padded_columns(args.columns, kernels) * depth *
         size_bytes(dtype);
}

// As WinogradRun lays it out: zeros, then planes a line longer than their tiles.
std::int64_t winograd_workspace_bytes(const WinogradArgs& args, DType dtype,
                                      const KernelTable& kernels) {
  const std::int64_t zeros = round_up(args.channels, kernels.vector_floats) * size_bytes(dtype);
  return round_up(zeros + args.block * tile_bytes(args, dtype, kernels) +
                      2 * plane_count(args.kernel, args.outputs) * kLineBytes,
                  kLineBytes);
}

}  // namespace marketplace::cpu
