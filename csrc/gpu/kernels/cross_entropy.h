// Cross-entropy of a row of logits x: log(sum exp(x - max)) + max - x[label], float32; then the
// mean over the batch, in float64 and in an order that depends on the batch alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "gpu/runtime.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

// Samples whose losses are summed one after the other, so that sums do not depend on how a batch
// was cut into chunks.
constexpr std::int64_t kLossBlock = 128;

// NaN anywhere in the row makes the sum NaN.
__device__ inline float sample_loss(const float* x, int classes, std::int32_t label, bool ignoring,
                                    std::int32_t ignored) {
  if (ignoring && label == ignored) return 0.0f;
  float largest = x[0];
  for (int c = 1; c < classes; ++c) largest = x[c] > largest ? x[c] : largest;
  float sum = 0;
  for (int c = 0; c < classes; ++c) sum += expf(x[c] - largest);
  return logf(sum) + (largest - x[label]);
}

struct CrossEntropyArgs {
  const float* logits = nullptr;  // (rows, samples, classes)
  float* losses = nullptr;        // (rows, samples)
  const std::int32_t* labels = nullptr;
  std::int64_t rows = 0, samples = 0, classes = 0;
  bool ignoring = false;
  std::int32_t ignored = 0;
};
void cross_entropy_gpu(const CrossEntropyArgs& args, const DeviceInfo& device,
                       const Stream& stream);

// partial (blocks, paths): sums over blocks of kLossBlock samples, to which losses (rows, samples)
// are added, the first sample being the batch's `first`; row r is path paths[r].
struct SumLossesArgs {
  const float* losses = nullptr;
  double* partial = nullptr;
  const std::int32_t* paths = nullptr;
  std::int64_t rows = 0, samples = 0, first = 0, path_count = 0;
};
void sum_losses_gpu(const SumLossesArgs& args, const Stream& stream);

// losses (paths,) = sums of partial (blocks, paths) over blocks, divided by *counted.
void mean_losses_gpu(const double* partial, std::int64_t blocks, std::int64_t paths,
                     const double* counted, float* losses, const Stream& stream);

}  // namespace marketplace::gpu
