// Where everything of one call lies in a device's memory, and how its work is cut so that it fits.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/program.h"

namespace marketplace::gpu {

// Hands out 256-byte aligned places one behind the other.
class Extent {
 public:
  std::int64_t add(std::int64_t bytes);
  std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t bytes_ = 0;
};

// What a call asks for.
struct Demand {
  std::int64_t batch = 0, inputs = 1;
  std::vector<std::int64_t> rows, vendors;  // per level
  bool losses = false;                      // else the results of every path
  bool inference = false;
  std::int64_t upload_bytes = 0, result_bytes = 0;

  std::int64_t paths() const { return rows.back(); }
};

// The most samples and, per level, rows that run at once.
struct Cut {
  std::int64_t samples = 1;
  std::vector<std::int64_t> rows;
};

// Byte offsets into one block.
struct ArenaPlan {
  std::int64_t upload = 0, results = 0, input = 0, scratch = 0, statistics = 0, partial_sums = 0;
  std::int64_t sample_losses = 0, partial_losses = 0;
  std::vector<std::int64_t> packed, output;  // per level
  std::vector<Places> places;                // per level
  std::int64_t bytes = 0;
};

// Whether the last spec ends in losses without storing its logits.
bool fuses_loss(const Program& last, const Demand& demand);

ArenaPlan plan_arena(const std::vector<Program>& programs, const Demand& demand, const Cut& cut,
                     DType dtype);

// The largest pieces that fit `budget` bytes; throws ErrorKind::memory where even the smallest do
// not.
Cut choose_cut(const std::vector<Program>& programs, const Demand& demand, DType dtype,
               std::int64_t budget);

}  // namespace marketplace::gpu
