#include <algorithm>

#include "core/threefry.h"
#include "gpu/kernels/element.h"
#include "gpu/kernels/random.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kManyThreads = 1 << 17;  // that fill a large device

// Element i of a tensor of 2 * half numbers (or one less) is lane i / half of block i % half.
__device__ RandomWords block_words(std::uint64_t seed, std::uint32_t counter, std::int64_t half,
                                   std::int64_t block) {
  const std::uint32_t c0 = counter + static_cast<std::uint32_t>(block);
  return threefry2x32(seed, c0, c0 + static_cast<std::uint32_t>(half));
}

// Rounded by themselves, on every device.
__device__ float product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
__device__ float sum(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// Where a matrix' element goes in its panel, where columns are padded and k is in another order.
__device__ std::int64_t panel_place(const Parameter& parameter, std::int64_t index) {
  if (parameter.count > INT32_MAX) {
    const std::int64_t column = index / parameter.depth, r = index % parameter.depth;
    return column * parameter.padded_depth + r % parameter.order_inner * parameter.order_outer +
           r / parameter.order_inner;
  }
  const Division column = parameter.by_depth.divide(static_cast<std::uint32_t>(index));
  const Division r = parameter.by_inner.divide(column.remainder);
  return column.quotient * parameter.padded_depth + r.remainder * parameter.order_outer +
         r.quotient;
}

template <class T>
__device__ void store_weight(const PackArgs& args, const Parameter& parameter, std::int64_t vendor,
                             std::int64_t index, float value) {
  std::byte* to = args.packed + vendor * args.packed_stride + parameter.at;
  if (parameter.panel == 0) {
    reinterpret_cast<float*>(to)[index] = value;
    return;
  }
  reinterpret_cast<T*>(to)[panel_place(parameter, index)] = rounded<T>(value);
}

__device__ float weight(const PackArgs& args, const Parameter& parameter, std::int64_t vendor,
                        std::int64_t index, float delta) {
  const std::int64_t at = parameter.offset + index;
  switch (args.kind) {
    case VendorWeights::Kind::base: return args.base[at];
    case VendorWeights::Kind::seeded: return args.base[at] + delta;
    case VendorWeights::Kind::scaled:
      return sum(args.base[at], product(args.scales[vendor], args.values[at]));
    case VendorWeights::Kind::explicit_: return args.values[vendor * args.value_count + at];
  }
  return 0;
}

// The random block of a thread: neighbours take neighbours of a panel, where its halves hold whole
// columns.
__device__ std::int64_t block_in_panel(const Parameter& parameter, std::int64_t thread) {
  if (parameter.whole_columns == 0) return thread;
  const Division column = parameter.by_depth.divide(static_cast<std::uint32_t>(thread));
  const Division k = parameter.by_outer.divide(column.remainder);
  return column.quotient * parameter.depth + k.remainder * parameter.order_inner + k.quotient;
}

template <class T>
__global__ void pack_kernel(PackArgs args) {
  const auto tiles = static_cast<std::uint32_t>(args.tile_count);  // a factor of the blocks' number
  const std::int64_t vendor = blockIdx.x / tiles;
  const RandomTile tile = args.tiles[blockIdx.x % tiles];
  const Parameter& parameter = args.parameters[tile.parameter];
  const std::int64_t half = block_count(parameter.count);
  const std::int64_t thread = static_cast<std::int64_t>(tile.first) * kRandomThreads + threadIdx.x;
  if (thread >= half) return;
  const std::int64_t block = block_in_panel(parameter, thread);
  float lane0 = 0, lane1 = 0;
  if (args.kind == VendorWeights::Kind::seeded && args.seeds[vendor] != 0) {
    const RandomWords words = block_words(args.seeds[vendor], parameter.counter, half, block);
    lane0 = word_to_delta(words.lane0, args.amplitudes[vendor]);
    lane1 = word_to_delta(words.lane1, args.amplitudes[vendor]);
  }
  store_weight<T>(args, parameter, vendor, block, weight(args, parameter, vendor, block, lane0));
  if (half + block >= parameter.count) return;  // an odd tensor's last block has one number
  store_weight<T>(args, parameter, vendor, half + block,
                  weight(args, parameter, vendor, half + block, lane1));
}

// What a thread has drawn: of either lane, times the vendor's coefficient.
struct Products {
  float lane0, lane1;
};

__device__ Products draw(const CombineArgs& args, const Parameter& parameter, std::int64_t block,
                         std::int64_t vendor) {
  if (vendor >= args.vendors || args.seeds[vendor] == 0) return {0, 0};
  const RandomWords words =
      block_words(args.seeds[vendor], parameter.counter, block_count(parameter.count), block);
  const float coefficient = args.coefficients[vendor], amplitude = args.amplitudes[vendor];
  return {product(coefficient, word_to_delta(words.lane0, amplitude)),
          product(coefficient, word_to_delta(words.lane1, amplitude))};
}

// kLanes threads per random block, each of which draws other vendors' numbers. They are added in
// the vendors' order, by all of these threads. (Nothing, added, changes no bit of a sum.)
template <int kLanes>
__global__ void combine_kernel(CombineArgs args) {
  constexpr int kBlocks = kRandomThreads / kLanes;
  __shared__ Products drawn[kRandomThreads];
  const RandomTile tile = args.tiles[blockIdx.x / kLanes];
  const Parameter& parameter = args.parameters[tile.parameter];
  const std::int64_t half = block_count(parameter.count);
  const int thread = static_cast<int>(threadIdx.x), mine = thread % kLanes;
  const std::int64_t begin = static_cast<std::int64_t>(tile.first) * kRandomThreads +
                             static_cast<int>(blockIdx.x % kLanes) * kBlocks;
  if (begin >= half) return;  // with all threads of the block
  const std::int64_t block = begin + thread / kLanes;
  Products sums = {0, 0};
  for (std::int64_t first = 0; first < args.vendors; first += kLanes) {
    const Products own = draw(args, parameter, block, first + mine);
    if constexpr (kLanes > 1) {
      sync_warp();  // the last round has been read
      drawn[thread] = own;
      sync_warp();
    }
    for (int k = 0; k < kLanes; ++k) {
      const Products& next = kLanes == 1 ? own : drawn[thread - mine + k];
      sums = {sum(sums.lane0, next.lane0), sum(sums.lane1, next.lane1)};
    }
  }
  if (block >= half || mine != 0) return;
  float* out = args.out + parameter.offset;
  out[block] = sums.lane0;
  if (half + block < parameter.count) out[half + block] = sums.lane1;
}

}  // namespace

