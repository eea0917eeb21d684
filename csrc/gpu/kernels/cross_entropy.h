// Cross-entropy of a row of logits x: log(1 + rest) + max - x[label], float32, rest being the sum
// of exp(x - max) without the maximum's own 1: beside it a small loss would be rounded away. Then
// the mean over the batch, in float64 and in an order that depends on the batch alone.
#pragma once

#include <cmath>
#include <cstdint>

#include "gpu/runtime.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

// Samples whose losses are summed one after the other, so that sums do not depend on how a batch
// was cut into chunks.
constexpr std::int64_t kLossBlock = 128;

// Sums of exp(x - largest); the largest logits' ones are counted apart. NaN anywhere in the row
// makes its loss NaN.
struct ExpSums {
  float below = 0;
  int largest = 0;

  __device__ void add(float x, float row_largest) {
    const bool same = x == row_largest;
    largest += same;
    below += same ? 0.0f : expf(x - row_largest);
  }
  // Where the largest logit is infinite the loss is NaN. The logarithm of a rounded sum, and what
  // the rounding took.
  __device__ float loss(float row_largest, float labelled) const {
    const float rest = below + static_cast<float>(largest - 1) + (row_largest - row_largest);
    const float sum = 1.0f + rest;
    return logf(sum) + (rest - (sum - 1.0f)) / sum + (row_largest - labelled);
  }
};

__device__ inline float sample_loss(const float* x, int classes, std::int32_t label, bool ignoring,
                                    std::int32_t ignored) {
  if (ignoring && label == ignored) return 0.0f;
  float largest = x[0];
  for (int c = 1; c < classes; ++c) largest = x[c] > largest ? x[c] : largest;
  ExpSums sums;
  for (int c = 0; c < classes; ++c) sums.add(x[c], largest);
  return sums.loss(largest, x[label]);
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
