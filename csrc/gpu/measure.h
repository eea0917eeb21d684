// What a device's kernels reach: the yardstick of the benchmarks.
#pragma once

#include "gpu/device.h"

namespace marketplace::gpu {

// Floating point operations a second of the product kernel on a large square product.
double measure_peak(Device& device, double seconds);

// Deltas a second.
double measure_random(Device& device, double seconds);

}  // namespace marketplace::gpu
