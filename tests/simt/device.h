// What device code calls: barriers, warp-wide operations, atomics, intrinsics.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernel.h"
#include "types.h"

inline void __syncthreads(const simt::Where& where = simt::Where::current()) {
  simt::block_barrier(0, where);
}
inline int __syncthreads_count(int predicate, const simt::Where& where = simt::Where::current()) {
  return simt::block_barrier(predicate != 0, where);
}
inline int __syncthreads_or(int predicate, const simt::Where& where = simt::Where::current()) {
  return simt::block_barrier(predicate != 0, where) > 0;
}
inline int __syncthreads_and(int predicate, const simt::Where& where = simt::Where::current()) {
  return simt::block_barrier(predicate == 0, where) == 0;
}

namespace simt {

template <class T>
struct Shuffle {
  T value;
  int source;  // whose value this lane receives
  T received;
};

template <class T>
T shuffle(T value, int source, const Where& where) {
  Shuffle<T> slot = {value, source, value};
  warp_collective(
      &slot,
      [](void* const* slots) {
        for (int lane = 0; lane < kWarpSize; ++lane) {
          auto* mine = static_cast<Shuffle<T>*>(slots[lane]);
          mine->received = static_cast<Shuffle<T>*>(slots[mine->source])->value;
        }
      },
      where);
  return slot.received;
}

struct Vote {
  bool predicate;
  int count;  // over the warp
};

inline int vote(bool predicate, const Where& where) {
  Vote slot = {predicate, 0};
  warp_collective(
      &slot,
      [](void* const* slots) {
        int count = 0;
        for (int lane = 0; lane < kWarpSize; ++lane)
          count += static_cast<Vote*>(slots[lane])->predicate;
        for (int lane = 0; lane < kWarpSize; ++lane) static_cast<Vote*>(slots[lane])->count = count;
      },
      where);
  return slot.count;
}

inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) %
                          kWarpSize);
}

template <class T>
T exchange(T* address, T value) {
  const T old = *address;
  *address = value;
  return old;
}

}  // namespace simt

inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simt::exchange(address, static_cast<T>(*address + value));
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return simt::exchange(address, std::max(*address, value));
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return simt::exchange(address, std::min(*address, value));
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return simt::exchange(address, value);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return simt::exchange(address, *address == expected ? value : *address);
}
template <class T>
T __ldg(const T* address) {
  return *address;
}

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(unsigned x) {
  return std::countl_zero(x);
}
inline int __ffs(unsigned x) {
  return x == 0 ? 0 : std::countr_zero(x) + 1;
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
