// Deltas from seeds: Threefry blocks side by side in vector lanes. See core/threefry.h for the
// numbers; here only their order in memory.
#pragma once

#include "core/threefry.h"
#include "cpu/kernels/simd.h"

namespace {

using marketplace::RandomWords;
using marketplace::threefry2x32;
using marketplace::word_to_delta;

MP_INLINE RandomWords block_words(std::uint64_t seed, std::uint32_t counter, std::int64_t half,
                                  std::int64_t block) {
  const std::uint32_t c0 = counter + static_cast<std::uint32_t>(block);
  return threefry2x32(seed, c0, c0 + static_cast<std::uint32_t>(half));
}

void perturb(std::uint64_t seed, std::uint32_t counter, float amplitude, const float* base,
             float* out, std::int64_t n) {
  const std::int64_t half = marketplace::block_count(n), full = n / 2;
  for (std::int64_t j = 0; j < full; ++j) {
    const RandomWords words = block_words(seed, counter, half, j);
    out[j] = base[j] + word_to_delta(words.lane0, amplitude);
    out[half + j] = base[half + j] + word_to_delta(words.lane1, amplitude);
  }
  if (full < half)
    out[full] = base[full] + word_to_delta(block_words(seed, counter, half, full).lane0, amplitude);
}

void accumulate_delta(std::uint64_t seed, std::uint32_t counter, float amplitude, float coefficient,
                      std::int64_t half, std::int64_t first, std::int64_t count, float* out0,
                      float* out1) {
  for (std::int64_t j = 0; j < count; ++j) {
    const RandomWords words = block_words(seed, counter, half, first + j);
    out0[j] += coefficient * word_to_delta(words.lane0, amplitude);
    out1[j] += coefficient * word_to_delta(words.lane1, amplitude);
  }
}

void add_scaled(const float* a, const float* b, float scale, float* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = a[i] + scale * b[i];
}

}  // namespace
