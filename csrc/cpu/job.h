// One call's work, cut into tasks: subtrees of the plan's forest on chunks of the batch.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend.h"

namespace marketplace::cpu {

// Takes the last spec's results of one path for samples [first, first + count); one sample's
// results start `stride` floats behind the one before. Samples of a block arrive in order, from one
// thread.
using Sink = std::function<void(std::int64_t path, std::int64_t first, std::int64_t count,
                                const float* values, std::int64_t stride)>;

struct Job {
  struct Task {
    std::int64_t root, chunk;
  };
  // Rows of level i + 1 below row r of level i: children[i][begin[i][r] .. begin[i][r + 1]).
  struct Children {
    std::vector<std::int64_t> begin;
    std::vector<std::int32_t> rows;
  };

  const Plan* plan = nullptr;
  const std::vector<VendorWeights>* weights = nullptr;
  const Batch* batch = nullptr;
  Sink sink;
  bool inference = false;
  LeaderStatistics* leader = nullptr;
  // A block of samples is summed by one thread, in order, so sums depend on the blocks alone; a
  // chunk is some blocks for one task, a tile is what runs at once.
  std::int64_t blocks = 1, chunks = 1, tile = 1;

  std::vector<Children> children;
  std::vector<std::vector<char>> used;   // rows that lead to a path
  std::vector<std::int64_t> leader_row;  // per level, -1 where no used row is the leader's
  std::vector<Task> tasks;               // the most costly first

  std::int64_t block_begin(std::int64_t block) const { return block * batch->size / blocks; }
  std::int64_t chunk_begin(std::int64_t chunk) const {
    return block_begin(chunk * blocks / chunks);
  }
};

// Fills chunks, children, used, leader_row and tasks, with some tasks for every thread. flops: of
// one sample, per level.
void schedule(Job& job, const std::vector<std::int64_t>& flops, int threads);

}  // namespace marketplace::cpu
