// The designs of a probe, as data: which vendors meet which upstream results.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace marketplace {

// All paths. Level i is vendor-major: row v * k + j is vendor v on its j-th upstream row.
// sampled[i] holds (V_i, k) upstream rows, or is empty for all of them in order.
Plan tree_plan(const std::vector<std::int64_t>& vendor_counts,
               const std::vector<std::vector<std::int32_t>>& sampled);

// The leader's path first, then for every spec in order, every vendor v > 0: the path that deviates
// only there. Prefixes are shared, so vendor v of spec i costs only the specs from i on.
Plan star_plan(const std::vector<std::int64_t>& vendor_counts);

// One level: row r is vendors[r] on input inputs[r].
Plan row_plan(std::vector<std::int32_t> vendors, std::vector<std::int32_t> inputs);

// Vendor index per path and spec, (P, S) row-major.
std::vector<std::int32_t> plan_paths(const Plan& plan);

// Throws unless every vendor is below weights[i].count and every parent exists.
void check_plan(const Plan& plan, const std::vector<VendorWeights>& weights);

}  // namespace marketplace
