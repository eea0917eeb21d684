// bfloat16 by its bits, for host and device; rounds to nearest even, NaN stays NaN, as on the CPU.
#pragma once

#include <cstdint>

#include "core/threefry.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

struct BFloat16 {
  std::uint16_t bits;
};

MP_HOST_DEVICE float to_float(float x) {
  return x;
}
MP_HOST_DEVICE float to_float(BFloat16 x) {
  return bits_to_float(static_cast<std::uint32_t>(x.bits) << 16);
}

MP_HOST_DEVICE BFloat16 to_bfloat16(float x) {
#if defined(__CUDA_ARCH__)
  BFloat16 nearest;  // one instruction; it makes every NaN 0x7FFF, which is a NaN still
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(nearest.bits) : "f"(x));
  return nearest;
#else
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;
  return {static_cast<std::uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded)};
#endif
}

MP_HOST_DEVICE void from_float(float x, float& out) {
  out = x;
}
MP_HOST_DEVICE void from_float(float x, BFloat16& out) {
  out = to_bfloat16(x);
}

// Two neighbours in memory as one word: `low` at the lower address.
MP_HOST_DEVICE std::uint32_t bfloat16_pair(float low, float high) {
#if defined(__CUDA_ARCH__)
  std::uint32_t pair;  // one instruction, as above
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return to_bfloat16(low).bits | (static_cast<std::uint32_t>(to_bfloat16(high).bits) << 16);
#endif
}

}  // namespace marketplace::gpu
