// Convolution and linear layers as one indirect matrix product (after M. Dukhan, "The indirect
// convolution algorithm", 2019): rows are output pixels, each with a pointer into the channels-last
// image; columns are output channels in packed panels; the k axis falls into runs that are
// contiguous in the image, so no patch is ever copied.
#pragma once

#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::ContractArgs;

constexpr int kBlockColumns = kVectorFloats * kTileVectors;

// Elements of one column of a run as stored in a panel: bfloat16 pads odd runs to whole pairs.
MP_INLINE std::int64_t stored_length(std::int64_t run_length, const float*) {
  return run_length;
}
MP_INLINE std::int64_t stored_length(std::int64_t run_length, const BFloat16*) {
  return (run_length + 1) / 2 * 2;
}

// A panel comes from as far as memory when its first rows meet it, and the next one follows it.
constexpr int kPrefetchBytes = 8192, kLine = 64;

template <int Bytes>
MP_INLINE void prefetch_panel(const void* panel) {
  const std::uintptr_t ahead = reinterpret_cast<std::uintptr_t>(panel) + kPrefetchBytes;
  for (int at = 0; at < Bytes; at += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(ahead + at));
}

// acc[i][j] += in rows * panel columns over one run; returns the panel behind it.
template <int Rows, int Vectors>
MP_INLINE const float* accumulate_run(const float* const (&in)[Rows], std::int64_t length,
                                      const float* panel, Vec (&acc)[Rows][Vectors]) {
  for (std::int64_t k = 0; k < length; ++k) {
    Vec w[Vectors];
    unrolled<Vectors>([&](auto j) MP_INLINE_MEMBER { w[j] = load(panel + j * kVectorFloats); });
    prefetch_panel<sizeof w>(panel);
    panel += Vectors * kVectorFloats;
    unrolled<Rows>([&](auto i) MP_INLINE_MEMBER {
      const Vec x = broadcast(in[i][k]);
      unrolled<Vectors>([&](auto j) MP_INLINE_MEMBER { acc[i][j] = fma(x, w[j], acc[i][j]); });
    });
  }
  return panel;
}

template <int Rows, int Vectors>
MP_INLINE const BFloat16* accumulate_run(const BFloat16* const (&in)[Rows], std::int64_t length,
                                         const BFloat16* panel, Vec (&acc)[Rows][Vectors]) {
  const auto step = [&](auto pair) MP_INLINE_MEMBER {
    VecU w[Vectors];
    unrolled<Vectors>([&](auto j)
                          MP_INLINE_MEMBER { w[j] = load_words(panel + j * 2 * kVectorFloats); });
    prefetch_panel<sizeof w>(panel);
    panel += Vectors * 2 * kVectorFloats;
    unrolled<Rows>([&](auto i) MP_INLINE_MEMBER {
      const VecU x = spread_pair(pair(in[i]));
      unrolled<Vectors>([&](auto j)
                            MP_INLINE_MEMBER { acc[i][j] = dot_pairs(w[j], x, acc[i][j]); });
    });
  };
  std::int64_t k = 0;
  for (; k + 1 < length; k += 2)
    step([k](const BFloat16* row) MP_INLINE_MEMBER { return load_pair(row + k); });
  if (k < length)  // the odd last element alone: its neighbour belongs to somebody else
    step([k](const BFloat16* row)
             MP_INLINE_MEMBER { return static_cast<std::uint32_t>(row[k].bits); });
  return panel;
}

template <class Out, int Vectors>
MP_INLINE void store_row(Out* out, const Vec (&acc)[Vectors], int columns) {
  unrolled<Vectors>([&](auto j) MP_INLINE_MEMBER {
    const int left = columns - j * kVectorFloats;
    if (left >= kVectorFloats)
      store_floats(out + j * kVectorFloats, acc[j]);
    else if (left > 0)
      store_partial(out + j * kVectorFloats, acc[j], left);
  });
}

