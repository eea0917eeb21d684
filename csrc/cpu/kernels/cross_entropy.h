// Cross-entropy of a row of logits x: log(sum exp(x - max)) + max - x[label], float32. Some samples
// at a time, one to a lane; a sample's bits do not depend on its neighbours.
#pragma once

#include "cpu/kernels/exponential.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::CrossEntropyArgs;

// Rows of up to so many logits are turned, so that a vector holds one class of all samples.
constexpr std::int64_t kTurnedClasses = 64;
constexpr std::int64_t kTurnedBlocks = kTurnedClasses / kVectorFloats;

// What log(sum) + largest needs of every row, a row to a lane.
struct RowStatistics {
  Vec largest, total;  // total: of exp(x - largest)
};

// NaN anywhere in a row makes its total NaN.
MP_INLINE RowStatistics turned_statistics(const float* logits, std::int64_t stride, int samples,
                                          std::int64_t classes) {
  Vec turned[kTurnedBlocks][kVectorFloats];
  for (std::int64_t c = 0; c < classes; c += kVectorFloats) {
    const std::int64_t left = classes - c;
    const int count = static_cast<int>(left < kVectorFloats ? left : kVectorFloats);
    Vec(&rows)[kVectorFloats] = turned[c / kVectorFloats];
    for (int i = 0; i < kVectorFloats; ++i)
      rows[i] = i < samples ? load_lanes(logits + i * stride + c, count) : Vec{};
    transpose_square(rows);
  }
  RowStatistics rows{broadcast(-__builtin_inff()), {}};
  for (std::int64_t c = 0; c < classes; ++c)
    rows.largest = max(rows.largest, turned[c / kVectorFloats][c % kVectorFloats]);
  for (std::int64_t c = 0; c < classes; ++c)
    rows.total += exp_negative(turned[c / kVectorFloats][c % kVectorFloats] - rows.largest);
  return rows;
}

MP_INLINE float row_maximum(const float* x, std::int64_t count) {
  float largest = x[0];
  for (std::int64_t c = 1; c < count; ++c) largest = x[c] > largest ? x[c] : largest;
  return largest;
}

MP_INLINE float sum_exp(const float* x, std::int64_t count, float largest) {
  Vec sums{};
  std::int64_t c = 0;
  for (; c + kVectorFloats <= count; c += kVectorFloats)
    sums += exp_negative(load(x + c) - broadcast(largest));
  float total = 0;
  if (c < count) {
    float rest[kVectorFloats];
    const int left = static_cast<int>(count - c);
    store(rest, exp_negative(load_partial(x + c, left) - broadcast(largest)));
    for (int i = 0; i < left; ++i) total += rest[i];
  }
  for (int i = 0; i < kVectorFloats; ++i) total += sums[i];
  return total;
}

MP_INLINE RowStatistics row_statistics(const float* logits, std::int64_t stride, int samples,
                                       std::int64_t classes) {
  RowStatistics rows{{}, broadcast(1.0f)};
  for (int i = 0; i < samples; ++i, logits += stride) {
    rows.largest[i] = row_maximum(logits, classes);
    rows.total[i] = sum_exp(logits, classes, rows.largest[i]);
  }
  return rows;
}

// log(x) for finite x > 0, within 2 ulp: x = 2^n m, m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh(t)
// by its series in t = (m - 1) / (m + 1). NaN stays NaN.
MP_INLINE Vec log_positive(Vec x) {
  const VecI exponent = (VecI)((VecU)x - 0x3F3504F3u) >> 23;
  const Vec m = (Vec)((VecU)x - ((VecU)exponent << 23));
  const Vec n = __builtin_convertvector(exponent, Vec);
  const Vec t = (m - broadcast(1.0f)) / (m + broadcast(1.0f)), tt = t * t;
  Vec series = broadcast(1.0f / 9.0f);
  for (const float factor : {1.0f / 7.0f, 1.0f / 5.0f, 1.0f / 3.0f})
    series = series * tt + broadcast(factor);
  const Vec twice = t + t;
  const Vec low = twice * tt * series + n * broadcast(-2.12194440e-4f);
  return n * broadcast(0.693359375f) + (twice + low) + (x - x);
}

void cross_entropy(const CrossEntropyArgs& args) {
  const bool turned = args.classes <= kTurnedClasses;
  for (std::int64_t s = 0; s < args.samples; s += kVectorFloats) {
    const std::int64_t left = args.samples - s;
    const int count = static_cast<int>(left < kVectorFloats ? left : kVectorFloats);
    const float* x = args.logits + s * args.stride;
    const RowStatistics rows = turned ? turned_statistics(x, args.stride, count, args.classes)
                                      : row_statistics(x, args.stride, count, args.classes);
    const Vec log_total = log_positive(rows.total);
    for (int i = 0; i < count; ++i, x += args.stride) {
      const std::int32_t label = args.labels[s + i];
      const bool ignored = args.has_ignore && label == args.ignore;
      args.losses[s + i] =
          ignored ? 0.0 : static_cast<double>(log_total[i]) + (rows.largest[i] - x[label]);
    }
  }
}

}  // namespace
