#include "cpu/winograd.h"

#include <algorithm>
#include <cstdlib>

namespace marketplace::cpu {
namespace {

// A block of transformed tiles, with the sums of one panel block, stays in a core's second level.
constexpr std::int64_t kBlockBytes = 704 << 10;
// Full row blocks of the product for every instruction set.
constexpr std::int64_t kRowBlock = 12;
constexpr std::int64_t kMostTiles = 96;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::int64_t plane_count(int outputs) {
  return (outputs + 2) * (outputs + 2);
}

std::int64_t column_block(const KernelTable& kernels) {
  return kernels.vector_floats * kernels.tile_vectors;
}

std::int64_t tile_bytes(std::int64_t channels, int outputs, DType dtype,
                        const KernelTable& kernels) {
  const std::int64_t stride = round_up(channels, kernels.vector_floats);
  return plane_count(outputs) * (stride * size_bytes(dtype) + column_block(kernels) * 4);
}

}  // namespace

int winograd_outputs(const Op& op, const Shape& in, const Shape& out, DType dtype,
                     const KernelTable& kernels) {
  for (int axis : {0, 1})
    if (op.window.kernel[axis] != 3 || op.window.stride[axis] != 1 ||
        op.window.dilation[axis] != 1)
      return 0;
  if (op.groups != 1 || in[0] < 32 || out[0] < 32) return 0;
  const char* e = getenv("MP_WINO");
  (void)dtype, (void)kernels;
  return e ? atoi(e) : 4;
}

WinogradArgs winograd_args(const Op& op, const Shape& in, const Shape& out, int outputs,
                           DType dtype, const KernelTable& kernels) {
  WinogradArgs args{};
  args.outputs = outputs;
  args.channels = in[0];
  args.height = in[1];
  args.width = in[2];
  args.columns = out[0];
  args.out_height = out[1];
  args.out_width = out[2];
  for (int axis : {0, 1}) args.padding[axis] = op.window.padding[axis];
  const char* e = getenv("MP_WINO_KB");
  const std::int64_t fitting = (e ? atoi(e) << 10 : kBlockBytes) / tile_bytes(in[0], outputs, dtype, kernels);
  args.block = std::clamp(fitting / kRowBlock * kRowBlock, kRowBlock, kMostTiles);
  return args;
}

std::int64_t winograd_panel_bytes(const WinogradArgs& args, DType dtype,
                                  const KernelTable& kernels) {
  const std::int64_t depth = dtype == DType::bfloat16 ? round_up(args.channels, 2) : args.channels;
  return plane_count(args.outputs) * padded_columns(args.columns, kernels) * depth *
         size_bytes(dtype);
}

// As laid out by WinogradRun.
std::int64_t winograd_workspace_bytes(const WinogradArgs& args, DType dtype,
                                      const KernelTable& kernels) {
  const std::int64_t zeros = round_up(args.channels, kernels.vector_floats) * size_bytes(dtype);
  return round_up(zeros + args.block * tile_bytes(args.channels, args.outputs, dtype, kernels) +
                      2 * plane_count(args.outputs) * kLineBytes,
                  kLineBytes);
}

}  // namespace marketplace::cpu
