#include "market/seeds.h"

#include <numeric>
#include <string>

#include "core/error.h"
#include "core/threefry.h"

namespace marketplace {
namespace {

// Separates the streams that share a master seed.
constexpr std::uint64_t kSeedStream = 0;
constexpr std::uint64_t kUpstreamStream = 0x9E3779B97F4A7C15ull;
constexpr std::uint64_t kReplicaStream = 0x94D049BB133111EBull;
constexpr std::uint64_t kPathStream = 0xD1B54A32D192ED03ull;

std::uint64_t mix(std::uint64_t key, std::uint32_t c0, std::uint32_t c1) {
  const RandomWords words = threefry2x32(key, c0, c1);
  return (static_cast<std::uint64_t>(words.lane1) << 32) | words.lane0;
}

std::uint64_t mix(std::uint64_t key, std::uint64_t counter) {
  return mix(key, static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32));
}

// The first replica has the generation's own key, so that one replica is the plain algorithm.
std::uint64_t draw_key(std::uint64_t master, std::uint64_t generation, std::uint64_t replica) {
  const std::uint64_t key = mix(master, generation);
  return replica == 0 ? key : mix(key ^ kReplicaStream, replica);
}

// Uniform in [0, bound) by multiply-shift on 64 random bits; the bias is below bound / 2^64.
std::uint64_t bounded(std::uint64_t random, std::uint64_t bound) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(random) * bound) >> 64);
}

// The i-th step of a Fisher-Yates shuffle: swaps values[i] with one of values[i ..).
template <class T>
void shuffle_step(std::vector<T>& values, std::int64_t i, std::uint64_t random) {
  const auto left = static_cast<std::uint64_t>(values.size()) - static_cast<std::uint64_t>(i);
  std::swap(values[i], values[i + static_cast<std::int64_t>(bounded(random, left))]);
}

}  // namespace

std::vector<std::uint32_t> tensor_words(std::uint64_t seed, std::uint32_t counter,
                                        std::int64_t count) {
  const std::int64_t half = block_count(count);
  std::vector<std::uint32_t> words(2 * half);
  for (std::int64_t j = 0; j < half; ++j) {
    const std::uint32_t c0 = counter + static_cast<std::uint32_t>(j);
    const RandomWords pair = threefry2x32(seed, c0, c0 + static_cast<std::uint32_t>(half));
    words[j] = pair.lane0;
    words[half + j] = pair.lane1;
  }
  return words;
}

std::vector<std::uint64_t> derive_seeds(std::uint64_t master, std::uint64_t generation, int spec,
                                        std::int64_t count, bool keep_leader,
                                        std::uint64_t replica) {
  if (count < 1) fail("seeds", "vendor_count of at least 1", std::to_string(count));
  const std::uint64_t key = draw_key(master ^ kSeedStream, generation, replica);
  std::vector<std::uint64_t> seeds(count);
  for (std::int64_t v = 0; v < count; ++v) {
    const std::uint64_t seed =
        mix(key, static_cast<std::uint32_t>(spec), static_cast<std::uint32_t>(v));
    seeds[v] = seed == 0 ? 1 : seed;
  }
  if (keep_leader) seeds[0] = 0;
  return seeds;
}

void pair_seeds(std::vector<std::uint64_t>& seeds) {
  for (std::size_t v = 2; v < seeds.size(); v += 2) seeds[v] = seeds[v - 1];
}

std::vector<std::int32_t> sample_upstream(std::uint64_t master, std::uint64_t generation, int spec,
                                          std::int64_t vendors, std::int64_t upstream,
                                          std::int64_t sample, std::uint64_t replica) {
  if (sample < 1 || sample > upstream)
    fail("upstream_sampling", "1 to " + std::to_string(upstream) + " (the upstream count)",
         std::to_string(sample));
  const std::uint64_t key = draw_key(master ^ kUpstreamStream, generation, replica);
  std::vector<std::int32_t> chosen, order(upstream);
  for (std::int64_t v = 0; v < vendors; ++v) {
    const std::uint64_t vendor_key =
        mix(key, static_cast<std::uint32_t>(spec), static_cast<std::uint32_t>(v));
    std::iota(order.begin(), order.end(), 0);
    for (std::int64_t i = 0; i < sample; ++i) {
      shuffle_step(order, i, mix(vendor_key, static_cast<std::uint32_t>(i), 0));
      chosen.push_back(order[i]);
    }
  }
  return chosen;
}

std::vector<std::int32_t> sample_paths(std::uint64_t master, std::uint64_t generation,
                                       std::int64_t batch,
                                       const std::vector<std::int64_t>& vendor_counts,
                                       std::uint64_t replica) {
  if (batch < 1) fail("batch", "at least one sample", "an empty batch");
  const std::uint64_t key = draw_key(master ^ kPathStream, generation, replica);
  const auto depth = static_cast<std::int64_t>(vendor_counts.size());
  std::vector<std::int32_t> paths(batch * depth), deal(batch);
  for (std::int64_t i = 0; i < depth; ++i) {
    for (std::int64_t b = 0; b < batch; ++b)
      deal[b] = static_cast<std::int32_t>(b % vendor_counts[i]);
    for (std::int64_t b = 0; b < batch; ++b) {
      shuffle_step(deal, b, mix(key, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(b)));
      paths[b * depth + i] = deal[b];
    }
  }
  return paths;
}

}  // namespace marketplace
