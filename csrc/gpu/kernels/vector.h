// What updates do to flat vectors: the operations of Backend, with the CPU's bits. Every product,
// sum and quotient is rounded by itself. What changes from step to step is read on the device, so
// that a recorded launch serves them all. Where a verdict says so (see held_back), moments and
// weights stay as they are.
#pragma once

#include <cstdint>

#include "backend.h"
#include "core/threefry.h"
#include "gpu/kernels/verdict.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

// target (n,) += scale[0] * values
void add_scaled_gpu(float* target, const float* values, const float* scale, std::int64_t count,
                    const Verdict* verdict, const Stream& stream);
// target (n,) = decay[0] * target + values
void decay_add_gpu(float* target, const float* decay, const float* values, std::int64_t count,
                   const Verdict* verdict, const Stream& stream);
// direction, mean, square (n,)
void adam_gpu(float* direction, float* mean, float* square, const AdamStep* step,
              std::int64_t count, const Verdict* verdict, const Stream& stream);

// bad[0] = 1 where values (count,) hold one that is not finite, else it is left.
void find_not_finite_gpu(const float* values, std::int64_t count, std::int32_t* bad,
                         const Stream& stream);

constexpr std::int64_t kValuesPerSum = 4096;  // fixes the order of a sum, as on the CPU
constexpr int kSpans = 16;                    // vectors of one launch

MP_HOST_DEVICE std::int64_t sums_of(std::int64_t values) {
  return (values + kValuesPerSum - 1) / kValuesPerSum;
}

// One of several vectors whose sums of kValuesPerSum values lie one behind the other.
struct Span {
  float* values = nullptr;
  std::int64_t count = 0;
  std::int64_t first = INT64_MAX;  // of its sums
};

struct SpanArgs {
  Span spans[kSpans];
  int span_count = 0;
  std::int64_t sum_count = 0;     // of these spans
  double* sums = nullptr;         // (sum_count,)
  double* squares = nullptr;      // (span_count,) of these spans
  const double* whole = nullptr;  // squares of all vectors that have one norm together, or null
  std::int64_t whole_count = 0;
  float length = 0;                  // for clip_gpu
  const Verdict* verdict = nullptr;  // for clip_gpu, as above
};
// squares = sums of squares in float64 (see core/lane_sum.h): of kValuesPerSum values, then of
// those sums.
void squares_gpu(const SpanArgs& args, const Stream& stream);
// Each span divided by its norm, or the whole's; zeros stay.
void normalise_gpu(const SpanArgs& args, const Stream& stream);
// The same norms: what is longer than `length` is cut to it.
void clip_gpu(const SpanArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
