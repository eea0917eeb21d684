// 3 x 3 and 5 x 5 convolutions of stride 1 by minimal filtering (A. Lavin and S. Gray, "Fast
// algorithms for convolutional neural networks", 2016): a tile of M x M outputs of an R x R kernel
// needs N x N inputs, N = M + R - 1,
//   Y = A^T [(G g G^T) . (B^T d B)] A,
// summed over channels before the last transform: N * N matrix products of tiles by columns, with
// R R M M / (N N) times fewer multiplications than the direct way. Transforms are float32 and sum
// in one order; their results are rounded once, to the element type.
#pragma once

#include "cpu/kernels/contract.h"
#include "cpu/kernels/minimal.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::WinogradArgs;
using marketplace::cpu::WinogradPackArgs;

MP_INLINE int lanes(std::int64_t left) {
  return static_cast<int>(left < kVectorFloats ? left : kVectorFloats);
}

// Where a call's tiles and intermediate results lie.
template <class T, int M, int R>
struct WinogradRun {
  static constexpr int N = M + R - 1;

  explicit WinogradRun(const WinogradArgs& given)
      : args(given),
        down((args.out_height + M - 1) / M),
        across((args.out_width + M - 1) / M),
        stride((args.channels + kVectorFloats - 1) / kVectorFloats * kVectorFloats),
        // planes that lie a multiple of 4 KiB apart would all fall into the same sets of the cache
        in_plane(args.block * stride + 64 / static_cast<std::int64_t>(sizeof(T))),
        sum_plane(args.block * kBlockColumns + 16),
        zeros(static_cast<T*>(args.workspace)),
        transformed(zeros + stride),
        sums(reinterpret_cast<float*>(transformed + N * N * in_plane)) {
    std::memset(static_cast<void*>(zeros), 0, sizeof(T) * stride);
  }

  const WinogradArgs& args;
  const std::int64_t down, across;  // tiles of one sample
  const std::int64_t stride;        // elements of one transformed input pixel
  const std::int64_t in_plane, sum_plane;
  T* const zeros;        // (stride): a pixel of the padding
  T* const transformed;  // (N * N, block, stride)
  float* const sums;     // (N * N, block, columns of a panel block)
};

// transformed[:, slot, :] = B^T d B of tile `index`, counted through all samples.
template <class T, int M, int R>
MP_INLINE void transform_input(const WinogradRun<T, M, R>& run, std::int64_t index,
                               std::int64_t slot) {
  constexpr int N = M + R - 1;
  const WinogradArgs& args = run.args;
  const std::int64_t column = index % run.across * M - args.padding[1];
  const std::int64_t row = index / run.across % run.down * M - args.padding[0];
  const T* image = static_cast<const T*>(args.in) +
                   index / (run.across * run.down) * args.height * args.width * args.channels;
  const T* pixels[N][N];
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) {
      const std::int64_t h = row + i, w = column + j;
      const bool inside = h >= 0 && h < args.height && w >= 0 && w < args.width;
      pixels[i][j] = inside ? image + (h * args.width + w) * args.channels : run.zeros;
    }
  T* out = run.transformed + slot * run.stride;
  for (std::int64_t c = 0; c < args.channels; c += kVectorFloats) {
    const int count = lanes(args.channels - c);
    Vec half[N][N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      Vec line[N], result[N];
      for (int i = 0; i < N; ++i) line[i] = load_lanes(pixels[i][j] + c, count);
      Minimal<N>::input(line, result);
      for (int i = 0; i < N; ++i) half[i][j] = result[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      Vec result[N];
      Minimal<N>::input(half[i], result);
      for (int j = 0; j < N; ++j) store_floats(out + (i * N + j) * run.in_plane + c, result[j]);
    }
  }
}

