// Losses of samples one by one, worked out some at a time.
#pragma once

#include <algorithm>

#include "backend.h"
#include "cpu/kernels/table.h"

namespace marketplace::cpu {

// take(sample, loss) for every sample; logits: rows of `classes`, `stride` floats apart. labels:
// one per sample; of `options` only which label is ignored counts, its loss is 0.
template <class Take>
void for_each_loss(const KernelTable& kernels, const float* logits, std::int64_t stride,
                   std::int64_t samples, std::int64_t classes, const std::int32_t* labels,
                   const Labels& options, Take take) {
  constexpr std::int64_t kAtOnce = 64;
  double losses[kAtOnce];
  for (std::int64_t first = 0; first < samples; first += kAtOnce) {
    const std::int64_t count = std::min(kAtOnce, samples - first);
    kernels.cross_entropy({logits + first * stride, stride, count, classes, labels + first,
                           options.ignore_index.has_value(), options.ignore_index.value_or(0),
                           losses});
    for (std::int64_t i = 0; i < count; ++i) take(first + i, losses[i]);
  }
}

}  // namespace marketplace::cpu