// Vendors from `first` on alone.
PackArgs vendors_from(PackArgs args, std::int64_t first) {
  args.vendors -= first;
  args.packed += first * args.packed_stride;
  if (args.kind == VendorWeights::Kind::seeded) args.seeds += first, args.amplitudes += first;
  if (args.kind == VendorWeights::Kind::scaled) args.scales += first;
  if (args.kind == VendorWeights::Kind::explicit_) args.values += first * args.value_count;
  return args;
}

void pack_gpu(DType dtype, const PackArgs& args, const Stream& stream, std::int64_t most_threads) {
  // as many vendors at a time as one launch may have
  const std::int64_t blocks = std::min<std::int64_t>(INT32_MAX, most_threads / kRandomThreads);
  const std::int64_t most =
      std::max<std::int64_t>(1, blocks / std::max<std::int64_t>(1, args.tile_count));
  for (std::int64_t first = 0; first < args.vendors; first += most) {
    const PackArgs part = vendors_from(args, first);
    dispatch(dtype, [&](auto element) {
      launch(pack_kernel<decltype(element)>, Grid{args.tile_count * std::min(most, part.vendors)},
             Block{kRandomThreads}, 0, stream, part);
    });
  }
}

void combine_gpu(const CombineArgs& args, const Stream& stream) {
  constexpr int kLanes = 16;
  // A thread alone with hundreds of vendors takes long. Where there are so many that the device is
  // full, sharing them only adds the exchange.
  if (args.tile_count * kRandomThreads < kManyThreads && args.vendors > 1)
    launch(combine_kernel<kLanes>, Grid{args.tile_count * kLanes}, Block{kRandomThreads}, 0, stream,
           args);
  else
    launch(combine_kernel<1>, Grid{args.tile_count}, Block{kRandomThreads}, 0, stream, args);
}

}  // namespace marketplace::gpu
