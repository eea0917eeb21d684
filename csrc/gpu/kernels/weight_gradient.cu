#include "gpu/kernels/element.h"
#include "gpu/kernels/weight_gradient.h"

namespace marketplace::gpu {
namespace {

// A block of threads has a tile of k and o, and brings some pixels of both into shared memory at
// once; a thread sums kEachK x kEachO of the tile.
constexpr int kTileK = 64, kTileO = 32, kPixels = 16;
constexpr int kEachK = 4, kEachO = 2;
constexpr int kAcross = kTileK / kEachK;
static_assert(kAcross * (kTileO / kEachO) == kBlockThreads);

struct Place {
  std::int64_t piece, first_k, first_o;
  std::int64_t begin, end;  // rows of the tile: (sample, pixel), flat
  bool fresh;               // the piece begins here
};

__device__ Place find_place(const WeightGradientArgs& args) {
  const std::int64_t k_tiles = (args.depth + 1 + kTileK - 1) / kTileK;
  const std::int64_t o_tiles = (args.columns + kTileO - 1) / kTileO;
  std::int64_t index = blockIdx.x;
  Place place;
  place.first_k = index % k_tiles * kTileK;
  index /= k_tiles;
  place.first_o = index % o_tiles * kTileO;
  place.piece = args.range.first / args.range.piece + index / o_tiles;
  const std::int64_t start = place.piece * args.range.piece - args.range.first;
  const std::int64_t end = start + args.range.piece;
  place.fresh = start >= 0;
  place.begin = (start < 0 ? 0 : start) * args.rows;
  place.end = (end < args.range.count ? end : args.range.count) * args.rows;
  return place;
}

// Element k of the patch under a row; the last is the bias's.
__device__ float input_at(const WeightGradientArgs& args, std::int64_t row, std::int64_t k) {
  if (k >= args.depth) return k == args.depth ? 1.0f : 0.0f;
  const std::int64_t sample = row / args.rows;
  const auto pixel = static_cast<std::int32_t>(row % args.rows);
  const Tap tap = load16(args.taps + k);
  const std::int32_t top = pixel / args.out_width * args.stride[0] - args.padding[0];
  const std::int32_t left = pixel % args.out_width * args.stride[1] - args.padding[1];
  if (static_cast<std::uint32_t>(top + tap.down) >= static_cast<std::uint32_t>(args.height) ||
      static_cast<std::uint32_t>(left + tap.right) >= static_cast<std::uint32_t>(args.width))
    return 0.0f;
  const std::int64_t first = static_cast<std::int64_t>(top) * args.width + left;
  return args.in[sample * args.sample_stride + first * args.channels + tap.offset];
}

__device__ float error_at(const WeightGradientArgs& args, std::int64_t row, std::int64_t o) {
  if (o >= args.columns) return 0.0f;
  const float error = args.errors[row * args.columns + o];
  return args.noise == nullptr ? error
                               : error * (1.0f / (args.probes * args.noise[row / args.rows]));
}

__global__ void weight_gradient_kernel(WeightGradientArgs args) {
  __shared__ float inputs[kPixels][kTileK], errors[kPixels][kTileO];
  const Place place = find_place(args);
  const int thread = static_cast<int>(threadIdx.x);
  const int k0 = thread % kAcross, o0 = thread / kAcross * kEachO;
  const std::int64_t width = args.depth + 1;
  float* partial = args.partial + place.piece * args.partial_stride;
  float sums[kEachO][kEachK];
  const auto for_each = [&](auto visit) {
    for (int j = 0; j < kEachO; ++j)
      for (int i = 0; i < kEachK; ++i) {
        const std::int64_t o = place.first_o + o0 + j, k = place.first_k + k0 + i * kAcross;
        visit(sums[j][i], o < args.columns && k < width ? partial + o * width + k : nullptr);
      }
  };
  for_each([&](float& sum, const float* at) { sum = place.fresh || at == nullptr ? 0.0f : *at; });
  for (std::int64_t row = place.begin; row < place.end; row += kPixels) {
    __syncthreads();  // nobody reads what came before
    for (int e = thread; e < kPixels * kTileK; e += kBlockThreads) {
      const std::int64_t r = row + e / kTileK, k = place.first_k + e % kTileK;
      inputs[e / kTileK][e % kTileK] = r < place.end ? input_at(args, r, k) : 0.0f;
    }
    for (int e = thread; e < kPixels * kTileO; e += kBlockThreads) {
      const std::int64_t r = row + e / kTileO, o = place.first_o + e % kTileO;
      errors[e / kTileO][e % kTileO] = r < place.end ? error_at(args, r, o) : 0.0f;
    }
    __syncthreads();
    for (int p = 0; p < kPixels; ++p)
      for (int j = 0; j < kEachO; ++j)
        for (int i = 0; i < kEachK; ++i)
          sums[j][i] = fmaf(errors[p][o0 + j], inputs[p][k0 + i * kAcross], sums[j][i]);
  }
  for_each([](float sum, float* at) {
    if (at != nullptr) *at = sum;
  });
}

// A thread for a weight; one more of every column for its bias.
__global__ void sum_weight_gradient_kernel(WeightGradientSum args, const float* share) {
  const std::int64_t width = args.depth + 1, index = thread_index();
  if (index >= args.columns * width) return;
  const std::int64_t o = index / width, r = index % width;
  const bool bias = r == args.depth;
  if (bias && args.bias == nullptr) return;
  const std::int64_t k = bias ? r : r % args.order_inner * args.order_outer + r / args.order_inner;
  float sum = 0;
  for (std::int64_t p = 0; p < args.pieces; ++p)
    sum += args.partial[p * args.partial_stride + o * width + k];
  float& out = bias ? args.bias[o] : args.weight[o * args.depth + r];
  out += share[0] * sum;
}

}  // namespace

void weight_gradient_gpu(const WeightGradientArgs& args, const Stream& stream) {
  const TileRange& range = args.range;
  const std::int64_t pieces =
      (range.first + range.count - 1) / range.piece - range.first / range.piece + 1;
  const std::int64_t k_tiles = (args.depth + 1 + kTileK - 1) / kTileK;
  const std::int64_t o_tiles = (args.columns + kTileO - 1) / kTileO;
  launch(weight_gradient_kernel, Grid{pieces * k_tiles * o_tiles}, Block{kBlockThreads}, 0, stream,
         args);
}

void sum_weight_gradient_gpu(const WeightGradientSum& args, const float* share,
                             const Stream& stream) {
  launch(sum_weight_gradient_kernel, blocks_for(args.columns * (args.depth + 1)),
         Block{kBlockThreads}, 0, stream, args, share);
}

}  // namespace marketplace::gpu
