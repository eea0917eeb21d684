// Cross-entropy of a row of logits x: log(1 + rest) + max - x[label], float32, rest being the sum
// of exp(x - max) without the maximum's own 1: beside it a small loss would be rounded away. Some
// samples at a time, one to a lane; a sample's bits do not depend on its neighbours.
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

// What log(1 + rest) + largest needs of every row, a row to a lane.
struct RowStatistics {
  Vec largest, rest;
};

// The first `count` lanes of v, then `otherwise`.
MP_INLINE Vec fill_lanes(Vec v, int count, float otherwise) {
  VecI lane;
  for (int i = 0; i < kVectorFloats; ++i) lane[i] = i;
  return lane < count ? v : broadcast(otherwise);
}

// Sums of exp(x - largest), one to a lane. The largest logits' ones are counted apart.
struct ExpSums {
  Vec below{};
  VecI largest{};

  MP_INLINE_MEMBER void add(Vec x, Vec row_largest) {
    const VecI same = x == row_largest;
    largest -= same;
    below += same ? Vec{} : exp_negative(x - row_largest);
  }
};
// The sum without one of the largest logits. Where that is infinite it is NaN.
MP_INLINE Vec rest_of(const ExpSums& sums, Vec row_largest) {
  const Vec others = __builtin_convertvector(sums.largest - 1, Vec);
  return sums.below + others + (row_largest - row_largest);
}

// NaN anywhere in a row makes its rest NaN.
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
  Vec largest = broadcast(-__builtin_inff());
  for (std::int64_t c = 0; c < classes; ++c)
    largest = max(largest, turned[c / kVectorFloats][c % kVectorFloats]);
  ExpSums sums;
  for (std::int64_t c = 0; c < classes; ++c)
    sums.add(turned[c / kVectorFloats][c % kVectorFloats], largest);
  return {largest, rest_of(sums, largest)};
}

// Of at least a vector of logits; the last vector may overlap another.
MP_INLINE float row_maximum(const float* x, std::int64_t count) {
  const Vec low = broadcast(-__builtin_inff());
  Vec largest[4] = {low, low, low, low};
  std::int64_t c = 0;
  for (; c + 4 * kVectorFloats <= count; c += 4 * kVectorFloats)
    for (int i = 0; i < 4; ++i) largest[i] = max(largest[i], load(x + c + i * kVectorFloats));
  for (; c + kVectorFloats <= count; c += kVectorFloats) largest[0] = max(largest[0], load(x + c));
  largest[1] = max(largest[1], load(x + count - kVectorFloats));
  const Vec lanes = max(max(largest[0], largest[1]), max(largest[2], largest[3]));
  float most = lanes[0];
  for (int i = 1; i < kVectorFloats; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

MP_INLINE float row_rest(const float* x, std::int64_t count, float largest) {
  ExpSums sums;
  const Vec row_largest = broadcast(largest);
  std::int64_t c = 0;
  for (; c + kVectorFloats <= count; c += kVectorFloats) sums.add(load(x + c), row_largest);
  if (c < count) {  // lanes that are left over add 0
    const int left = static_cast<int>(count - c);
    sums.add(fill_lanes(load_partial(x + c, left), left, -__builtin_inff()), row_largest);
  }
  float below = 0;
  int others = -1;
  for (int i = 0; i < kVectorFloats; ++i) {
    below += sums.below[i];
    others += sums.largest[i];
  }
  return below + static_cast<float>(others) + (largest - largest);
}

MP_INLINE RowStatistics row_statistics(const float* logits, std::int64_t stride, int samples,
                                       std::int64_t classes) {
  RowStatistics rows{{}, {}};
  for (int i = 0; i < samples; ++i, logits += stride) {
    rows.largest[i] = row_maximum(logits, classes);
    rows.rest[i] = row_rest(logits, classes, rows.largest[i]);
  }
  return rows;
}

void cross_entropy(const CrossEntropyArgs& args) {
  const bool turned = args.classes <= kTurnedClasses;
  for (std::int64_t s = 0; s < args.samples; s += kVectorFloats) {
    const std::int64_t left = args.samples - s;
    const int count = static_cast<int>(left < kVectorFloats ? left : kVectorFloats);
    const float* x = args.logits + s * args.stride;
    const RowStatistics rows = turned ? turned_statistics(x, args.stride, count, args.classes)
                                      : row_statistics(x, args.stride, count, args.classes);
    const Vec log_sum = log1p_positive(rows.rest);
    for (int i = 0; i < count; ++i, x += args.stride) {
      const std::int32_t label = args.labels[s + i];
      const bool ignored = args.has_ignore && label == args.ignore;
      args.losses[s + i] =
          ignored ? 0.0 : static_cast<double>(log_sum[i]) + (rows.largest[i] - x[label]);
    }
  }
}

}  // namespace
