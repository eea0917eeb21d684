#include <string>

#include "core/error.h"
#include "gpu/checksum.h"
#include "gpu/kernels/checksum.h"

namespace marketplace::gpu {

std::uint64_t weight_checksum(const DeviceExecutor& executor) {
  const DeviceGuard guard(executor.device().index);
  std::uint64_t sums[kChecksumBlocks];
  const DeviceMemory on_device = executor.device().pool.allocate(sizeof sums, executor.stream());
  checksum_gpu(executor.weights(), executor.weight_count(), on_device.get<std::uint64_t>(),
               executor.stream());
  copy_to_host(sums, on_device.get(), sizeof sums, executor.stream());
  executor.stream().synchronize();
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

void compare_weights(const std::vector<std::unique_ptr<DeviceExecutor>>& executors) {
  const std::uint64_t expected = weight_checksum(*executors[0]);
  for (const auto& executor : executors) {
    const std::uint64_t received = weight_checksum(*executor);
    if (received != expected)
      fail(ErrorKind::runtime, "weights",
           "the checksum " + std::to_string(expected) + " of device " +
               std::to_string(executors[0]->device().index) + " on every device",
           std::to_string(received) + " on device " + std::to_string(executor->device().index));
  }
}

}  // namespace marketplace::gpu
