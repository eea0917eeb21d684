// Elements in memory, for kernels: conversion, 16 bytes at once, blocks enough for a count.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "gpu/bfloat16.h"
#include "gpu/launch.h"

namespace marketplace::gpu {

constexpr int kBlockThreads = 256;  // of every kernel that needs no other number

template <class T>
__device__ __forceinline__ T rounded(float x) {
  T out;
  from_float(x, out);
  return out;
}

struct alignas(16) Bytes16 {
  std::uint32_t words[4];
};

// Both aligned to as many bytes.
__device__ __forceinline__ void copy16(void* to, const void* from) {
  *static_cast<Bytes16*>(to) = *static_cast<const Bytes16*>(from);
}

// A record of 16 bytes by one load: compilers may take its members one by one.
template <class T>
__device__ __forceinline__ T load16(const T* from) {
  static_assert(sizeof(T) == 16 && alignof(T) == 16);
  return __builtin_bit_cast(T, *reinterpret_cast<const Bytes16*>(from));
}

// 16 bytes of numbers at once.
__device__ __forceinline__ void store_rounded(const float (&values)[4], float* to) {
  copy16(to, values);
}
__device__ __forceinline__ void store_rounded(const float (&values)[8], BFloat16* to) {
  Bytes16 pairs;
  for (int i = 0; i < 4; ++i) pairs.words[i] = bfloat16_pair(values[2 * i], values[2 * i + 1]);
  *reinterpret_cast<Bytes16*>(to) = pairs;
}

// exponent bits all ones: NaN or infinite
__device__ __forceinline__ bool is_finite(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7F800000u) != 0x7F800000u;
}

// This thread's number in the grid.
__device__ __forceinline__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

inline Grid blocks_for(std::int64_t threads) {
  return {(threads + kBlockThreads - 1) / kBlockThreads};
}

// Calls run(T{}) with the type of a compute dtype's numbers in memory.
template <class Run>
void dispatch(DType dtype, Run run) {
  switch (dtype) {
    case DType::float32:
    case DType::tf32: return run(float{});
    case DType::bfloat16: return run(BFloat16{});
    default: fail("dtype", "float32 or bfloat16", to_string(dtype));
  }
}

}  // namespace marketplace::gpu
