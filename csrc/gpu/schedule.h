// One call's work as a list of chunks: some rows of one level, whose upstream results are those of
// an earlier chunk. Chunks come depth first, so that one buffer per level is enough.
#pragma once

#include <cstdint>
#include <vector>

#include "shares.h"

namespace marketplace::gpu {

// A block of rows that are every one of some neighbouring vendors on every one of some neighbouring
// upstream results: one large product on the way in. Row p * vendors + v of the block, from `row`
// on, is vendor (first_vendor + v) on upstream (first_parent + p).
struct Product {
  std::int32_t first_parent, first_vendor, row;
};

// Products of one shape, launched at once.
struct ProductClass {
  std::int64_t parents, vendors, count;
  std::int64_t at;  // of the first one's entries in Schedule::table
};

struct Chunk {
  int level = 0;
  std::int64_t rows = 0, parents = 0;
  std::int64_t vendor_at = 0, parent_at = 0;  // (rows,) tables in Schedule::table
  std::int64_t path_at = 0;                   // (rows,) table of plan_rows
  std::vector<ProductClass> products;         // on upstream results
  std::vector<ProductClass> apart;            // the same, every row for itself
  std::vector<ProductClass> own;              // on results that rows have of their own
  std::vector<std::int32_t> plan_rows;        // (rows,) of the plan's level; paths at the last one
  std::int64_t leader = -1;                   // the leader's row, where this chunk has it
};

struct Schedule {
  std::vector<Chunk> chunks;
  std::vector<std::int32_t> table;  // everything that kernels look up
};

// capacity: the most rows of a chunk, per level. leaders: as from leader_rows.
Schedule make_schedule(const Plan& plan, const std::vector<std::int64_t>& capacity,
                       const std::vector<std::int64_t>& leaders);

}  // namespace marketplace::gpu
