// Vectors of one instruction set, for the translation units in cpu/isa/ alone. GCC/Clang vector
// extensions carry the arithmetic; only what they cannot say (fused multiply-add, bfloat16 dot
// products) is an intrinsic. Everything is static: see core/threefry.h for why.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define MP_INLINE_MEMBER __attribute__((always_inline))
#define MP_INLINE static inline MP_INLINE_MEMBER

#if defined(MP_EMULATED_TILES)  // vectors as wide as a tile, of plain C++
#define MP_VECTOR_FLOATS 16
#define MP_TILE_ROWS 12
#define MP_TILE_VECTORS 2
#elif defined(__AVX512F__)
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
typedef std::int32_t VecI __attribute__((vector_size(4 * MP_VECTOR_FLOATS)));

struct BFloat16 {
  std::uint16_t bits;
};

// visit(0) .. visit(Count - 1), the numbers being constants: arrays that these index can live in
// registers, which GCC gives no array that a loop indexes, unrolled or not.
template <int Count, class Visit>
MP_INLINE void unrolled(Visit visit) {
  [&]<int... Number>(std::integer_sequence<int, Number...>) MP_INLINE_MEMBER {
    (visit(std::integral_constant<int, Number>{}), ...);
  }(std::make_integer_sequence<int, Count>{});
}

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
#elif defined(__aarch64__) && !defined(MP_EMULATED_TILES)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// Lane l is lane index[l] of `v`.
MP_INLINE Vec permute(Vec v, VecI index) {
#if defined(__AVX512F__)
  // the masked form: GCC 12 warns of the plain one's undefined operand (bug 105593)
  return (Vec)_mm512_maskz_permutexvar_ps(0xFFFF, (__m512i)index, (__m512)v);
#elif defined(__AVX2__)
  return (Vec)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
#else
  Vec out{};
  for (int lane = 0; lane < kVectorFloats; ++lane) out[lane] = v[index[lane]];
  return out;
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

typedef std::uint16_t VecH __attribute__((vector_size(2 * MP_VECTOR_FLOATS)));

MP_INLINE Vec from_bfloat16(VecH bits) {
#if defined(__AVX512F__)
  // the masked form: GCC 12 warns of the plain one's undefined operand (bug 105593)
  return (Vec)((VecU)_mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)bits) << 16);
#elif defined(__AVX2__)
  return (Vec)((VecU)_mm256_cvtepu16_epi32((__m128i)bits) << 16);
#else
  return (Vec)(__builtin_convertvector(bits, VecU) << 16);
#endif
}

// A vector of elements as float32, and back.
MP_INLINE Vec load_floats(const float* p) {
  return load(p);
}
MP_INLINE Vec load_floats(const BFloat16* p) {
  VecH bits;
  std::memcpy(&bits, p, sizeof bits);
  return from_bfloat16(bits);
}

MP_INLINE void store_floats(float* p, Vec v) {
  store(p, v);
}
#if defined(__AVX512BF16__)
MP_INLINE __m256i to_bfloat16(Vec v) {
  return (__m256i)_mm512_cvtneps_pbh((__m512)v);  // takes denormal numbers for zero
}
#else
MP_INLINE VecU rounded_bits(Vec v) {
  const VecU bits = (VecU)v;
  const VecU rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const VecU nan = (VecU)((bits & 0x7FFFFFFFu) > 0x7F800000u);
  return (nan & ((bits >> 16) | 0x40u)) | (~nan & rounded);
}
#if defined(__AVX512F__)
MP_INLINE __m256i to_bfloat16(Vec v) {
  return _mm512_maskz_cvtepi32_epi16(0xFFFF, (__m512i)rounded_bits(v));
}
#else
MP_INLINE VecH to_bfloat16(Vec v) {
  return __builtin_convertvector(rounded_bits(v), VecH);
}
#endif
#endif
MP_INLINE void store_floats(BFloat16* p, Vec v) {
  const auto narrow = to_bfloat16(v);
  std::memcpy(static_cast<void*>(p), &narrow, sizeof narrow);
}

// The first `count` elements alone, all of them at most; the other lanes are zero, or left as they
// are in memory.
#if defined(__AVX512F__)
MP_INLINE __mmask16 first_lanes(int count) {
  return static_cast<__mmask16>((1u << count) - 1);
}
MP_INLINE Vec load_partial(const float* p, int count) {
  return (Vec)_mm512_maskz_loadu_ps(first_lanes(count), p);
}
MP_INLINE Vec load_partial(const BFloat16* p, int count) {
  return from_bfloat16((VecH)_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
MP_INLINE void store_partial(float* p, Vec v, int count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), (__m512)v);
}
MP_INLINE void store_partial(BFloat16* p, Vec v, int count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), to_bfloat16(v));
}
#else
// Lane by lane in a register: what several stores left cannot be loaded at once without a wait.
MP_INLINE Vec load_partial(const float* p, int count) {
#if defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (Vec)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
#else
  Vec v{};
#pragma GCC unroll 16
  for (int i = 0; i < kVectorFloats; ++i)
    if (i < count) v[i] = p[i];
  return v;
#endif
}
MP_INLINE Vec load_partial(const BFloat16* p, int count) {
  VecH bits{};
#pragma GCC unroll 16
  for (int i = 0; i < kVectorFloats; ++i)
    if (i < count) bits[i] = p[i].bits;
  return from_bfloat16(bits);
}
// By the bits of `count`, in sizes that the compiler knows: a copy of any other size is a call.
template <int Most, class T>
MP_INLINE void copy_up_to(T* to, const T* from, int count) {
  const int now = count & Most;
  if (now) std::memcpy(static_cast<void*>(to), from, sizeof(T) * Most);
  if constexpr (Most > 1) copy_up_to<Most / 2>(to + now, from + now, count);
}
template <class T>
MP_INLINE void store_partial(T* p, Vec v, int count) {
  T spill[kVectorFloats];
  store_floats(spill, v);
  copy_up_to<kVectorFloats>(p, spill, count);
}
#endif
template <class T>
MP_INLINE Vec load_lanes(const T* p, int count) {
  return count == kVectorFloats ? load_floats(p) : load_partial(p, count);
}
template <class T>
MP_INLINE void store_lanes(T* p, Vec v, int count) {
  if (count == kVectorFloats)
    store_floats(p, v);
  else
    store_partial(p, v, count);
}

// One 32-bit word that holds bfloat16 elements 2k (low half) and 2k + 1 (high half).
MP_INLINE std::uint32_t load_pair(const BFloat16* p) {
  std::uint32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return pair;
}
// The pair in every lane. By way of a float, or GCC unpacks it before it is spread, word by word.
MP_INLINE VecU spread_pair(std::uint32_t pair) {
  float bits;
  std::memcpy(&bits, &pair, sizeof bits);
  return (VecU)broadcast(bits);
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
