// Convolutions whose groups are smaller than half a vector, depthwise ones above all: a vector of
// columns holds whole groups, and each of its lanes reads its own group's channel. Sums run over
// the same terms in the same order as the contraction of one group would.
#pragma once

#include "cpu/kernels/pack.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::GroupedArgs;
using marketplace::cpu::GroupedPackArgs;

constexpr int kGroupedRows = 8;  // output pixels at once, so that their sums hide the latency

// Groups that share a vector.
MP_INLINE std::int64_t groups_at_once(std::int64_t inputs, std::int64_t outputs) {
  return kVectorFloats / (inputs > outputs ? inputs : outputs);
}

// One vector's part of a call.
struct GroupedBlock {
  std::int64_t channel, column;  // the first
  int channels, columns;
  VecI lane_channel;   // of every lane, the first channel of its group, counted from `channel`
  const float* panel;  // (runs, group_inputs, lanes)
};

MP_INLINE GroupedBlock grouped_block(const GroupedArgs& args, std::int64_t index) {
  const std::int64_t at_once = groups_at_once(args.group_inputs, args.group_outputs);
  const std::int64_t first = index * at_once, left = args.groups - first;
  const std::int64_t groups = left < at_once ? left : at_once;
  GroupedBlock block{};
  block.channel = first * args.group_inputs;
  block.column = first * args.group_outputs;
  block.channels = static_cast<int>(groups * args.group_inputs);
  block.columns = static_cast<int>(groups * args.group_outputs);
  for (int lane = 0; lane < block.columns; ++lane)
    block.lane_channel[lane] = static_cast<int>(lane / args.group_outputs * args.group_inputs);
  block.panel = args.panel + index * args.runs * args.group_inputs * kVectorFloats;
  return block;
}

// Whole: a full vector of input channels may be read. Spread: lanes and channels differ.
template <class T, int Rows, bool Whole, bool Spread>
MP_INLINE void grouped_tile(const GroupedArgs& args, const GroupedBlock& block,
                            const T* const* rows, T* out) {
  const Vec bias = args.bias ? load_lanes(args.bias + block.column, block.columns) : Vec{};
  Vec acc[Rows];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) acc[i] = bias;
  const float* panel = block.panel;
  for (std::int64_t r = 0; r < args.runs; ++r) {
    const std::int64_t offset = args.run_offset[r] + block.channel;
    for (int k = 0; k < static_cast<int>(args.group_inputs); ++k, panel += kVectorFloats) {
      const Vec w = load(panel);
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) {
        const T* p = rows[i] + offset;
        Vec x = Whole ? load_floats(p) : load_partial(p, block.channels);
        if (Spread) x = permute(x, block.lane_channel + k);
        acc[i] = fma(x, w, acc[i]);
      }
    }
  }
  const Vec floor = broadcast(args.relu ? 0.0f : -__builtin_inff());
  out += block.column;
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i, out += args.out_row_stride)
    store_lanes(out, max(acc[i], floor), block.columns);
}

template <class T, int Rows>
static void grouped_rows(const GroupedArgs& args, const T* const* rows, T* out) {
  const std::int64_t at_once = groups_at_once(args.group_inputs, args.group_outputs);
  const std::int64_t all = args.groups * args.group_inputs;
  const bool spread = args.group_inputs > 1 || args.group_outputs > 1;
  for (std::int64_t i = 0; i * at_once < args.groups; ++i) {
    const GroupedBlock block = grouped_block(args, i);
    const bool whole = block.channel + kVectorFloats <= all;
    if (whole && spread)
      grouped_tile<T, Rows, true, true>(args, block, rows, out);
    else if (whole)
      grouped_tile<T, Rows, true, false>(args, block, rows, out);
    else if (spread)
      grouped_tile<T, Rows, false, true>(args, block, rows, out);
    else
      grouped_tile<T, Rows, false, false>(args, block, rows, out);
  }
}

template <class T>
void grouped(const GroupedArgs& args) {
  const T* in = static_cast<const T*>(args.in);
  T* out = static_cast<T*>(args.out);
  for (std::int64_t s = 0; s < args.samples; ++s, in += args.sample_stride) {
    std::int64_t row = 0;
    for (; row + kGroupedRows <= args.rows; row += kGroupedRows) {
      const T* rows[kGroupedRows];
      for (int i = 0; i < kGroupedRows; ++i) rows[i] = in + args.row_offset[row + i];
      grouped_rows<T, kGroupedRows>(args, rows, out);
      out += kGroupedRows * args.out_row_stride;
    }
    for (; row < args.rows; ++row, out += args.out_row_stride) {
      const T* one = in + args.row_offset[row];
      grouped_rows<T, 1>(args, &one, out);
    }
  }
}

MP_INLINE void round_to(const float*, float*, std::int64_t) {}
MP_INLINE void round_to(const BFloat16*, float* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    BFloat16 rounded;
    from_float(values[i], rounded);
    values[i] = to_float(rounded);
  }
}

template <class T>
void grouped_pack(const GroupedPackArgs& args) {
  const std::int64_t columns =
      groups_at_once(args.group_inputs, args.group_outputs) * args.group_outputs;
  float* panel = args.panel;
  for (std::int64_t column = 0; column < args.columns; column += columns) {
    const std::int64_t left = args.columns - column;
    scatter_steps(args.weights + column * args.depth, args.depth,
                  static_cast<int>(left < columns ? left : columns), args.target, kVectorFloats,
                  panel);
    round_to(static_cast<const T*>(nullptr), panel, args.depth * kVectorFloats);
    panel += args.depth * kVectorFloats;
  }
}

}  // namespace
