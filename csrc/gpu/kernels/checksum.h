// Sums over the bits of float32 values, each weighted by its place; integers, so that any order
// gives the same.
#pragma once

#include <cstdint>

#include "gpu/runtime.h"

namespace marketplace::gpu {

constexpr int kChecksumBlocks = 64;

// sums (kChecksumBlocks,), to be added up.
void checksum_gpu(const float* values, std::int64_t count, std::uint64_t* sums,
                  const Stream& stream);

}  // namespace marketplace::gpu
