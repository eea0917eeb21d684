// Whether all devices hold the same weights, to the bit.
#pragma once

#include <memory>
#include <vector>

#include "gpu/device_executor.h"

namespace marketplace::gpu {

// A sum over (value bits, position) that no single change leaves as it was.
std::uint64_t weight_checksum(const DeviceExecutor& executor);

// Throws ErrorKind::runtime, naming the first device that differs from the first of all.
void compare_weights(const std::vector<std::unique_ptr<DeviceExecutor>>& executors);

}  // namespace marketplace::gpu
