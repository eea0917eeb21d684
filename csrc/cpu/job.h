// One call's work, cut into tasks: subtrees of the plan's forest on chunks of the batch.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"

namespace marketplace::cpu {

class Sink {
 public:
  // The last spec's results of one path for samples [first, first + count); one sample's results
  // start `stride` floats behind the one before. Samples of a block arrive in order, from one
  // thread.
  virtual void take(std::int64_t path, std::int64_t first, std::int64_t count, const float* values,
                    std::int64_t stride) = 0;

 protected:
  ~Sink() = default;
};

// A plan's tasks. Kept from call to call, so that a repeated one allocates nothing.
struct Schedule {
  // A root, some of its children with all that is below them, and a chunk of the batch.
  struct Task {
    std::int64_t root, chunk;
    std::int64_t first_child, last_child;  // among children[0].rows, the last one not included
    bool leads;                            // of the root's tasks for this chunk, the first
  };
  // Rows of level i + 1 below row r of level i: children[i][begin[i][r] .. begin[i][r + 1]).
  struct Children {
    std::vector<std::int64_t> begin;
    std::vector<std::int32_t> rows;
  };

  Plan plan;
  bool repacks = false;  // panels are made on demand, for every task anew
  // A block of samples is summed by one thread, in order, so sums depend on the blocks alone; a
  // chunk is some blocks for one task.
  std::int64_t blocks = 0, chunks = 1;
  std::vector<Children> children;
  std::vector<std::vector<char>> used;   // rows that lead to a path
  std::vector<std::int64_t> leader_row;  // per level, -1 where no used row is the leader's
  std::vector<Task> tasks;               // the most costly first
};

// Some tasks for every thread. flops: of one sample, per level.
Schedule make_schedule(const Plan& plan, std::int64_t blocks, bool repacks,
                       const std::vector<std::int64_t>& flops, int threads);

struct Job {
  const Plan& plan;
  const std::vector<VendorWeights>& weights;
  const Batch& batch;
  Sink& sink;
  LeaderStatistics* leader = nullptr;
  bool inference = false;
  const Schedule* schedule = nullptr;
  std::int64_t tile = 1;  // samples that run at once

  std::int64_t block_begin(std::int64_t block) const {
    return block * batch.size / schedule->blocks;
  }
  std::int64_t chunk_begin(std::int64_t chunk) const {
    return block_begin(chunk * schedule->blocks / schedule->chunks);
  }
};

}  // namespace marketplace::cpu
