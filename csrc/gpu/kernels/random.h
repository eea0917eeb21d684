// Deltas from seeds: vendors' weights packed for the products, and directions. Same bits as on the
// CPU: every product and every sum is rounded by itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend.h"
#include "gpu/divisor.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

constexpr int kRandomThreads = 256;  // random blocks, two numbers each, of one block of threads

// A parameter among a spec's: where its values and its random numbers are, and where they go.
struct Parameter {
  std::int64_t offset = 0, count = 0, at = 0;
  std::uint32_t counter = 0;
  std::int32_t panel = 0;  // whether it is packed as a matrix of the compute type
  // Whether that is in an order of its own, and the numbers of either lane are whole columns.
  std::int32_t whole_columns = 0;
  std::int64_t depth = 1, padded_depth = 1, order_outer = 1, order_inner = 1;
  Divisor by_depth{}, by_inner{}, by_outer{};  // the same of fewer than 2^31 values
};

// kRandomThreads random blocks of one parameter, from the first-th on.
struct RandomTile {
  std::int32_t parameter, first;
};

struct PackArgs {
  VendorWeights::Kind kind = VendorWeights::Kind::base;
  const float* base = nullptr;           // (n,) W
  const float* values = nullptr;         // (n,) direction, or (V, n) explicit weights
  const std::uint64_t* seeds = nullptr;  // (V,)
  const float* scales = nullptr;         // (V,)
  const float* amplitudes = nullptr;     // (V,)
  std::int64_t value_count = 0;          // n
  const Parameter* parameters = nullptr;
  const RandomTile* tiles = nullptr;
  std::int64_t tile_count = 0, vendors = 0;
  std::byte* packed = nullptr;  // (V, packed_stride) bytes
  std::int64_t packed_stride = 0;
};
// most_threads: of one launch; what is more takes several.
void pack_gpu(DType dtype, const PackArgs& args, const Stream& stream,
              std::int64_t most_threads = kMostThreads);

// out (n,) = sum over v of coefficients[v] * delta_v, in the order of v; seed 0 and coefficient 0
// add nothing.
struct CombineArgs {
  const std::uint64_t* seeds = nullptr;
  const float* coefficients = nullptr;
  const float* amplitudes = nullptr;  // (V,)
  std::int64_t vendors = 0;
  const Parameter* parameters = nullptr;
  const RandomTile* tiles = nullptr;
  std::int64_t tile_count = 0;
  float* out = nullptr;
};
void combine_gpu(const CombineArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
