#include <algorithm>
#include <string>

#include "core/error.h"
#include "gpu/kernels/contract.h"
#include "gpu/node/arena.h"

namespace marketplace::gpu {
namespace {

// Larger tiles would only wander farther from the caches.
constexpr std::int64_t kMostBytes = std::int64_t{4} << 30;
// What a group of probes makes: enough to keep a large GPU busy, few enough for its caches.
constexpr std::int64_t kGroupBytes = std::int64_t{32} << 20;

// The most floats (or words) a sample of what probes need.
struct ProbeFloats {
  std::int64_t sum = 0, out = 0, spread = 0, logits = 0, channels = 0;

  std::int64_t total() const { return sum + 2 * out + spread + logits + channels; }
  void raise(const ProbeFloats& other, std::int64_t times) {
    sum = std::max(sum, other.sum * times);
    out = std::max(out, other.out * times);
    spread = std::max(spread, other.spread * times);
    logits = std::max(logits, other.logits * times);
    channels = std::max(channels, other.channels * times);
  }
};

// Of one probe of a stage.
ProbeFloats probe_floats(const NodeMarket& market, const NodeStage& stage) {
  const StageParts& p = stage.parts;
  ProbeFloats floats{p.sum_floats, p.out_floats, p.channels * element_count(p.next_sum), 0,
                     p.channels};
  if (stage.tail && !fuses_loss(*stage.tail)) floats.logits = p.channels * market.classes();
  return floats;
}

// A divisor of a stage's probes: all groups are alike.
std::int64_t group_of(std::int64_t probes, std::int64_t probe_bytes, std::int64_t group_bytes) {
  std::int64_t group = std::clamp<std::int64_t>(group_bytes / probe_bytes, 1, probes);
  while (probes % group != 0) --group;
  return group;
}

// Of all stages, their probes in groups.
std::int64_t scratch_bytes(const NodeMarket& market, const NodeArena& arena) {
  const std::int64_t tile = arena.tile;
  std::int64_t bytes = market.entry ? market.entry->places(tile).bytes : 0;
  for (std::size_t l = 0; l < market.stages.size(); ++l) {
    const NodeStage& stage = market.stages[l];
    bytes = std::max(bytes, stage.sum->places(tile).bytes);
    if (stage.rest) bytes = std::max(bytes, stage.rest->places(tile, arena.group[l]).bytes);
    for (const auto& segment : {stage.spread, stage.tail})
      if (segment) bytes = std::max(bytes, segment->places(arena.group[l] * tile).bytes);
  }
  return bytes;
}

}  // namespace

bool fuses_loss(const Segment& tail) {
  return tail.program.linear_head && tail.program.output_size <= kMostFusedClasses;
}

NodeArena plan_node_arena(const NodeMarket& market, std::int64_t sample_bytes, std::int64_t count,
                          std::int64_t tile, std::int64_t group_bytes) {
  NodeArena arena;
  Extent extent;
  arena.scale = extent.add(4);
  arena.labels = extent.add(count * 4);
  arena.keys = extent.add(static_cast<std::int64_t>(market.stages.size()) * 8);
  arena.samples = extent.add(count * sample_bytes);
  arena.upload_bytes = extent.bytes();
  arena.input = extent.add(count * element_count(market.chain_shape) * 4);
  arena.losses = extent.add(count * 4);
  arena.tile = tile;
  const auto floats = [&](std::int64_t each) { return extent.add(tile * each * 4); };
  arena.planar = floats(market.stages.front().parts.in_floats);
  for (const NodeStage& stage : market.stages) {
    arena.in.push_back(floats(stage.parts.in_floats));
    arena.sum.push_back(floats(stage.parts.sum_floats));
  }
  ProbeFloats probe;
  std::int64_t words = 0, errors = 0, most = 1;
  for (const NodeStage& stage : market.stages) {
    const std::int64_t probes = stage.parts.probes;
    errors = std::max(errors, stage.parts.sum_floats);
    arena.group.push_back(1);
    if (probes == 0) continue;
    words = std::max(words, stage.parts.sign_words());
    const ProbeFloats own = probe_floats(market, stage);
    arena.group.back() = group_of(probes, own.total() * tile * 4, group_bytes);
    most = std::max(most, arena.group.back());
    probe.raise(own, arena.group.back());
  }
  arena.noise = floats(1);
  arena.words = floats(words);
  arena.group_labels = floats(most);
  arena.noisy = floats(probe.sum);
  arena.out = floats(probe.out);
  arena.planes = floats(probe.out);
  arena.spread = floats(probe.spread);
  arena.logits = floats(probe.logits);
  arena.path_losses = floats(probe.channels);
  arena.errors = floats(errors);
  arena.scratch = extent.add(scratch_bytes(market, arena));
  arena.bytes = extent.bytes();
  return arena;
}

NodeArena fit_node_arena(const NodeMarket& market, std::int64_t sample_bytes, std::int64_t count,
                         std::int64_t budget) {
  for (std::int64_t tile = count;; tile = (tile + 1) / 2) {
    NodeArena arena =
        plan_node_arena(market, sample_bytes, count, tile, std::min(kGroupBytes, budget / 4));
    if (arena.bytes <= std::min(budget, kMostBytes)) return arena;
    if (tile > 1) continue;
    arena = plan_node_arena(market, sample_bytes, count, tile, 0);
    if (arena.bytes <= budget) return arena;
    fail(ErrorKind::memory, "device memory",
         std::to_string(arena.bytes) + " bytes for plan 'node', one sample at a time",
         std::to_string(budget) + " bytes that may be used");
  }
}

}  // namespace marketplace::gpu
