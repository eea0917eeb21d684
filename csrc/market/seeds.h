// Every random choice of a run as a pure function of one master seed.
#pragma once

#include <cstdint>
#include <vector>

namespace marketplace {

// Seeds of one spec's vendors at generation t (the number of redraws so far), (count,), never zero
// except the leader's: threefry(threefry(master, t), (spec, vendor)).
std::vector<std::uint64_t> derive_seeds(std::uint64_t master, std::uint64_t generation, int spec,
                                        std::int64_t count, bool keep_leader);

// For every vendor, `sample` of `upstream` rows without replacement, (vendors, sample): a partial
// Fisher-Yates shuffle driven by the same stream, in a key space of its own.
std::vector<std::int32_t> sample_upstream(std::uint64_t master, std::uint64_t generation, int spec,
                                          std::int64_t vendors, std::int64_t upstream,
                                          std::int64_t sample);

}  // namespace marketplace