// out = act(bias + A^T sums[:, slot, :] A) for the columns of one panel block.
template <class T, int M, int R>
MP_INLINE void transform_output(const WinogradRun<T, M, R>& run, std::int64_t index,
                                std::int64_t slot, std::int64_t first_column, int columns) {
  constexpr int N = M + R - 1;
  const WinogradArgs& args = run.args;
  const std::int64_t w = index % run.across * M, h = index / run.across % run.down * M;
  const std::int64_t sample = index / (run.across * run.down);
  const std::int64_t rows_left = args.out_height - h, columns_left = args.out_width - w;
  const Vec floor = broadcast(args.relu ? 0.0f : -__builtin_inff());
  T* corner = static_cast<T*>(args.out) +
              ((sample * args.out_height + h) * args.out_width + w) * args.columns + first_column;
  const float* in = run.sums + slot * kBlockColumns;
  for (int c = 0; c < columns; c += kVectorFloats) {
    const int count = lanes(columns - c);
    const Vec bias = args.bias ? load_lanes(args.bias + first_column + c, count) : Vec{};
    Vec half[M][N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      Vec line[N], result[M];
      for (int i = 0; i < N; ++i) line[i] = load(in + (i * N + j) * run.sum_plane + c);
      Minimal<N>::output(line, result);
      for (int i = 0; i < M; ++i) half[i][j] = result[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      if (i >= rows_left) break;
      Vec result[M];
      Minimal<N>::output(half[i], result);
      for (int j = 0; j < M; ++j)
        if (j < columns_left)
          store_lanes(corner + (i * args.out_width + j) * args.columns + c,
                      max(result[j] + bias, floor), count);
    }
  }
}

// sums = transformed inputs times one block of panel columns, N * N products.
template <class T, int M, int R>
MP_INLINE void multiply_planes(const WinogradRun<T, M, R>& run, std::int64_t tiles, const T* panel,
                               std::int64_t plane, int columns) {
  const std::int64_t origin = 0;
  ContractArgs product{};
  product.sample_stride = run.stride;
  product.samples = tiles;
  product.row_offset = &origin;
  product.rows = 1;
  product.run_offset = &origin;
  product.runs = 1;
  product.run_length = run.args.channels;
  product.columns = columns;
  product.out_row_stride = kBlockColumns;
  for (int i = 0; i < run.N * run.N; ++i) {
    product.in = run.transformed + i * run.in_plane;
    product.panel = panel + i * plane;
    product.out = run.sums + i * run.sum_plane;
    contract_as<T, float>(product);
  }
}

template <class T, int M, int R>
static void winograd_tiles(const WinogradArgs& args) {
  const WinogradRun<T, M, R> run(args);
  const std::int64_t total = args.samples * run.down * run.across;
  const T* const panels = static_cast<const T*>(args.panel);
  for (std::int64_t first = 0; first < total; first += args.block) {
    const std::int64_t tiles = total - first < args.block ? total - first : args.block;
    for (std::int64_t i = 0; i < tiles; ++i) transform_input(run, first + i, i);
    const T* panel = panels;
    for (std::int64_t column = 0; column < args.columns; column += kBlockColumns) {
      const std::int64_t left = args.columns - column;
      const int columns = static_cast<int>(left < kBlockColumns ? left : kBlockColumns);
      const std::int64_t plane = stored_length(args.channels, panel) *
                                 (columns > kVectorFloats ? kBlockColumns : kVectorFloats);
      multiply_planes(run, tiles, panel, plane, columns);
      for (std::int64_t i = 0; i < tiles; ++i) transform_output(run, first + i, i, column, columns);
      panel += run.N * run.N * plane;
    }
  }
}

// run(M, R), as constants, for the sizes of a call.
template <class Args, class Run>
MP_INLINE void with_sizes(const Args& args, Run run) {
  const std::integral_constant<int, 3> three;
  if (args.kernel == 5)
    run(std::integral_constant<int, 2>{}, std::integral_constant<int, 5>{});
  else if (args.outputs == 2)
    run(std::integral_constant<int, 2>{}, three);
  else if (args.outputs == 3)
    run(three, three);
  else
    run(std::integral_constant<int, 4>{}, three);
}

template <class T>
void winograd(const WinogradArgs& args) {
  with_sizes(args, [&](auto m, auto r) { winograd_tiles<T, m, r>(args); });
}

// u = G g G^T for a vector of columns; steps: element (kh, kw) of g is at (kh * R + kw) * width.
template <int N, int R>
MP_INLINE void transform_weights(const float* steps, std::int64_t width, Vec (&u)[N * N]) {
  Vec half[N][R];
#pragma GCC unroll 8
  for (int j = 0; j < R; ++j) {
    Vec line[R], result[N];
    for (int i = 0; i < R; ++i) line[i] = load(steps + (i * R + j) * width);
    Minimal<N>::weight(line, result);
    for (int i = 0; i < N; ++i) half[i][j] = result[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    Vec result[N];
    Minimal<N>::weight(half[i], result);
    for (int j = 0; j < N; ++j) u[i * N + j] = result[j];
  }
}

// bfloat16 in the low half of every lane.
MP_INLINE VecU narrow_words(Vec v) {
  BFloat16 spill[kVectorFloats];
  store_floats(spill, v);
  VecH bits;
  std::memcpy(&bits, spill, sizeof bits);
  return __builtin_convertvector(bits, VecU);
}

// Staged float32 steps (channels * R * R, width) into (N * N, channels, width) of one panel block.
template <int N, int R>
MP_INLINE void pack_planes(const WinogradPackArgs& args, int width, float* panel) {
  for (std::int64_t c = 0; c < args.channels; ++c)
    for (int j = 0; j < width; j += kVectorFloats) {
      Vec u[N * N];
      transform_weights<N, R>(args.staging + c * R * R * width + j, width, u);
      for (int i = 0; i < N * N; ++i) store(panel + (i * args.channels + c) * width + j, u[i]);
    }
}

// The same with two channels interleaved; a missing last one is zero.
template <int N, int R>
MP_INLINE void pack_planes(const WinogradPackArgs& args, int width, BFloat16* panel) {
  const std::int64_t plane = stored_length(args.channels, panel) * width;
  for (std::int64_t c = 0; c < args.channels; c += 2)
    for (int j = 0; j < width; j += kVectorFloats) {
      const float* steps = args.staging + c * R * R * width + j;
      Vec low[N * N], high[N * N] = {};
      transform_weights<N, R>(steps, width, low);
      if (c + 1 < args.channels) transform_weights<N, R>(steps + R * R * width, width, high);
      for (int i = 0; i < N * N; ++i) {
        const VecU words = narrow_words(low[i]) | narrow_words(high[i]) << 16;
        std::memcpy(static_cast<void*>(panel + i * plane + c * width + 2 * j), &words,
                    sizeof words);
      }
    }
}

template <class T, int M, int R>
static void winograd_pack_blocks(const WinogradPackArgs& args) {
  constexpr int N = M + R - 1;
  T* panel = static_cast<T*>(args.panel);
  const std::int64_t depth = args.channels * R * R;
  for (std::int64_t column = 0; column < args.columns; column += kBlockColumns) {
    const std::int64_t left = args.columns - column;
    const int columns = static_cast<int>(left < kBlockColumns ? left : kBlockColumns);
    const int width = columns > kVectorFloats ? kBlockColumns : kVectorFloats;
    for (int c = 0; c < width; c += kVectorFloats)
      scatter_steps(args.weights + (column + c) * depth, depth, columns - c, args.target, width,
                    args.staging + c);
    pack_planes<N, R>(args, width, panel);
    panel += N * N * stored_length(args.channels, panel) * width;
  }
}

template <class T>
void winograd_pack(const WinogradPackArgs& args) {
  with_sizes(args, [&](auto m, auto r) { winograd_pack_blocks<T, m, r>(args); });
}

}  // namespace
