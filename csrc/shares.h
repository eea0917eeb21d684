// A plan shared out, among devices or among processes: each evaluates some paths, with all that
// leads to them.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace marketplace {

// Per level, the plan's rows that lead to a path.
std::vector<std::vector<char>> used_rows(const Plan& plan);

// Per level, the row that continues the leader's path, else the first used row of vendor 0, or -1.
std::vector<std::int64_t> leader_rows(const Plan& plan);

// The paths in depth-first order, in which neighbours have the most in common.
std::vector<std::int64_t> depth_first(const Plan& plan);

struct Cut {
  std::vector<std::int64_t> bounds;  // part k is [bounds[k], bounds[k + 1]) of the order
  std::vector<double> costs;         // of each part, for one sample
};

// Parts of neighbouring paths that finish at nearly the same time where part k runs at speeds[k];
// a part may be empty. What two parts have in common both compute. order: as from depth_first;
// flops: of one sample, per level.
Cut cut_plan(const Plan& plan, const std::vector<std::int64_t>& order,
             const std::vector<std::int64_t>& flops, const std::vector<double>& speeds);

struct Part {
  Plan plan;
  std::vector<std::int64_t> paths;    // of the whole plan, in the order of the part's
  std::vector<std::int64_t> leaders;  // per level, the row whose statistics this part reports
};

// The part of some paths, in ascending order; rows of `leaders` that are here move over, -1 staying
// behind.
Part take_paths(const Plan& plan, std::vector<std::int64_t> paths,
                std::vector<std::int64_t>& leaders);

}  // namespace marketplace
