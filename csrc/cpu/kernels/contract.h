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

// acc[i][j] += in rows * panel columns over one run; returns the panel behind it.
template <int Rows, int Vectors>
MP_INLINE const float* accumulate_run(const float* const* in, std::int64_t length,
                                      const float* panel, Vec (&acc)[Rows][Vectors]) {
  for (std::int64_t k = 0; k < length; ++k) {
    Vec w[Vectors];
    for (int j = 0; j < Vectors; ++j) w[j] = load(panel + j * kVectorFloats);
    panel += Vectors * kVectorFloats;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vec x = broadcast(in[i][k]);
      for (int j = 0; j < Vectors; ++j) acc[i][j] = fma(x, w[j], acc[i][j]);
    }
  }
  return panel;
}

template <int Rows, int Vectors>
MP_INLINE const BFloat16* accumulate_run(const BFloat16* const* in, std::int64_t length,
                                         const BFloat16* panel, Vec (&acc)[Rows][Vectors]) {
  std::int64_t k = 0;
  for (; k + 1 < length; k += 2) {
    VecU w[Vectors];
    for (int j = 0; j < Vectors; ++j) w[j] = load_words(panel + j * 2 * kVectorFloats);
    panel += Vectors * 2 * kVectorFloats;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const VecU x = load_pair(in[i] + k) - VecU{};
      for (int j = 0; j < Vectors; ++j) acc[i][j] = dot_pairs(w[j], x, acc[i][j]);
    }
  }
  if (k < length) {  // the odd last element alone: its neighbour belongs to somebody else
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const VecU x = static_cast<std::uint32_t>(in[i][k].bits) - VecU{};
      for (int j = 0; j < Vectors; ++j)
        acc[i][j] = dot_pairs(load_words(panel + j * 2 * kVectorFloats), x, acc[i][j]);
    }
    panel += Vectors * 2 * kVectorFloats;
  }
  return panel;
}

template <class Out, int Vectors>
MP_INLINE void store_row(Out* out, const Vec (&acc)[Vectors], int columns) {
  for (int j = 0; j < Vectors; ++j, out += kVectorFloats, columns -= kVectorFloats) {
    if (columns >= kVectorFloats)
      store_floats(out, acc[j]);
    else if (columns > 0)
      store_partial(out, acc[j], columns);
  }
}

// One block of Rows output pixels by up to Vectors vectors of columns.
template <class T, class Out, int Rows, int Vectors>
static void contract_tile(const ContractArgs& args, const T* const* rows, const T* panel,
                          std::int64_t first_column, int columns, Out* out) {
  Vec acc[Rows][Vectors];
  for (int j = 0; j < Vectors; ++j) {
    const int left = columns - j * kVectorFloats;
    const Vec bias = args.bias && left > 0
                         ? load_lanes(args.bias + first_column + j * kVectorFloats,
                                      left < kVectorFloats ? left : kVectorFloats)
                         : Vec{};
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) acc[i][j] = bias;
  }
  for (std::int64_t r = 0; r < args.runs; ++r) {
    const T* in[Rows];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) in[i] = rows[i] + args.run_offset[r];
    panel = accumulate_run<Rows, Vectors>(in, args.run_length, panel, acc);
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    if (args.relu)
      for (int j = 0; j < Vectors; ++j) acc[i][j] = max(acc[i][j], Vec{});
    store_row<Out, Vectors>(out + i * args.out_row_stride, acc[i], columns);
  }
}

// Row counts below the full tile go through the next smaller sizes, so few kernels cover them all.
template <class T, class Out, int Vectors>
MP_INLINE std::int64_t run_tile(const ContractArgs& args, const T* const* rows, std::int64_t left,
                                const T* panel, std::int64_t column, int columns, Out* out) {
  if (left >= kTileRows) {
    contract_tile<T, Out, kTileRows, Vectors>(args, rows, panel, column, columns, out);
    return kTileRows;
  }
  if (left >= 4) {
    contract_tile<T, Out, 4, Vectors>(args, rows, panel, column, columns, out);
    return 4;
  }
  if (left >= 2) {
    contract_tile<T, Out, 2, Vectors>(args, rows, panel, column, columns, out);
    return 2;
  }
  contract_tile<T, Out, 1, Vectors>(args, rows, panel, column, columns, out);
  return 1;
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
    const std::int64_t wanted = left < kTileRows ? left : kTileRows;
    std::int64_t s = sample, p = pixel;
    for (std::int64_t i = 0; i < wanted; ++i) {
      rows[i] = in + s * args.sample_stride + args.row_offset[p];
      if (++p == args.rows) p = 0, ++s;
    }
    const std::int64_t done = run_tile<T, Out, Vectors>(args, rows, left, panel, column, columns,
                                                        out + row * args.out_row_stride);
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
