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

// How finely a call may be cut, whatever the number of threads.
struct Grain {
  // A block of samples is summed by one thread, in order, so sums depend on the blocks alone.
  std::int64_t blocks = 0;
  // Rows of the whole batch that meet a weight, on average over the plan's weights.
  std::int64_t rows = 1;
  bool repacks = false;  // panels are made on demand, for every task anew
  bool operator==(const Grain&) const = default;
};

// A plan's tasks. Kept from call to call, so that a repeated one allocates nothing.
struct Schedule : Grain {
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
  std::int64_t chunks = 1;  // of some blocks each, for one task
  std::vector<Children> children;
  std::vector<std::vector<char>> used;   // rows that lead to a path
  std::vector<std::int64_t> leader_row;  // per level, -1 where no used row is the leader's
  std::vector<Task> tasks;               // the most costly first

  Schedule() = default;
  Schedule(const Plan& all, const Grain& grain) : Grain(grain), plan(all) {}
  bool suits(const Plan& wanted, const Grain& grain) const {
    return static_cast<const Grain&>(*this) == grain && plan == wanted;
  }
};

// Some tasks for every thread. flops: of one sample, per level.
Schedule make_schedule(const Plan& plan, const Grain& grain, const std::vector<std::int64_t>& flops,
                       int threads);

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
