// Rows of elements, shared out among threads without a division for every one of them: a block's
// threads take neighbouring elements of one row.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "gpu/divisor.h"
#include "gpu/kernels/element.h"

namespace marketplace::gpu {

// Blocks that cover rows of `each` elements, `per_thread` to a thread.
struct RowBlocks {
  RowBlocks(std::int64_t rows, std::int64_t each, int per_thread)
      : of_row((each + kBlockThreads * per_thread - 1) / (kBlockThreads * per_thread)),
        grid{rows * of_row},
        divisor(of_row) {}
  std::int64_t of_row;
  Grid grid;
  Divisor divisor;  // by of_row
};

// A thread's elements of a row: those from `first` on. first may lie behind the row's end.
struct Part {
  std::uint32_t row;
  std::int64_t first;
};
template <int PerThread>
__device__ __forceinline__ Part part_of(const Divisor& blocks_of_row) {
  const Division at = blocks_of_row.divide(blockIdx.x);
  const std::int64_t thread = static_cast<std::int64_t>(at.remainder) * kBlockThreads + threadIdx.x;
  return {at.quotient, thread * PerThread};
}

// Numbers of 16 bytes.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// Calls run(std::integral_constant) with how many elements a thread takes at once: whole vectors
// where rows hold those alone and begin where vectors may. (A tile may begin at any sample.)
template <class T, class Run>
void with_vectors(std::int64_t each, std::initializer_list<const void*> places, Run run) {
  bool whole = each % kVector<T> == 0;
  for (const void* place : places)
    whole = whole && reinterpret_cast<std::uintptr_t>(place) % 16 == 0;
  if (whole)
    run(std::integral_constant<int, kVector<T>>());
  else
    run(std::integral_constant<int, 1>());
}

// N numbers, one or vectors of them, 16-byte aligned.
template <class T, int N>
__device__ __forceinline__ void load_floats(const T* from, float (&to)[N]) {
  alignas(16) T values[N];
  if constexpr (N == 1) {
    values[0] = from[0];
  } else {
    for (int v = 0; v < N; v += kVector<T>) copy16(values + v, from + v);
  }
  for (int i = 0; i < N; ++i) to[i] = to_float(values[i]);
}
template <class T, int N>
__device__ __forceinline__ void store_floats(const float (&from)[N], T* to) {
  if constexpr (N == 1) {
    to[0] = rounded<T>(from[0]);
  } else {
    for (int v = 0; v < N; v += kVector<T>) {
      alignas(16) float values[kVector<T>];
      for (int i = 0; i < kVector<T>; ++i) values[i] = from[v + i];
      store_rounded(values, to + v);
    }
  }
}

}  // namespace marketplace::gpu
