// Normalisations: y = (x - mean) / sqrt(variance + eps) * weight + bias, PyTorch's formulas, the
// variance from a second pass over x - mean. Sums run over short blocks in float32 and over the
// blocks in float64.
#pragma once

#include <cmath>

#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::NormArgs;

constexpr std::int64_t kSumBlock = 64;
constexpr std::int64_t kChannelBlock = 64;

// Per-channel sums over rows of (x - shift) or its square, for up to kChannelBlock channels.
template <class T, bool Square>
MP_INLINE void sum_rows(const T* x, std::int64_t rows, std::int64_t stride, int channels,
                        const float* shift, double* sums) {
  for (int c = 0; c < channels; ++c) sums[c] = 0;
  for (std::int64_t first = 0; first < rows; first += kSumBlock) {
    const std::int64_t end = first + kSumBlock < rows ? first + kSumBlock : rows;
    float block[kChannelBlock] = {};
    for (std::int64_t r = first; r < end; ++r)
      for (int c = 0; c < channels; ++c) {
        const float d = to_float(x[r * stride + c]) - shift[c];
        block[c] += Square ? d * d : d;
      }
    for (int c = 0; c < channels; ++c) sums[c] += block[c];
  }
}

template <class T>
MP_INLINE void channel_statistics(const T* x, const NormArgs& args, std::int64_t first,
                                  int channels) {
  double sums[kChannelBlock];
  float zero[kChannelBlock] = {};
  const auto rows = static_cast<double>(args.rows);
  sum_rows<T, false>(x, args.rows, args.channels, channels, zero, sums);  // mean
  for (int c = 0; c < channels; ++c) args.mean[first + c] = static_cast<float>(sums[c] / rows);
  sum_rows<T, true>(x, args.rows, args.channels, channels, args.mean + first, sums);  // variance
  for (int c = 0; c < channels; ++c) args.variance[first + c] = static_cast<float>(sums[c] / rows);
}

template <class T>
void channel_norm(const NormArgs& args) {
  const T* in = static_cast<const T*>(args.in);
  T* out = static_cast<T*>(args.out);
  for (std::int64_t g = 0; g < args.groups; ++g)
    for (std::int64_t first = 0; first < args.channels; first += kChannelBlock) {
      const std::int64_t left = args.channels - first;
      const int channels = static_cast<int>(left < kChannelBlock ? left : kChannelBlock);
      const T* x = in + g * args.rows * args.channels + first;
      T* y = out + g * args.rows * args.channels + first;
      if (!args.fixed) channel_statistics(x, args, first, channels);
      float mean[kChannelBlock], scale[kChannelBlock], shift[kChannelBlock];
      for (int c = 0; c < channels; ++c) {
        const float weight = args.weight ? args.weight[first + c] : 1.0f;
        mean[c] = args.mean[first + c];
        scale[c] = weight / sqrtf(args.variance[first + c] + args.eps);
        shift[c] = args.bias ? args.bias[first + c] : 0.0f;
      }
      for (std::int64_t r = 0; r < args.rows; ++r)  // normalise
        for (int c = 0; c < channels; ++c) {
          const float centred = to_float(x[r * args.channels + c]) - mean[c];
          from_float(centred * scale[c] + shift[c], y[r * args.channels + c]);
        }
    }
}

// Sum of one line, in blocks as above.
template <class T, bool Square>
MP_INLINE double sum_line(const T* x, std::int64_t count, float shift) {
  double total = 0;
  for (std::int64_t first = 0; first < count; first += kSumBlock) {
    const std::int64_t end = first + kSumBlock < count ? first + kSumBlock : count;
    float block = 0;
    for (std::int64_t i = first; i < end; ++i) {
      const float d = to_float(x[i]) - shift;
      block += Square ? d * d : d;
    }
    total += block;
  }
  return total;
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
