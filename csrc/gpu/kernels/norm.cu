#include "gpu/kernels/norm_parts.h"

namespace marketplace::gpu {
namespace {

constexpr int kLanes = 32;                       // channels of a block
constexpr int kGroups = kBlockThreads / kLanes;  // that share its rows
constexpr int kLineThreads = 128;                // of a layer norm's block
constexpr std::int64_t kAppliedRows = 128;       // that a block of a batch norm's end normalises

__device__ float parameter(const NormArgs& args, std::int64_t row, std::int64_t at,
                           std::int64_t channel, float otherwise) {
  return at < 0 ? otherwise : parameters(args, row, at)[channel];
}

__device__ Affine make_affine(const NormArgs& args, std::int64_t row, std::int64_t channel,
                              float mean, float variance) {
  return {mean, parameter(args, row, args.weight_at, channel, 1.0f) / sqrtf(variance + args.eps),
          parameter(args, row, args.bias_at, channel, 0.0f), args.relu ? 0.0f : -__builtin_inff()};
}

// A thread's channel of a block's, and which of the rows it takes.
struct Lane {
  int channel = static_cast<int>(threadIdx.x) % kLanes;
  int group = static_cast<int>(threadIdx.x) / kLanes;
};

// A block's number, its channels the fastest: factors of the number of blocks, which fits 32 bits.
struct BlockPlace {
  std::uint32_t outer;
  std::int64_t channel;
};
__device__ BlockPlace block_place(const NormArgs& args, Lane lane) {
  const auto tiles = static_cast<std::uint32_t>((args.channels + kLanes - 1) / kLanes);
  const std::uint32_t outer = blockIdx.x / tiles;
  return {outer, static_cast<std::int64_t>(blockIdx.x - outer * tiles) * kLanes + lane.channel};
}

// Sum over the block's groups for one channel, in their order, for the first group; all threads
// call, and meet before the next sum.
__device__ double sum_groups(double (&sums)[kGroups][kLanes], Lane lane, double mine) {
  sums[lane.group][lane.channel] = mine;
  __syncthreads();
  double total = 0;
  for (int g = 0; g < kGroups && lane.group == 0; ++g) total += sums[g][lane.channel];
  return total;
}

// This thread's share of the sum over pixels of x - shift, or of its square.
template <class T>
__device__ float sum_pixels(const T* x, std::int64_t begin, std::int64_t end, std::int64_t stride,
                            float shift, bool square) {
  float sum = 0;
  MP_UNROLL
  for (std::int64_t p = begin; p < end; p += kGroups) {
    const float d = to_float(x[p * stride]) - shift;
    sum += square ? d * d : d;
  }
  return sum;
}

// Pixels [begin, end) of a channel that lie `channels` apart; x and y may be the same.
template <class T>
__device__ void normalise(const Affine& affine, const T* x, T* y, std::int64_t begin,
                          std::int64_t end, std::int64_t channels) {
  constexpr int kAhead = 4;  // under way at once: a store could change what is loaded behind it
  std::int64_t p = begin;
  for (; p + (kAhead - 1) * kGroups < end; p += kAhead * kGroups) {
    float values[kAhead];
    for (int i = 0; i < kAhead; ++i) values[i] = to_float(x[(p + i * kGroups) * channels]);
    for (int i = 0; i < kAhead; ++i)
      y[(p + i * kGroups) * channels] = rounded<T>(apply(affine, values[i]));
  }
  for (; p < end; p += kGroups)
    y[p * channels] = rounded<T>(apply(affine, to_float(x[p * channels])));
}

// Sums of kStatisticRows pixels of one row of the plan, by channel.
template <class T>
__global__ void partial_sums_kernel(NormArgs args, std::int64_t splits, bool square) {
  __shared__ double sums[kGroups][kLanes];
  const Lane lane;
  const auto [piece, channel] = block_place(args, lane);
  const std::int64_t row = piece / static_cast<std::uint32_t>(splits), split = piece - row * splits;
  const bool valid = channel < args.channels;
  const std::int64_t total = args.samples * args.pixels, begin = split * kStatisticRows;
  const std::int64_t end = begin + kStatisticRows < total ? begin + kStatisticRows : total;
  const float shift = square && valid ? args.statistics[row * 2 * args.channels + channel] : 0.0f;
  const float sum = sum_pixels(row_input<T>(args, row) + channel, begin + lane.group,
                               valid ? end : 0, args.channels, shift, square);
  const double whole = sum_groups(sums, lane, sum);
  if (valid && lane.group == 0)
    args.partial[(row * splits + split) * args.channels + channel] = whole;
}

__global__ void finish_sums_kernel(NormArgs args, std::int64_t splits, bool square) {
  const std::int64_t index = thread_index();
  if (index >= args.rows * args.channels) return;
  const std::int64_t row = index / args.channels, channel = index % args.channels;
  double sum = 0;
  for (std::int64_t s = 0; s < splits; ++s)
    sum += args.partial[(row * splits + s) * args.channels + channel];
  args.statistics[(row * 2 + (square ? 1 : 0)) * args.channels + channel] =
      static_cast<float>(sum / static_cast<double>(args.samples * args.pixels));
}

// kAppliedRows pixels of one row of the plan, by channel.
template <class T>
__global__ void apply_norm_kernel(NormArgs args, std::int64_t splits) {
  const Lane lane;
  const auto [piece, channel] = block_place(args, lane);
  if (channel >= args.channels) return;
  const std::int64_t row = piece / static_cast<std::uint32_t>(splits), split = piece - row * splits;
  const float* statistics = args.fixed ? args.fixed : args.statistics + row * 2 * args.channels;
  const Affine affine =
      make_affine(args, row, channel, statistics[channel], statistics[args.channels + channel]);
  const std::int64_t total = args.samples * args.pixels, begin = split * kAppliedRows;
  const std::int64_t end = begin + kAppliedRows < total ? begin + kAppliedRows : total;
  const T* x = row_input<T>(args, row) + channel;
  T* y = static_cast<T*>(args.out) + row * total * args.channels + channel;
  normalise(affine, x, y, begin + lane.group, end, args.channels);
}

// Sum over the block, in the order of its threads; all of them call.
__device__ double sum_line(double (&sums)[kLineThreads], double mine) {
  sums[threadIdx.x] = mine;
  __syncthreads();
  for (int half = kLineThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  const double total = sums[0];
  __syncthreads();  // before the next sum
  return total;
}

// One block per line of `channels` elements.
template <class T>
__global__ void layer_norm_kernel(NormArgs args) {
  __shared__ double sums[kLineThreads];
  const std::int64_t line = blockIdx.x, lines = args.samples * args.pixels;
  const std::int64_t row = blockIdx.x / static_cast<std::uint32_t>(lines);
  const T* x = row_input<T>(args, row) + (line - row * lines) * args.channels;
  T* y = static_cast<T*>(args.out) + line * args.channels;
  const auto count = static_cast<double>(args.channels);
  float sum = 0;  // mean
  for (std::int64_t i = threadIdx.x; i < args.channels; i += kLineThreads) sum += to_float(x[i]);
  const auto mean = static_cast<float>(sum_line(sums, sum) / count);
  float squares = 0;  // variance
  for (std::int64_t i = threadIdx.x; i < args.channels; i += kLineThreads) {
    const float d = to_float(x[i]) - mean;
    squares += d * d;
  }
  const auto variance = static_cast<float>(sum_line(sums, squares) / count);
  const float scale = 1.0f / sqrtf(variance + args.eps);
  for (std::int64_t i = threadIdx.x; i < args.channels; i += kLineThreads) {  // normalise
    const float weight = parameter(args, row, args.weight_at, i, 1.0f);
    const float bias = parameter(args, row, args.bias_at, i, 0.0f);
    const float value = (to_float(x[i]) - mean) * scale * weight + bias;
    y[i] = rounded<T>(args.relu && value < 0 ? 0.0f : value);
  }
}

template <class T>
void batch_statistics(const NormArgs& args, const Stream& stream) {
  const std::int64_t tiles = (args.channels + kLanes - 1) / kLanes;
  const std::int64_t splits = batch_norm_splits(args.samples, args.pixels);
  for (const bool square : {false, true}) {
    launch(partial_sums_kernel<T>, Grid{args.rows * splits * tiles}, Block{kBlockThreads}, 0,
           stream, args, splits, square);
    launch(finish_sums_kernel, blocks_for(args.rows * args.channels), Block{kBlockThreads}, 0,
           stream, args, splits, square);
  }
}

}  // namespace

void batch_norm_gpu(DType dtype, const NormArgs& args, const Stream& stream) {
  const std::int64_t tiles = (args.channels + kLanes - 1) / kLanes;
  const std::int64_t splits = (args.samples * args.pixels + kAppliedRows - 1) / kAppliedRows;
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    if (args.fixed == nullptr) batch_statistics<T>(args, stream);
    launch(apply_norm_kernel<T>, Grid{args.rows * splits * tiles}, Block{kBlockThreads}, 0, stream,
           args, splits);
  });
}

void layer_norm_gpu(DType dtype, const NormArgs& args, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    launch(layer_norm_kernel<decltype(element)>, Grid{args.rows * args.samples * args.pixels},
           Block{kLineThreads}, 0, stream, args);
  });
}

}  // namespace marketplace::gpu
