// Whether all devices hold the same values, to the bit.
#pragma once

#include <memory>
#include <vector>

#include "gpu/team.h"

namespace marketplace::gpu {

// Sums over (value bits, position), which no single change leaves as they were: one per vector.
std::vector<std::uint64_t> checksums(Team& team, std::size_t device,
                                     const std::vector<std::shared_ptr<Resident>>& vectors);

// Throws ErrorKind::runtime, naming the first device that differs from the first of all.
void compare_devices(Team& team, const std::vector<std::shared_ptr<Resident>>& vectors);

}  // namespace marketplace::gpu
