// A plan shared out among devices: each gets some paths with all that leads to them.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace marketplace::gpu {

struct Part {
  Plan plan;
  std::vector<std::int64_t> paths;    // of the whole plan, in the order of the part's
  std::vector<std::int64_t> leaders;  // per level, the row whose statistics this part reports
};

// At most `count` parts of nearly equal cost, none empty. Neighbouring paths stay together, by
// subtrees of the first spec's vendors wherever those are small enough; what two parts have in
// common both compute. flops: of one sample, per level; leaders: as from leader_rows.
std::vector<Part> split_plan(const Plan& plan, const std::vector<std::int64_t>& flops,
                             std::int64_t count, const std::vector<std::int64_t>& leaders);

}  // namespace marketplace::gpu
