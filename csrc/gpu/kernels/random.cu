#include "core/threefry.h"
#include "gpu/kernels/element.h"
#include "gpu/kernels/random.h"

namespace marketplace::gpu {
namespace {

// Element i of a tensor of 2 * half numbers (or one less) is lane i / half of block i % half.
__device__ RandomWords block_words(std::uint64_t seed, std::uint32_t counter, std::int64_t half,
                                   std::int64_t block) {
  const std::uint32_t c0 = counter + static_cast<std::uint32_t>(block);
  return threefry2x32(seed, c0, c0 + static_cast<std::uint32_t>(half));
}

// a + b * c in two roundings, on every device.
__device__ float add_product(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, __fmul_rn(b, c));
#else
  return a + b * c;
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
      return add_product(args.base[at], args.scales[vendor], args.values[at]);
    case VendorWeights::Kind::explicit_: return args.values[vendor * args.value_count + at];
  }
  return 0;
}

template <class T>
__global__ void pack_kernel(PackArgs args) {
  const auto tiles = static_cast<std::uint32_t>(args.tile_count);  // a factor of the blocks' number
  const std::int64_t vendor = blockIdx.x / tiles;
  const RandomTile tile = args.tiles[blockIdx.x % tiles];
  const Parameter& parameter = args.parameters[tile.parameter];
  const std::int64_t half = block_count(parameter.count);
  const std::int64_t block = static_cast<std::int64_t>(tile.first) * kRandomThreads + threadIdx.x;
  if (block >= half) return;
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

__global__ void combine_kernel(CombineArgs args) {
  const RandomTile tile = args.tiles[blockIdx.x];
  const Parameter& parameter = args.parameters[tile.parameter];
  const std::int64_t half = block_count(parameter.count);
  const std::int64_t block = static_cast<std::int64_t>(tile.first) * kRandomThreads + threadIdx.x;
  if (block >= half) return;
  float lane0 = 0, lane1 = 0;
  for (std::int64_t v = 0; v < args.vendors; ++v) {
    const float coefficient = args.coefficients[v], amplitude = args.amplitudes[v];
    if (args.seeds[v] == 0 || coefficient == 0) continue;
    const RandomWords words = block_words(args.seeds[v], parameter.counter, half, block);
    lane0 = add_product(lane0, coefficient, word_to_delta(words.lane0, amplitude));
    lane1 = add_product(lane1, coefficient, word_to_delta(words.lane1, amplitude));
  }
  float* out = args.out + parameter.offset;
  out[block] = lane0;
  if (half + block < parameter.count) out[half + block] = lane1;
}

}  // namespace

void pack_gpu(DType dtype, const PackArgs& args, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    launch(pack_kernel<decltype(element)>, Grid{args.tile_count * args.vendors},
           Block{kRandomThreads}, 0, stream, args);
  });
}

void combine_gpu(const CombineArgs& args, const Stream& stream) {
  launch(combine_kernel, Grid{args.tile_count}, Block{kRandomThreads}, 0, stream, args);
}

}  // namespace marketplace::gpu
