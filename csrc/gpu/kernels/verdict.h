// What the kernels of a step's update are told by the kernels before them.
#pragma once

#include <cstdint>

#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

struct Verdict {
  std::int32_t sound = 0;       // every loss is finite: vectors may change
  std::int32_t degenerate = 0;  // some losses that must differ are equal
};

// Whether a kernel must leave its vectors as they are; null: it need not ask.
__device__ __forceinline__ bool held_back(const Verdict* verdict) {
  return verdict != nullptr && verdict->sound == 0;
}

}  // namespace marketplace::gpu
