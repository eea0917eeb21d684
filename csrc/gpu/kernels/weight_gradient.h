// The gradient of a contraction's weights: an outer product of what went in and of the errors that
// came back, summed over samples and pixels.
//
// in (samples, H, W, C) channels-last as the contraction reads it, errors (samples, pixels, O),
// both float32 -> partial (pieces, O, K + 1), k as in Contraction, the bias's at K. Every sum runs
// over its piece's samples and pixels in order, see node.h.
#pragma once

#include "gpu/kernels/contract.h"
#include "gpu/kernels/node.h"

namespace marketplace::gpu {

struct WeightGradientArgs : WindowArgs {
  using WindowArgs::WindowArgs;
  const float* in = nullptr;
  const float* errors = nullptr;
  const float* noise = nullptr;  // (samples,): errors are divided by noise and probes, or null
  float probes = 1;
  const Tap* taps = nullptr;
  std::int64_t depth = 0;  // K
  TileRange range;
  float* partial = nullptr;
  std::int64_t partial_stride = 0;  // between pieces
};
void weight_gradient_gpu(const WeightGradientArgs& args, const Stream& stream);

// weight (O, depth) += share[0] * sum over pieces, in the order of Contraction's weights; bias (O,)
// the same, where it is not null.
struct WeightGradientSum {
  const float* partial = nullptr;
  std::int64_t pieces = 0, partial_stride = 0, columns = 0, depth = 0;
  std::int64_t order_outer = 1, order_inner = 1;
  float* weight = nullptr;
  float* bias = nullptr;
};
void sum_weight_gradient_gpu(const WeightGradientSum& args, const float* share,
                             const Stream& stream);

}  // namespace marketplace::gpu
