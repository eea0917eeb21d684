// Normalisations: y = (x - mean) / sqrt(variance + eps) * weight + bias, PyTorch's formulas, the
// variance from a second pass over x - mean. Sums in float32 over short runs, pairwise over those
// or in float64.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

// Rows of a batch normalisation that one block sums.
constexpr std::int64_t kStatisticRows = 1024;

struct NormArgs {
  const void* in = nullptr;           // (rows or upstream results, samples, pixels, channels)
  const std::int32_t* map = nullptr;  // (rows,) upstream result of a row; nullptr: its own
  void* out = nullptr;                // (rows, samples, pixels, channels), or the pooled image
  const std::byte* packed = nullptr;  // vendors' weights
  std::int64_t packed_stride = 0, weight_at = -1, bias_at = -1;
  const std::int32_t* vendor = nullptr;  // (rows,)
  std::int64_t rows = 0, samples = 0, pixels = 0, channels = 0;
  float eps = 0;
  bool relu = false;
  // instance_norm: max pool on the way out, windows side by side
  bool pooled = false;
  std::int32_t width = 0, out_width = 0, out_pixels = 0, window[2] = {1, 1};
  // batch_norm: (rows, 2, channels) mean and variance; partial sums (rows, splits, channels)
  float* statistics = nullptr;
  double* partial = nullptr;
  const float* fixed = nullptr;  // (2, channels): running statistics to use instead
};

// Statistics over the pixels of each sample, by channel.
void instance_norm_gpu(DType dtype, const NormArgs& args, const Stream& stream);
// Statistics over samples and pixels, by channel; left in args.statistics.
void batch_norm_gpu(DType dtype, const NormArgs& args, const Stream& stream);
// Statistics over the channels of each pixel (here: over the last axes of each line).
void layer_norm_gpu(DType dtype, const NormArgs& args, const Stream& stream);

inline std::int64_t batch_norm_splits(std::int64_t samples, std::int64_t pixels) {
  return (samples * pixels + kStatisticRows - 1) / kStatisticRows;
}

}  // namespace marketplace::gpu
