// Vectors of one instruction set, for the translation units in cpu/isa/ alone. GCC/Clang vector
// extensions carry the arithmetic; only what they cannot say (fused multiply-add, bfloat16 dot
// products) is an intrinsic. Everything is static: see core/threefry.h for why.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define MP_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define MP_VECTOR_FLOATS 16
#define MP_TILE_ROWS 12
#define MP_TILE_VECTORS 2
#elif defined(__AVX2__)
#define MP_VECTOR_FLOATS 8
#define MP_TILE_ROWS 6
#define MP_TILE_VECTORS 2
#elif defined(__aarch64__)
#define MP_VECTOR_FLOATS 4
#define MP_TILE_ROWS 6
#define MP_TILE_VECTORS 4
#else
#define MP_VECTOR_FLOATS 4
#define MP_TILE_ROWS 6
#define MP_TILE_VECTORS 2
#endif

namespace {

constexpr int kVectorFloats = MP_VECTOR_FLOATS;
constexpr int kTileRows = MP_TILE_ROWS;
constexpr int kTileVectors = MP_TILE_VECTORS;

typedef float Vec __attribute__((vector_size(4 * MP_VECTOR_FLOATS)));
typedef std::uint32_t VecU __attribute__((vector_size(4 * MP_VECTOR_FLOATS)));

struct BFloat16 {
  std::uint16_t bits;
};

MP_INLINE Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
MP_INLINE void store(float* p, Vec v) {
  std::memcpy(p, &v, sizeof v);
}
MP_INLINE Vec broadcast(float x) {
  return x - Vec{};
}
// NaN in `a` stays: a broken network must show in its losses.
MP_INLINE Vec max(Vec a, Vec b) {
  return b > a ? b : a;
}

MP_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// bfloat16 <-> float32; rounds to nearest even, NaN stays NaN.
MP_INLINE float to_float(float x) {
  return x;
}
MP_INLINE float to_float(BFloat16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
MP_INLINE std::uint16_t bfloat16_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
}
MP_INLINE void from_float(float x, float& out) {
  out = x;
}
MP_INLINE void from_float(float x, BFloat16& out) {
  out.bits = bfloat16_bits(x);
}

// One 32-bit word that holds bfloat16 elements 2k (low half) and 2k + 1 (high half).
MP_INLINE std::uint32_t load_pair(const BFloat16* p) {
  std::uint32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return pair;
}
MP_INLINE VecU load_words(const BFloat16* p) {
  VecU v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// c + a.low * b.low + a.high * b.high, lane by lane on pairs of bfloat16.
MP_INLINE Vec dot_pairs(VecU a, VecU b, Vec c) {
#if defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
  const Vec low = fma((Vec)(a << 16), (Vec)(b << 16), c);
  return fma((Vec)(a & 0xFFFF0000u), (Vec)(b & 0xFFFF0000u), low);
#endif
}

}  // namespace
