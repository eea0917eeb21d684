// The sums of core/lane_sum.h by 32 threads side by side, a warp or half of one.
#pragma once

#include "core/lane_sum.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

constexpr int kWidestWarp = 64;  // on any chip: host code does not know which

__device__ __forceinline__ int sum_lane() {
  return static_cast<int>(threadIdx.x) % kSumLanes;
}

// Every one of the threads gets it; all of the warp must ask.
__device__ __forceinline__ double total_of_lanes(double mine) {
  for (int half = kSumLanes / 2; half > 0; half /= 2) mine += shuffle_xor(mine, half);
  return mine;
}

}  // namespace marketplace::gpu
