// Normalisations: y = (x - mean) / sqrt(variance + eps) * weight + bias, PyTorch's formulas, the
// variance from a second pass over x - mean. Sums run over short blocks in float32 and over the
// blocks in float64.
#pragma once

#include <cmath>

#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::NormArgs;
using marketplace::cpu::PoolArgs;

constexpr std::int64_t kSumBlock = 64;

// One vector of channels; the last of an image may have fewer than a vector has lanes.
struct Lanes {
  std::int64_t first;
  int count;
};

MP_INLINE Vec parameter_lanes(const float* values, float otherwise, Lanes lanes) {
  return values ? load_lanes(values + lanes.first, lanes.count) : broadcast(otherwise);
}

// Adds over rows, per lane, x - shift or its square. Four sums side by side hide the latency of an
// addition.
template <class T, bool Square>
MP_INLINE void sum_rows(const T* x, std::int64_t rows, std::int64_t stride, Vec shift, int count,
                        double (&sums)[kVectorFloats]) {
  for (std::int64_t first = 0; first < rows; first += kSumBlock) {
    const std::int64_t end = first + kSumBlock < rows ? first + kSumBlock : rows;
    Vec block[4] = {};
    std::int64_t r = first;
    for (; r + 4 <= end; r += 4)
      for (int i = 0; i < 4; ++i) {
        const Vec d = load_lanes(x + (r + i) * stride, count) - shift;
        block[i] += Square ? d * d : d;
      }
    for (; r < end; ++r) {
      const Vec d = load_lanes(x + r * stride, count) - shift;
      block[0] += Square ? d * d : d;
    }
    const Vec sum = (block[0] + block[1]) + (block[2] + block[3]);
    for (int c = 0; c < kVectorFloats; ++c) sums[c] += sum[c];
  }
}

// Mean over rows of x - shift, or of its square, for one vector of channels.
template <class T, bool Square>
MP_INLINE Vec mean_rows(const T* x, std::int64_t rows, std::int64_t stride, Vec shift,
                        Lanes lanes) {
  double sums[kVectorFloats] = {};
  sum_rows<T, Square>(x, rows, stride, shift, lanes.count, sums);
  Vec mean;
  for (int c = 0; c < kVectorFloats; ++c)
    mean[c] = static_cast<float>(sums[c] / static_cast<double>(rows));
  return mean;
}

// max((x - mean) * scale + shift, floor); the floor is 0 for a relu.
struct Affine {
  Vec mean, scale, shift, floor;
};

template <class T>
MP_INLINE Vec normalise(const T* x, const Affine& affine, Lanes lanes) {
  return max((load_lanes(x, lanes.count) - affine.mean) * affine.scale + affine.shift,
             affine.floor);
}

template <class T>
MP_INLINE Affine channel_affine(const T* x, const NormArgs& args, Lanes lanes) {
  if (!args.fixed) {
    const Vec mean = mean_rows<T, false>(x, args.rows, args.channels, Vec{}, lanes);
    store_lanes(args.mean + lanes.first, mean, lanes.count);
    store_lanes(args.variance + lanes.first,
                mean_rows<T, true>(x, args.rows, args.channels, mean, lanes), lanes.count);
  }
  Vec deviation = load_lanes(args.variance + lanes.first, lanes.count) + broadcast(args.eps);
  for (int c = 0; c < kVectorFloats; ++c) deviation[c] = sqrtf(deviation[c]);
  return {load_lanes(args.mean + lanes.first, lanes.count),
          parameter_lanes(args.weight, 1.0f, lanes) / deviation,
          parameter_lanes(args.bias, 0.0f, lanes), broadcast(args.relu ? 0.0f : -__builtin_inff())};
}

// Normalises one image of pool.height by pool.width pixels and keeps each window's maximum.
template <class T>
MP_INLINE void normalise_pooled(const T* x, T* y, const PoolArgs& pool, const Affine& affine,
                                Lanes lanes) {
  for (std::int64_t oh = 0; oh < pool.out_height; ++oh)
    for (std::int64_t ow = 0; ow < pool.out_width; ++ow, y += pool.channels) {
      Vec best = broadcast(-__builtin_inff());
      for (std::int64_t kh = 0; kh < pool.kernel[0]; ++kh)
        for (std::int64_t kw = 0; kw < pool.kernel[1]; ++kw) {
          const std::int64_t pixel =
              (oh * pool.kernel[0] + kh) * pool.width + ow * pool.kernel[1] + kw;
          best = max(normalise(x + pixel * pool.channels, affine, lanes), best);
        }
      store_lanes(y, best, lanes.count);
    }
}

template <class T>
MP_INLINE void norm_lanes(const T* x, T* y, const NormArgs& args, Lanes lanes) {
  const Affine affine = channel_affine(x, args, lanes);
  if (args.pool) return normalise_pooled(x, y, *args.pool, affine, lanes);
  for (std::int64_t r = 0; r < args.rows; ++r)
    store_lanes(y + r * args.channels, normalise(x + r * args.channels, affine, lanes),
                lanes.count);
}

template <class T>
void channel_norm(const NormArgs& args) {
  const T* x = static_cast<const T*>(args.in);
  T* y = static_cast<T*>(args.out);
  const std::int64_t out_rows =
      args.pool ? args.pool->out_height * args.pool->out_width : args.rows;
  for (std::int64_t g = 0; g < args.groups; ++g) {
    std::int64_t first = 0;
    for (; first + kVectorFloats <= args.channels; first += kVectorFloats)
      norm_lanes(x + first, y + first, args, {first, kVectorFloats});
    if (first < args.channels)
      norm_lanes(x + first, y + first, args, {first, static_cast<int>(args.channels - first)});
    x += args.rows * args.channels;
    y += out_rows * args.channels;
  }
}

// Sum over one line of x - shift or its square, in float64.
template <class T, bool Square>
MP_INLINE double sum_elements(const T* x, std::int64_t count, float shift) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = to_float(x[i]) - shift;
    sum += Square ? d * d : d;
  }
  return sum;
}

// The same, of longer lines lane by lane over vectors, then over lanes and what is left: one sum
// would wait for every addition.
template <class T, bool Square>
MP_INLINE double sum_line(const T* x, std::int64_t count, float shift) {
  if (count < 4 * kVectorFloats) return sum_elements<T, Square>(x, count, shift);
  double sums[kVectorFloats] = {};
  const std::int64_t vectors = count / kVectorFloats, whole = vectors * kVectorFloats;
  sum_rows<T, Square>(x, vectors, kVectorFloats, broadcast(shift), kVectorFloats, sums);
  for (int half = kVectorFloats / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  return sums[0] + sum_elements<T, Square>(x + whole, count - whole, shift);
}

template <class T>
void layer_norm(const NormArgs& args) {
  const auto count = static_cast<double>(args.channels);
  for (std::int64_t g = 0; g < args.groups; ++g) {
    const T* x = static_cast<const T*>(args.in) + g * args.channels;
    T* y = static_cast<T*>(args.out) + g * args.channels;
    const auto mean = static_cast<float>(sum_line<T, false>(x, args.channels, 0.0f) / count);
    const double variance = sum_line<T, true>(x, args.channels, mean) / count;
    const float scale = 1.0f / sqrtf(static_cast<float>(variance) + args.eps);
    for (std::int64_t i = 0; i < args.channels; ++i) {  // normalise
      const float weight = args.weight ? args.weight[i] : 1.0f;
      const float bias = args.bias ? args.bias[i] : 0.0f;
      from_float((to_float(x[i]) - mean) * scale * weight + bias, y[i]);
    }
  }
}

}  // namespace
