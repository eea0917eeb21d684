#include <algorithm>
#include <string>

#include "core/error.h"
#include "gpu/kernels/contract.h"
#include "gpu/node/arena.h"

namespace marketplace::gpu {
namespace {

// Larger tiles would only wander farther from the caches.
constexpr std::int64_t kMostBytes = std::int64_t{4} << 30;

std::int64_t scratch_bytes(const NodeMarket& market, std::int64_t tile) {
  std::int64_t bytes = market.entry ? market.entry->places(tile).bytes : 0;
  for (const NodeStage& stage : market.stages)
    for (const auto& segment : {stage.sum, stage.rest, stage.spread, stage.tail})
      if (segment) bytes = std::max(bytes, segment->places(tile).bytes);
  return bytes;
}

// The most floats (or words) a sample of what one probe at a time needs.
struct ProbeFloats {
  std::int64_t words = 0, sum = 0, out = 0, spread = 0, logits = 0, channels = 0;
};

ProbeFloats probe_floats(const NodeMarket& market) {
  ProbeFloats most;
  for (const NodeStage& stage : market.stages) {
    const StageParts& p = stage.parts;
    most.sum = std::max(most.sum, p.sum_floats);
    if (p.probes == 0) continue;
    most.words = std::max(most.words, p.sign_words());
    most.out = std::max(most.out, p.out_floats);
    most.channels = std::max(most.channels, p.channels);
    most.spread = std::max(most.spread, p.channels * element_count(p.next_sum));
    if (stage.tail && !fuses_loss(*stage.tail))
      most.logits = std::max(most.logits, p.channels * market.classes());
  }
  return most;
}

}  // namespace

bool fuses_loss(const Segment& tail) {
  return tail.program.linear_head && tail.program.output_size <= kMostFusedClasses;
}

NodeArena plan_node_arena(const NodeMarket& market, std::int64_t sample_bytes, std::int64_t count,
                          std::int64_t tile) {
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
  const ProbeFloats probe = probe_floats(market);
  arena.noise = floats(1);
  arena.words = floats(probe.words);
  arena.noisy = floats(probe.sum);
  arena.out = floats(probe.out);
  arena.planes = floats(probe.out);
  arena.spread = floats(probe.spread);
  arena.logits = floats(probe.logits);
  arena.path_losses = floats(probe.channels);
  arena.errors = floats(probe.sum);
  arena.scratch = extent.add(scratch_bytes(market, tile));
  arena.bytes = extent.bytes();
  return arena;
}

NodeArena fit_node_arena(const NodeMarket& market, std::int64_t sample_bytes, std::int64_t count,
                         std::int64_t budget) {
  for (std::int64_t tile = count;; tile = (tile + 1) / 2) {
    const NodeArena arena = plan_node_arena(market, sample_bytes, count, tile);
    if (arena.bytes <= std::min(budget, kMostBytes)) return arena;
    if (tile > 1) continue;
    if (arena.bytes <= budget) return arena;
    fail(ErrorKind::memory, "device memory",
         std::to_string(arena.bytes) + " bytes for plan 'node', one sample at a time",
         std::to_string(budget) + " bytes that may be used");
  }
}

}  // namespace marketplace::gpu
