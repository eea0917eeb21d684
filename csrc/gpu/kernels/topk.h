// The k smallest or largest numbers of every row, compared as float64: ties go to the lower index,
// NaN sorts last either way, as in market/topk.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

// A number as what it is sorted by: the lower the key, and among equal ones the index, the better.
struct Candidate {
  std::uint64_t key;
  std::int64_t index;
};

// Candidates of a row of n numbers: a power of two, so that a bitonic network sorts them.
std::int64_t candidate_count(std::int64_t n);

struct TopkArgs {
  DeviceNumbers values;  // (R, n)
  std::int64_t rows = 0, n = 0, k = 0;
  bool largest = false;
  Candidate* candidates = nullptr;  // (R, candidate_count(n))
  std::int64_t* indices = nullptr;  // (R, k)
  std::byte* best = nullptr;        // (R, k) of the values
};
void topk_gpu(const TopkArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
