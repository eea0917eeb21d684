// Cross-entropy of a row of logits x: log(sum exp(x - max)) + max - x[label], float32, summed over
// samples in float64.
#pragma once

#include <cmath>

#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::CrossEntropyArgs;

MP_INLINE float row_maximum(const float* x, std::int64_t count) {
  float largest = x[0];
  for (std::int64_t c = 1; c < count; ++c) largest = x[c] > largest ? x[c] : largest;
  return largest;
}

// NaN anywhere in the row makes the sum NaN.
MP_INLINE float sum_exp(const float* x, std::int64_t count, float largest) {
  Vec sums{};
  for (std::int64_t c = 0; c < count; c += kVectorFloats) {
    const std::int64_t left = count - c;
    if (left >= kVectorFloats) {
      sums += exp_negative(load(x + c) - broadcast(largest));
      continue;
    }
    float rest[kVectorFloats];
    store(rest, exp_negative(load_partial(x + c, static_cast<int>(left)) - broadcast(largest)));
    for (std::int64_t i = left; i < kVectorFloats; ++i) rest[i] = 0;
    sums += load(rest);
  }
  float total = 0;
  for (int i = 0; i < kVectorFloats; ++i) total += sums[i];
  return total;
}

double cross_entropy(const CrossEntropyArgs& args) {
  double total = args.total;
  for (std::int64_t s = 0; s < args.samples; ++s) {
    const std::int32_t label = args.labels[s];
    if (args.has_ignore && label == args.ignore) continue;
    const float* x = args.logits + s * args.stride;
    const float largest = row_maximum(x, args.classes);
    total += static_cast<double>(logf(sum_exp(x, args.classes, largest))) + (largest - x[label]);
  }
  return total;
}

}  // namespace
