// Deltas from seeds: Threefry blocks side by side in vector lanes. See core/threefry.h for the
// numbers; here only their order in memory.
#pragma once

#include "core/threefry.h"
#include "cpu/kernels/simd.h"

namespace {

using marketplace::RandomWords;
using marketplace::threefry2x32;
using marketplace::word_to_delta;

// The words of some vectors of blocks. A round waits for the one before, so several blocks' rounds
// take turns: as many as there are registers for two vectors each.
struct WordLanes {
  static constexpr int kVectors = kTileRows * kTileVectors > 16 ? 8 : 6;
  static constexpr int kWords = kVectors * kVectorFloats;
  VecU at[kVectors];
};

template <class Make>
MP_INLINE WordLanes make_lanes(Make make) {
  WordLanes lanes;
  unrolled<WordLanes::kVectors>([&](auto i) MP_INLINE_MEMBER { lanes.at[i] = make(i); });
  return lanes;
}
MP_INLINE WordLanes operator+(const WordLanes& a, const WordLanes& b) {
  return make_lanes([&](auto i) MP_INLINE_MEMBER { return a.at[i] + b.at[i]; });
}
MP_INLINE WordLanes operator+(const WordLanes& a, std::uint32_t b) {
  return make_lanes([&](auto i) MP_INLINE_MEMBER { return a.at[i] + b; });
}
MP_INLINE WordLanes operator^(const WordLanes& a, const WordLanes& b) {
  return make_lanes([&](auto i) MP_INLINE_MEMBER { return a.at[i] ^ b.at[i]; });
}
MP_INLINE WordLanes rotate_left(const WordLanes& x, int bits) {
  return make_lanes([&](auto i)
                        MP_INLINE_MEMBER { return x.at[i] << bits | x.at[i] >> (32 - bits); });
}

// first, first + 1, ...
MP_INLINE WordLanes count_up(std::uint32_t first) {
  VecU number;
  for (int lane = 0; lane < kVectorFloats; ++lane) number[lane] = static_cast<std::uint32_t>(lane);
  return make_lanes([&](auto i) MP_INLINE_MEMBER { return number + (first + i * kVectorFloats); });
}

// As word_to_delta.
MP_INLINE Vec words_to_delta(VecU words, float amplitude) {
  const Vec numbers = (Vec)((words >> 9) | 0x3F800000u) - 1.0f;
  return (2.0f * amplitude) * numbers - amplitude;
}

// A tensor's blocks, numbered from `counter` on; their lanes 1 lie `half` words behind lanes 0.
struct BlockStream {
  std::uint64_t seed;
  std::uint32_t counter;
  std::int64_t half;

  MP_INLINE_MEMBER RandomWords block(std::int64_t number) const {
    const std::uint32_t c0 = counter + static_cast<std::uint32_t>(number);
    return threefry2x32(seed, c0, c0 + static_cast<std::uint32_t>(half));
  }
  MP_INLINE_MEMBER marketplace::WordPair<WordLanes> blocks(std::int64_t first) const {
    const WordLanes c0 = count_up(counter + static_cast<std::uint32_t>(first));
    return marketplace::threefry_blocks(seed, c0, c0 + static_cast<std::uint32_t>(half));
  }
};

// visit(j, word of lane 0, word of lane 1) for `count` blocks from `first` on, j counted from
// there; vectors of words, and single ones for what is left.
template <class Visit>
MP_INLINE void for_each_block(const BlockStream& stream, std::int64_t first, std::int64_t count,
                              Visit visit) {
  std::int64_t j = 0;
  for (; j + WordLanes::kWords <= count; j += WordLanes::kWords) {
    const auto words = stream.blocks(first + j);
    unrolled<WordLanes::kVectors>([&](auto i) MP_INLINE_MEMBER {
      visit(j + i * kVectorFloats, words.lane0.at[i], words.lane1.at[i]);
    });
  }
  for (; j < count; ++j) {
    const RandomWords words = stream.block(first + j);
    visit(j, words.lane0, words.lane1);
  }
}

// to = from + a word's delta.
MP_INLINE void add_delta(const float* from, float* to, VecU words, float amplitude) {
  store(to, load(from) + words_to_delta(words, amplitude));
}
MP_INLINE void add_delta(const float* from, float* to, std::uint32_t word, float amplitude) {
  *to = *from + word_to_delta(word, amplitude);
}

void perturb(std::uint64_t seed, std::uint32_t counter, float amplitude, const float* base,
             float* out, std::int64_t n) {
  const std::int64_t half = marketplace::block_count(n), full = n / 2;
  const BlockStream stream{seed, counter, half};
  for_each_block(stream, 0, full, [&](std::int64_t j, auto lane0, auto lane1) MP_INLINE_MEMBER {
    add_delta(base + j, out + j, lane0, amplitude);
    add_delta(base + half + j, out + half + j, lane1, amplitude);
  });
  if (full < half) add_delta(base + full, out + full, stream.block(full).lane0, amplitude);
}

// to += coefficient * a word's delta.
MP_INLINE void add_scaled_delta(float* to, VecU words, float amplitude, float coefficient) {
  store(to, load(to) + coefficient * words_to_delta(words, amplitude));
}
MP_INLINE void add_scaled_delta(float* to, std::uint32_t word, float amplitude, float coefficient) {
  *to += coefficient * word_to_delta(word, amplitude);
}

void accumulate_delta(std::uint64_t seed, std::uint32_t counter, float amplitude, float coefficient,
                      std::int64_t half, std::int64_t first, std::int64_t count, float* out0,
                      float* out1) {
  for_each_block({seed, counter, half}, first, count,
                 [&](std::int64_t j, auto lane0, auto lane1) MP_INLINE_MEMBER {
                   add_scaled_delta(out0 + j, lane0, amplitude, coefficient);
                   add_scaled_delta(out1 + j, lane1, amplitude, coefficient);
                 });
}

void add_scaled(const float* a, const float* b, float scale, float* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = a[i] + scale * b[i];
}

}  // namespace
