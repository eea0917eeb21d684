// Counter-based random numbers: Threefry-2x32, 20 rounds, for host and device.
//
// Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The layout of a
// tensor's words (lane 0 of every block first, then lane 1) is the one of the tinygrad reference.
// Everything here is static and always inlined: the file is compiled once per instruction set, and
// a shared symbol would let the linker pick an instruction set that the machine lacks.
#pragma once

#include <cstdint>

#if defined(__HIPCC__)  // spelt out: nothing of HIP's headers is needed, or comes before this one
#define MP_HOST_DEVICE \
  static inline __attribute__((host)) __attribute__((device)) __attribute__((always_inline))
#elif defined(__CUDACC__)
#define MP_HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define MP_HOST_DEVICE static inline __attribute__((always_inline))
#endif

namespace marketplace {

// Word: 32 bits, or many of them side by side, for which +, ^ and rotate_left are defined.
template <class Word>
struct WordPair {
  Word lane0, lane1;
};
using RandomWords = WordPair<std::uint32_t>;

MP_HOST_DEVICE std::uint32_t rotate_left(std::uint32_t x, int bits) {
  return (x << bits) | (x >> (32 - bits));
}

// The two words of the block at counter words (c0, c1) under a 64-bit key.
template <class Word>
MP_HOST_DEVICE WordPair<Word> threefry_blocks(std::uint64_t key, Word c0, Word c1) {
  const std::uint32_t k0 = static_cast<std::uint32_t>(key);
  const std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
  const std::uint32_t k2 = k0 ^ k1 ^ 0x1BD11BDAu;
  Word x0 = c0 + k0;
  Word x1 = c1 + k1;
#define MP_ROUND(bits) x0 = x0 + x1, x1 = rotate_left(x1, bits) ^ x0
#define MP_ROUNDS_EVEN MP_ROUND(13), MP_ROUND(15), MP_ROUND(26), MP_ROUND(6)
#define MP_ROUNDS_ODD MP_ROUND(17), MP_ROUND(29), MP_ROUND(16), MP_ROUND(24)
  MP_ROUNDS_EVEN, x0 = x0 + k1, x1 = x1 + (k2 + 1u);
  MP_ROUNDS_ODD, x0 = x0 + k2, x1 = x1 + (k0 + 2u);
  MP_ROUNDS_EVEN, x0 = x0 + k0, x1 = x1 + (k1 + 3u);
  MP_ROUNDS_ODD, x0 = x0 + k1, x1 = x1 + (k2 + 4u);
  MP_ROUNDS_EVEN, x0 = x0 + k2, x1 = x1 + (k0 + 5u);
#undef MP_ROUNDS_ODD
#undef MP_ROUNDS_EVEN
#undef MP_ROUND
  return {x0, x1};
}

MP_HOST_DEVICE RandomWords threefry2x32(std::uint64_t key, std::uint32_t c0, std::uint32_t c1) {
  return threefry_blocks<std::uint32_t>(key, c0, c1);
}

MP_HOST_DEVICE float bits_to_float(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// [0, 1): the top 23 bits as the mantissa of a number in [1, 2), minus one.
MP_HOST_DEVICE float word_to_float(std::uint32_t word) {
  return bits_to_float((word >> 9) | 0x3F800000u) - 1.0f;
}

// uniform(-a, a) as (2a)u - a, two roundings and never a fused one, so every device agrees to the
// bit.
MP_HOST_DEVICE float word_to_delta(std::uint32_t word, float amplitude) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(__fmul_rn(2.0f * amplitude, word_to_float(word)), amplitude);
#else
#if defined(__HIPCC__)
#pragma clang fp contract(off)
#endif
  return (2.0f * amplitude) * word_to_float(word) - amplitude;
#endif
}

// Words that a float32 tensor of `count` elements uses up; it starts a new pair of lanes.
MP_HOST_DEVICE std::int64_t block_count(std::int64_t count) {
  return (count + 1) / 2;
}

}  // namespace marketplace
