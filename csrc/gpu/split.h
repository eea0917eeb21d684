// A plan shared out among devices.
#pragma once

#include <cstdint>
#include <vector>

#include "shares.h"

namespace marketplace::gpu {

// At most `count` parts of nearly equal cost, none empty. flops: of one sample, per level; leaders:
// as from leader_rows.
std::vector<Part> split_plan(const Plan& plan, const std::vector<std::int64_t>& flops,
                             std::int64_t count, const std::vector<std::int64_t>& leaders);

}  // namespace marketplace::gpu
