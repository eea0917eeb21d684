// Max and average pooling over channels-last images. Padding never wins a maximum; an average
// counts padded places as zeros unless count_include_pad is false.
#pragma once

#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::PoolArgs;

constexpr std::int64_t kPoolChannels = 64;

MP_INLINE std::int64_t inside(std::int64_t position, std::int64_t extent) {
  return position >= 0 && position < extent;
}

// Calls visit(pixel) for every input pixel of the window at (oh, ow) that lies inside the image.
template <class Visit>
MP_INLINE void each_pixel(const PoolArgs& args, std::int64_t oh, std::int64_t ow, Visit visit) {
  for (std::int64_t kh = 0; kh < args.kernel[0]; ++kh) {
    const std::int64_t h = oh * args.stride[0] - args.padding[0] + kh * args.dilation[0];
    if (!inside(h, args.height)) continue;
    for (std::int64_t kw = 0; kw < args.kernel[1]; ++kw) {
      const std::int64_t w = ow * args.stride[1] - args.padding[1] + kw * args.dilation[1];
      if (inside(w, args.width)) visit(h * args.width + w);
    }
  }
}

template <class T, bool Max>
MP_INLINE void pool_pixel(const PoolArgs& args, const T* x, std::int64_t oh, std::int64_t ow,
                          int channels, T* y) {
  float best[kPoolChannels];
  std::int64_t seen = 0;
  for (int c = 0; c < channels; ++c) best[c] = Max ? -__builtin_inff() : 0.0f;
  each_pixel(args, oh, ow, [&](std::int64_t pixel) {
    const T* in = x + pixel * args.channels;
    ++seen;
    for (int c = 0; c < channels; ++c) {
      const float value = to_float(in[c]);
      if (Max)
        best[c] = value > best[c] || value != value ? value : best[c];
      else
        best[c] += value;
    }
  });
  const std::int64_t counted = args.count_include_pad ? args.kernel[0] * args.kernel[1] : seen;
  const float divisor = static_cast<float>(counted > 0 ? counted : 1);
  for (int c = 0; c < channels; ++c) from_float(Max ? best[c] : best[c] / divisor, y[c]);
}

template <class T, bool Max>
MP_INLINE void pool(const PoolArgs& args) {
  const T* in = static_cast<const T*>(args.in);
  T* out = static_cast<T*>(args.out);
  for (std::int64_t s = 0; s < args.samples; ++s, in += args.height * args.width * args.channels)
    for (std::int64_t oh = 0; oh < args.out_height; ++oh)
      for (std::int64_t ow = 0; ow < args.out_width; ++ow, out += args.channels)
        for (std::int64_t first = 0; first < args.channels; first += kPoolChannels) {
          const std::int64_t left = args.channels - first;
          const int channels = static_cast<int>(left < kPoolChannels ? left : kPoolChannels);
          pool_pixel<T, Max>(args, in + first, oh, ow, channels, out + first);
        }
}

template <class T>
void max_pool(const PoolArgs& args) {
  pool<T, true>(args);
}

template <class T>
void avg_pool(const PoolArgs& args) {
  pool<T, false>(args);
}

}  // namespace
