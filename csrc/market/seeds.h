// Every random choice of a run as a pure function of one master seed.
#pragma once

#include <cstdint>
#include <vector>

namespace marketplace {

// The first `count` words of a seed's tensor of that size, from `counter` on: lane 0 of all its
// blocks, then lane 1.
std::vector<std::uint32_t> tensor_words(std::uint64_t seed, std::uint32_t counter,
                                        std::int64_t count);

// Seeds of one spec's vendors at generation t (the number of updates so far), (count,), never zero
// except the leader's: threefry(key, (spec, vendor)) with key = threefry(master, t), and for the
// further replicas r > 0 of that update key = threefry(threefry(master, t) ^ constant, r).
std::vector<std::uint64_t> derive_seeds(std::uint64_t master, std::uint64_t generation, int spec,
                                        std::int64_t count, bool keep_leader,
                                        std::uint64_t replica = 0);

// Makes the seeds of one spec antithetic: vendor 2k takes that of vendor 2k - 1.
void pair_seeds(std::vector<std::uint64_t>& seeds);

// For every vendor, `sample` of `upstream` rows without replacement, (vendors, sample): a partial
// Fisher-Yates shuffle driven by the same stream, in a key space of its own.
std::vector<std::int32_t> sample_upstream(std::uint64_t master, std::uint64_t generation, int spec,
                                          std::int64_t vendors, std::int64_t upstream,
                                          std::int64_t sample, std::uint64_t replica = 0);

// A path for every sample of a batch, (batch, S): per spec, the vendors dealt out evenly over the
// samples (every one of V gets batch / V of them, or one more), then shuffled.
std::vector<std::int32_t> sample_paths(std::uint64_t master, std::uint64_t generation,
                                       std::int64_t batch,
                                       const std::vector<std::int64_t>& vendor_counts,
                                       std::uint64_t replica = 0);

}  // namespace marketplace
