// Where everything of a node probe lies in a device's memory: what belongs to all samples of a
// call, and what belongs to a tile of them.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/node/stage.h"

namespace marketplace::gpu {

// Byte offsets into one block.
struct NodeArena {
  // As it comes from the host: the noise's scale, labels, a key by stage, the batch.
  std::int64_t scale = 0, labels = 0, keys = 0, samples = 0, upload_bytes = 0;
  std::int64_t input = 0, losses = 0;  // of all samples, at the chain's door and undisturbed
  std::int64_t tile = 0;               // samples
  std::int64_t planar = 0;             // the first stage's input, before it is channels-last
  std::vector<std::int64_t> in, sum;   // by stage, undisturbed
  std::vector<std::int64_t> group;     // by stage: so many probes run at once
  std::int64_t noise = 0, words = 0, group_labels = 0;
  std::int64_t noisy = 0, out = 0, planes = 0;           // of a group
  std::int64_t spread = 0, logits = 0, path_losses = 0;  // (channels, group, tile, ...)
  std::int64_t errors = 0, scratch = 0;
  std::int64_t bytes = 0;
};

// For `count` samples, of which `sample_bytes` come from the host each, in tiles of `tile`. Probes
// run in groups that make about `group_bytes` at most, or one by one.
NodeArena plan_node_arena(const NodeMarket& market, std::int64_t sample_bytes, std::int64_t count,
                          std::int64_t tile, std::int64_t group_bytes);

// The largest tiles that fit `budget` bytes; throws ErrorKind::memory where not even one sample
// does.
NodeArena fit_node_arena(const NodeMarket& market, std::int64_t sample_bytes, std::int64_t count,
                         std::int64_t budget);

// Whether a disturbed channel's answers become losses without being stored.
bool fuses_loss(const Segment& tail);

}  // namespace marketplace::gpu
