#include <cstring>
#include <numeric>
#include <string>

#include "core/error.h"
#include "gpu/checksum.h"
#include "gpu/kernels/checksum.h"

namespace marketplace::gpu {

std::vector<std::uint64_t> checksums(Team& team, std::size_t device,
                                     const std::vector<std::shared_ptr<Resident>>& vectors) {
  const Stream& stream = team.stream(device);
  std::vector<std::uint64_t> sums(vectors.size() * kChecksumBlocks), totals;
  const auto bytes = static_cast<std::int64_t>(sums.size() * sizeof(std::uint64_t));
  const DeviceMemory on_device = team.device(device)->pool.allocate(bytes, stream);
  for (std::size_t i = 0; i < vectors.size(); ++i)
    checksum_gpu(vectors[i]->at(device), vectors[i]->count(),
                 on_device.get<std::uint64_t>() + i * kChecksumBlocks, stream);
  std::memcpy(sums.data(), team.fetch(device, on_device), static_cast<std::size_t>(bytes));
  for (auto first = sums.begin(); first != sums.end(); first += kChecksumBlocks)
    totals.push_back(std::accumulate(first, first + kChecksumBlocks, std::uint64_t{0}));
  return totals;
}

void compare_devices(Team& team, const std::vector<std::shared_ptr<Resident>>& vectors) {
  const std::vector<std::uint64_t> expected = checksums(team, 0, vectors);
  for (std::size_t d = 1; d < team.size(); ++d) {
    const std::vector<std::uint64_t> received = checksums(team, d, vectors);
    for (std::size_t i = 0; i < expected.size(); ++i)
      if (received[i] != expected[i])
        fail(ErrorKind::runtime, "weights",
             "the checksum " + std::to_string(expected[i]) + " of device " +
                 std::to_string(team.device(0)->index) + " on every device",
             std::to_string(received[i]) + " on device " + std::to_string(team.device(d)->index));
  }
}

}  // namespace marketplace::gpu