// The first `count` of Rows output pixels by up to Vectors vectors of columns. All Rows are there
// to be read.
template <class T, class Out, int Rows, int Vectors>
static void contract_tile(const ContractArgs& args, const T* const* rows, std::int64_t count,
                          const T* panel, std::int64_t first_column, int columns, Out* out) {
  Vec acc[Rows][Vectors];
  unrolled<Vectors>([&](auto j) MP_INLINE_MEMBER {
    const int left = columns - j * kVectorFloats;
    const Vec bias = args.bias && left > 0
                         ? load_lanes(args.bias + first_column + j * kVectorFloats,
                                      left < kVectorFloats ? left : kVectorFloats)
                         : Vec{};
    unrolled<Rows>([&](auto i) MP_INLINE_MEMBER { acc[i][j] = bias; });
  });
  for (std::int64_t r = 0; r < args.runs; ++r) {
    const T* in[Rows];
    unrolled<Rows>([&](auto i) MP_INLINE_MEMBER { in[i] = rows[i] + args.run_offset[r]; });
    panel = accumulate_run<Rows, Vectors>(in, args.run_length, panel, acc);
  }
  unrolled<Rows>([&](auto i) MP_INLINE_MEMBER {
    if (i >= count) return;
    if (args.relu)
      unrolled<Vectors>([&](auto j) MP_INLINE_MEMBER { acc[i][j] = max(acc[i][j], Vec{}); });
    store_row<Out, Vectors>(out + i * args.out_row_stride, acc[i], columns);
  });
}

// Fewer rows than a tile has go through the smallest kernel that holds them: sums that nobody asked
// for take less time than two kernels, each waiting for its own.
template <class T, class Out, int Rows, int Vectors>
MP_INLINE std::int64_t run_tile(const ContractArgs& args, const T* const* rows, std::int64_t left,
                                const T* panel, std::int64_t column, int columns, Out* out) {
  constexpr int kSmaller = Rows > 8 ? 8 : Rows > 4 ? 4 : 2;
  if constexpr (Rows > kSmaller)
    if (left <= kSmaller)
      return run_tile<T, Out, kSmaller, Vectors>(args, rows, left, panel, column, columns, out);
  const std::int64_t count = left < Rows ? left : Rows;
  contract_tile<T, Out, Rows, Vectors>(args, rows, count, panel, column, columns, out);
  return count;
}

template <class T, class Out, int Vectors>
MP_INLINE void contract_block(const ContractArgs& args, const T* panel, std::int64_t column,
                              int columns) {
  const T* rows[kTileRows];
  const T* in = static_cast<const T*>(args.in);
  Out* out = static_cast<Out*>(args.out) + column;
  const std::int64_t total = args.samples * args.rows;
  std::int64_t sample = 0, pixel = 0;
  for (std::int64_t row = 0; row < total;) {
    const std::int64_t left = total - row;
    std::int64_t s = sample, p = pixel;
    for (std::int64_t i = 0; i < kTileRows; ++i) {
      rows[i] = in + s * args.sample_stride + args.row_offset[p];
      if (i + 1 < left && ++p == args.rows)
        p = 0, ++s;  // the last one again where no more are left
    }
    const std::int64_t done = run_tile<T, Out, kTileRows, Vectors>(
        args, rows, left, panel, column, columns, out + row * args.out_row_stride);
    row += done;
    pixel += done;
    while (pixel >= args.rows) pixel -= args.rows, ++sample;
  }
}

template <class T, class Out>
MP_INLINE void contract_as(const ContractArgs& args) {
  const T* panel = static_cast<const T*>(args.panel);
  const std::int64_t depth = args.runs * stored_length(args.run_length, panel);
  for (std::int64_t column = 0; column < args.columns; column += kBlockColumns) {
    const std::int64_t left = args.columns - column;
    const int columns = static_cast<int>(left < kBlockColumns ? left : kBlockColumns);
    if (columns > kVectorFloats)
      contract_block<T, Out, kTileVectors>(args, panel, column, columns);
    else
      contract_block<T, Out, 1>(args, panel, column, columns);
    panel += depth * (columns > kVectorFloats ? kBlockColumns : kVectorFloats);
  }
}

template <class T>
void contract(const ContractArgs& args) {
  if (args.float_out)
    contract_as<T, float>(args);
  else
    contract_as<T, T>(args);
}

}  // namespace
