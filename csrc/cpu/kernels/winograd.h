// 3 x 3 and 5 x 5 convolutions of stride 1 by minimal filtering (A. Lavin and S. Gray, "Fast
// algorithms for convolutional neural networks", 2016): a tile of M x M outputs of an R x R kernel
// needs N x N inputs, N = M + R - 1,
//   Y = A^T [(G g G^T) . (B^T d B)] A,
// summed over channels before the last transform: N * N matrix products of tiles by columns, with
// R R M M / (N N) times fewer multiplications than the direct way. Transforms are float32 and sum
// in one order; their results are rounded once, to the element type.
#pragma once

#include "cpu/kernels/contract.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::WinogradArgs;
using marketplace::cpu::WinogradPackArgs;

// One dimension of the transforms through N points: B^T, G and A^T.
template <int N>
struct Minimal;

// Points 0, 1, -1 and infinity.
template <>
struct Minimal<4> {
  MP_INLINE void input(const Vec (&d)[4], Vec (&t)[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
  }
  MP_INLINE void weight(const Vec (&g)[3], Vec (&t)[4]) {
    const Vec half = broadcast(0.5f), even = (g[0] + g[2]) * half;
    t[0] = g[0];
    t[1] = fma(g[1], half, even);
    t[2] = fma(-g[1], half, even);
    t[3] = g[2];
  }
  MP_INLINE void output(const Vec (&m)[4], Vec (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};

// Points 0, a, -a, c and infinity.
template <>
struct Minimal<5> {
  static constexpr float a = 0.75f, c = 1.5f, aa = a * a, cc = c * c;
  static constexpr float scale_plus = 1 / (2 * aa * (a - c)), scale_minus = -1 / (2 * aa * (a + c));
  static constexpr float scale_c = 1 / (c * (cc - aa));

  MP_INLINE void input(const Vec (&d)[5], Vec (&t)[5]) {
    const Vec minus_aa = broadcast(-aa), minus_c = broadcast(-c);
    const Vec odd = fma(d[1], minus_c, d[2]), even = fma(d[2], minus_c, d[3]);
    t[0] = fma(fma(d[0], minus_c, d[1]), minus_aa, even);
    t[1] = fma(odd, broadcast(a), even);
    t[2] = fma(odd, broadcast(-a), even);
    t[3] = fma(d[1], minus_aa, d[3]);
    t[4] = fma(odd, minus_aa, fma(d[3], minus_c, d[4]));
  }
  MP_INLINE void weight(const Vec (&g)[3], Vec (&t)[5]) {
    const Vec even = fma(g[2], broadcast(aa), g[0]);
    t[0] = g[0] * broadcast(1 / (aa * c));
    t[1] = fma(g[1], broadcast(a), even) * broadcast(scale_plus);
    t[2] = fma(g[1], broadcast(-a), even) * broadcast(scale_minus);
    t[3] = fma(fma(g[2], broadcast(c), g[1]), broadcast(c), g[0]) * broadcast(scale_c);
    t[4] = g[2];
  }
  MP_INLINE void output(const Vec (&m)[5], Vec (&y)[3]) {
    const Vec even = m[1] + m[2], odd = m[1] - m[2];
    y[0] = m[0] + even + m[3];
    y[1] = fma(odd, broadcast(a), m[3] * broadcast(c));
    y[2] = fma(even, broadcast(aa), fma(m[3], broadcast(cc), m[4]));
  }
};

// Points 0, a, -a, b, -b and infinity. With a = 5/8 and b = 3/2 the errors are half those of the
// usual 1 and 2, close to the direct sum's, and a, b and their squares are exact.
template <>
struct Minimal<6> {
  static constexpr float a = 0.625f, b = 1.5f, aa = a * a, bb = b * b;
  static constexpr float scale_a = 1 / (2 * aa * (aa - bb)), scale_b = 1 / (2 * bb * (bb - aa));

  MP_INLINE void input(const Vec (&d)[6], Vec (&t)[6]) {
    const Vec minus_aa = broadcast(-aa), minus_bb = broadcast(-bb);
    const Vec product = broadcast(aa * bb), minus_sum = broadcast(-(aa + bb));
    const Vec even_a = fma(d[2], minus_bb, d[4]), odd_a = fma(d[1], minus_bb, d[3]);
    const Vec even_b = fma(d[2], minus_aa, d[4]), odd_b = fma(d[1], minus_aa, d[3]);
    t[0] = fma(d[0], product, fma(d[2], minus_sum, d[4]));
    t[1] = fma(odd_a, broadcast(a), even_a);
    t[2] = fma(odd_a, broadcast(-a), even_a);
    t[3] = fma(odd_b, broadcast(b), even_b);
    t[4] = fma(odd_b, broadcast(-b), even_b);
    t[5] = fma(d[1], product, fma(d[3], minus_sum, d[5]));
  }
  template <int R>
  MP_INLINE void weight(const Vec (&g)[R], Vec (&t)[6]) {
    const Vec even_a = even(g, aa) * broadcast(scale_a);
    const Vec even_b = even(g, bb) * broadcast(scale_b);
    t[0] = g[0] * broadcast(1 / (aa * bb));
    t[1] = fma(odd(g, aa), broadcast(a * scale_a), even_a);
    t[2] = fma(odd(g, aa), broadcast(-a * scale_a), even_a);
    t[3] = fma(odd(g, bb), broadcast(b * scale_b), even_b);
    t[4] = fma(odd(g, bb), broadcast(-b * scale_b), even_b);
    t[5] = g[R - 1];
  }
  MP_INLINE void output(const Vec (&m)[6], Vec (&y)[4]) {
    const Vec even_a = m[1] + m[2], odd_a = m[1] - m[2];
    const Vec even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = fma(odd_a, broadcast(a), odd_b * broadcast(b));
    y[2] = fma(even_a, broadcast(aa), even_b * broadcast(bb));
    y[3] = fma(odd_a, broadcast(a * aa), fma(odd_b, broadcast(b * bb), m[5]));
  }
  MP_INLINE void output(const Vec (&m)[6], Vec (&y)[2]) {
    y[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
    y[1] = fma(m[1] - m[2], broadcast(a), fma(m[3] - m[4], broadcast(b), m[5]));
  }

 private:
  // The kernel as a polynomial, its even and odd powers apart, at a point of this square; the odd
  // ones over the point.
  MP_INLINE Vec even(const Vec (&g)[3], float square) { return fma(g[2], broadcast(square), g[0]); }
  MP_INLINE Vec even(const Vec (&g)[5], float square) {
    return fma(fma(g[4], broadcast(square), g[2]), broadcast(square), g[0]);
  }
  MP_INLINE Vec odd(const Vec (&g)[3], float) { return g[1]; }
  MP_INLINE Vec odd(const Vec (&g)[5], float square) { return fma(g[3], broadcast(square), g[1]); }
};

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

template <class T>
void winograd(const WinogradArgs& args) {
  if (args.kernel == 5)
    winograd_tiles<T, 2, 5>(args);
  else if (args.outputs == 2)
    winograd_tiles<T, 2, 3>(args);
  else if (args.outputs == 3)
    winograd_tiles<T, 3, 3>(args);
  else
    winograd_tiles<T, 4, 3>(args);
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
  if (args.kernel == 5)
    winograd_pack_blocks<T, 2, 5>(args);
  else if (args.outputs == 2)
    winograd_pack_blocks<T, 2, 3>(args);
  else if (args.outputs == 3)
    winograd_pack_blocks<T, 3, 3>(args);
  else
    winograd_pack_blocks<T, 4, 3>(args);
}

}  // namespace
