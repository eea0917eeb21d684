#include "gpu/divisor.h"
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

// What threads share of a row: its window's first pixel, and what its errors are multiplied by.
struct Row {
  std::int64_t sample, first;  // sample: where its image begins
  std::int32_t top, left;
  float scale;
};

constexpr std::int32_t kOutside = -(1 << 30);  // of every image

struct RowDivisors {
  Divisor rows, width;  // by the rows of a sample, by those of a line
};

__device__ Row find_row(const WeightGradientArgs& args, const RowDivisors& by, std::int64_t row,
                        std::int64_t end) {
  if (row >= end) return {0, 0, kOutside, 0, 0.0f};
  const Division at = by.rows.divide(static_cast<std::uint32_t>(row));
  const Division pixel = by.width.divide(at.remainder);
  const auto top = static_cast<std::int32_t>(pixel.quotient) * args.stride[0] - args.padding[0];
  const auto left = static_cast<std::int32_t>(pixel.remainder) * args.stride[1] - args.padding[1];
  const float scale = args.noise == nullptr ? 1.0f : 1.0f / (args.probes * args.noise[at.quotient]);
  return {at.quotient * args.sample_stride,
          (static_cast<std::int64_t>(top) * args.width + left) * args.channels, top, left, scale};
}

// An element of the patches under rows: the same for all that a thread brings.
class Column {
 public:
  __device__ Column(const WeightGradientArgs& args, std::int64_t k)
      : inside_(k < args.depth), bias_(k == args.depth) {
    if (inside_) tap_ = load16(args.taps + k);
  }
  __device__ float of(const WeightGradientArgs& args, const Row& row) const {
    const bool valid =
        static_cast<std::uint32_t>(row.top + tap_.down) < static_cast<std::uint32_t>(args.height) &&
        static_cast<std::uint32_t>(row.left + tap_.right) < static_cast<std::uint32_t>(args.width);
    if (bias_) return row.top == kOutside ? 0.0f : 1.0f;
    return inside_ && valid ? args.in[row.sample + row.first + tap_.offset] : 0.0f;
  }

 private:
  Tap tap_ = {};
  bool inside_, bias_;
};

__global__ void weight_gradient_kernel(WeightGradientArgs args, RowDivisors by) {
  __shared__ float inputs[kPixels][kTileK], errors[kPixels][kTileO];
  __shared__ Row rows[2][kPixels];  // of these pixels and of the next
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
  const auto find_rows = [&](std::int64_t row, Row(&found)[kPixels]) {
    if (thread < kPixels) found[thread] = find_row(args, by, row + thread, place.end);
  };
  const Column column(args, place.first_k + thread % kTileK);
  const std::int64_t o = place.first_o + thread % kTileO;
  find_rows(place.begin, rows[0]);
  int now = 0;
  for (std::int64_t row = place.begin; row < place.end; row += kPixels, now ^= 1) {
    __syncthreads();  // rows are found, and nobody reads what came before
    for (int p = thread / kTileK; p < kPixels; p += kBlockThreads / kTileK)
      inputs[p][thread % kTileK] = column.of(args, rows[now][p]);
    for (int p = thread / kTileO; p < kPixels; p += kBlockThreads / kTileO)
      errors[p][thread % kTileO] =
          o < args.columns && row + p < place.end
              ? args.errors[(row + p) * args.columns + o] * rows[now][p].scale
              : 0.0f;
    find_rows(row + kPixels, rows[now ^ 1]);
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
         args, RowDivisors{Divisor(args.rows), Divisor(args.out_width)});
}

void sum_weight_gradient_gpu(const WeightGradientSum& args, const float* share,
                             const Stream& stream) {
  launch(sum_weight_gradient_kernel, blocks_for(args.columns * (args.depth + 1)),
         Block{kBlockThreads}, 0, stream, args, share);
}

}  // namespace marketplace::gpu
