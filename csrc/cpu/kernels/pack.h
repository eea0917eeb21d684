// Weights into panels: squares of columns by steps are transposed in registers, so that every store
// is a whole vector, wherever its step lies in the panel.
#pragma once

#include <utility>

#include "cpu/kernels/contract.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::PackArgs;

// Which of (a, b) lane l of a transposition's butterfly takes, for the lower or upper row.
template <int Step, bool Upper>
constexpr int butterfly_lane(int lane) {
  const bool swapped = (lane & Step) != 0;
  if (Upper) return swapped ? kVectorFloats + lane : lane + Step;
  return swapped ? kVectorFloats + lane - Step : lane;
}

template <int Step, bool Upper, int... Lane>
MP_INLINE Vec butterfly_row(Vec a, Vec b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, butterfly_lane<Step, Upper>(Lane)...);
#else
  return __builtin_shuffle(a, b, VecI{butterfly_lane<Step, Upper>(Lane)...});
#endif
}

// Swaps the off-diagonal blocks of Step rows by Step lanes.
template <int Step>
MP_INLINE void butterfly(Vec (&rows)[kVectorFloats]) {
  const std::make_integer_sequence<int, kVectorFloats> lanes;
#pragma GCC unroll 16
  for (int i = 0; i < kVectorFloats; ++i) {
    if (i & Step) continue;
    const Vec a = rows[i], b = rows[i + Step];
    rows[i] = butterfly_row<Step, false>(a, b, lanes);
    rows[i + Step] = butterfly_row<Step, true>(a, b, lanes);
  }
}

MP_INLINE void transpose_square(Vec (&rows)[kVectorFloats]) {
  butterfly<1>(rows);
  butterfly<2>(rows);
  if constexpr (kVectorFloats > 4) butterfly<4>(rows);
  if constexpr (kVectorFloats > 8) butterfly<8>(rows);
}

// One vector of columns, all steps: out[target[k] * width] = weights[0 .. columns)[k]. Columns that
// are missing become zeros.
MP_INLINE void scatter_steps(const float* weights, std::int64_t depth, int columns,
                             const std::int64_t* target, std::int64_t width, float* out) {
  std::int64_t k = 0;
  for (; k + kVectorFloats <= depth; k += kVectorFloats) {
    Vec rows[kVectorFloats];
#pragma GCC unroll 16
    for (int c = 0; c < kVectorFloats; ++c)
      rows[c] = c < columns ? load(weights + c * depth + k) : Vec{};
    transpose_square(rows);
#pragma GCC unroll 16
    for (int i = 0; i < kVectorFloats; ++i) store(out + target[k + i] * width, rows[i]);
  }
  for (; k < depth; ++k)
    for (int c = 0; c < kVectorFloats; ++c)
      out[target[k] * width + c] = c < columns ? weights[c * depth + k] : 0.0f;
}

// Float32 steps (depth, width) of one block.
MP_INLINE void pack_steps(const PackArgs& args, std::int64_t first, int columns, int width,
                          float* out) {
  const std::int64_t depth = args.runs * args.run_length;
  for (int c = 0; c < width; c += kVectorFloats)
    scatter_steps(args.weights + (first + c) * depth, depth, columns - c, args.target, width,
                  out + c);
}

MP_INLINE void pack_block(const PackArgs& args, std::int64_t first, int columns, int width,
                          float* panel) {
  pack_steps(args, first, columns, width, panel);
}

MP_INLINE void pack_block(const PackArgs& args, std::int64_t first, int columns, int width,
                          BFloat16* panel) {
  pack_steps(args, first, columns, width, args.staging);
  const float* steps = args.staging;
  for (std::int64_t r = 0; r < args.runs; ++r)
    for (std::int64_t k = 0; k < args.run_length; k += 2, panel += 2 * width) {
      const bool pair = k + 1 < args.run_length;
      for (int c = 0; c < width; ++c) {
        from_float(steps[c], panel[2 * c]);
        from_float(pair ? steps[width + c] : 0.0f, panel[2 * c + 1]);
      }
      steps += pair ? 2 * width : width;
    }
  const std::int64_t filled = args.runs * stored_length(args.run_length, panel);
  std::memset(static_cast<void*>(panel), 0, sizeof(BFloat16) * (args.panel_depth - filled) * width);
}

template <class T>
void pack_panel(const PackArgs& args) {
  T* panel = static_cast<T*>(args.panel);
  for (std::int64_t column = 0; column < args.columns; column += kBlockColumns) {
    const std::int64_t left = args.columns - column;
    const int columns = static_cast<int>(left < kBlockColumns ? left : kBlockColumns);
    const int width = columns > kVectorFloats ? kBlockColumns : kVectorFloats;
    pack_block(args, column, columns, width, panel);
    panel += args.panel_depth * width;
  }
}

}  // namespace
