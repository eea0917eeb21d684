#include <algorithm>
#include <bit>

#include "gpu/kernels/norm_parts.h"
#include "gpu/kernels/rows.h"

namespace marketplace::gpu {
namespace {

constexpr int kMostVectors = 32;              // of a team, along channels
constexpr std::int64_t kMostUnits = 1 << 30;  // see Divisor
constexpr int kPixelsOfThread = 16;  // at least, as long as that leaves a team more than one thread

// How a block is shared out. A team of `vectors` x `members` threads, powers of two, has an image's
// channels, or a tile of them, N to a thread; its members take turns along the pixels.
struct Teams {
  int vectors_log2 = 0, members_log2 = 0;
  std::int64_t units = 0;  // images times tiles
  Divisor tiles, samples;
};

Teams make_teams(const NormArgs& args, int per_thread) {
  const auto log2 = [](std::int64_t number) {
    return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(number))) - 1;
  };
  Teams teams;
  const std::int64_t vectors = args.channels / per_thread;
  teams.vectors_log2 = log2(2 * std::min<std::int64_t>(vectors, kMostVectors) - 1);
  teams.members_log2 = std::min(log2(std::max<std::int64_t>(args.pixels / kPixelsOfThread, 1)),
                                log2(kBlockThreads) - teams.vectors_log2);
  const std::int64_t tiles = (vectors + kMostVectors - 1) / kMostVectors;
  teams.units = args.rows * args.samples * tiles;
  teams.tiles = Divisor(tiles);
  teams.samples = Divisor(args.samples);
  if (teams.units > kMostUnits)
    fail("instance norm", "at most 2^30 images of 32 vectors of channels",
         std::to_string(teams.units));
  return teams;
}

// A thread's place, and sums over its team.
template <int N>
class Member {
 public:
  __device__ Member(const NormArgs& args, const Teams& teams)
      : vectors_(1 << teams.vectors_log2), threads_(vectors_ << teams.members_log2) {
    const int thread = static_cast<int>(threadIdx.x);
    vector_ = thread & (vectors_ - 1);
    first = (thread & (threads_ - 1)) >> teams.vectors_log2;
    const auto unit =
        static_cast<std::uint32_t>(thread_index() >> (teams.vectors_log2 + teams.members_log2));
    const Division place = teams.tiles.divide(unit);
    const Division at = teams.samples.divide(place.quotient);
    image = place.quotient;
    row = at.quotient;
    sample = at.remainder;
    channel = (place.remainder * kMostVectors + vector_) * N;
    valid = unit < teams.units && channel < args.channels;
    step = 1 << teams.members_log2;
  }

  // For all members, in the same order for all; every thread of the block calls.
  __device__ void sum(float (&sums)[N], float (&shared)[kBlockThreads * N]) const {
    const int in_warp = threads_ < kWarpSize ? threads_ : kWarpSize;
    for (int stride = vectors_; stride < in_warp; stride *= 2)
      for (float& sum : sums) sum += shuffle_xor(sum, stride);
    if (threads_ > kWarpSize) sum_warps(sums, shared);
  }

  std::uint32_t image, row, sample, channel;
  int first, step;  // of pixels
  bool valid;

 private:
  __device__ void sum_warps(float (&sums)[N], float (&shared)[kBlockThreads * N]) const {
    const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize;
    const int warps = threads_ / kWarpSize, first_warp = warp / warps * warps;
    __syncthreads();  // nobody reads the sums before
    if (thread % kWarpSize < vectors_)
      for (int i = 0; i < N; ++i) shared[(warp * vectors_ + vector_) * N + i] = sums[i];
    __syncthreads();
    for (float& sum : sums) sum = 0;
    for (int w = 0; w < warps; ++w)
      for (int i = 0; i < N; ++i)
        sums[i] += shared[((first_warp + w) * vectors_ + vector_) * N + i];
  }

  int vectors_, threads_, vector_;
};

// scale and shift of every channel of a thread.
template <int N>
__device__ void find_affines(const NormArgs& args, const Member<N>& me, const float (&mean)[N],
                             const float (&squares)[N], Affine (&affines)[N]) {
  float weight[N], bias[N];
  for (int i = 0; i < N; ++i) weight[i] = 1, bias[i] = 0;
  if (args.weight_at >= 0)
    load_floats(parameters(args, me.row, args.weight_at) + me.channel, weight);
  if (args.bias_at >= 0) load_floats(parameters(args, me.row, args.bias_at) + me.channel, bias);
  const auto count = static_cast<float>(args.pixels);
  for (int i = 0; i < N; ++i)
    affines[i] = {mean[i], weight[i] * rsqrtf(squares[i] / count + args.eps), bias[i],
                  args.relu ? 0.0f : -__builtin_inff()};
}

template <class T, int N>
__device__ void apply_at(const Affine (&affines)[N], const T* x, float (&values)[N]) {
  load_floats(x, values);
  for (int i = 0; i < N; ++i) values[i] = apply(affines[i], values[i]);
}

// x and y may be the same.
template <class T, int N>
__device__ void normalise(const NormArgs& args, const Affine (&affines)[N], const Member<N>& me,
                          const T* x, T* y) {
  constexpr int kAhead = 2;  // loads under way at once: a store could change what comes behind it
  std::int64_t p = me.first;
  for (; p + (kAhead - 1) * me.step < args.pixels; p += kAhead * me.step) {
    float values[kAhead][N];
    for (int k = 0; k < kAhead; ++k)
      apply_at(affines, x + (p + k * me.step) * args.channels, values[k]);
    for (int k = 0; k < kAhead; ++k) store_floats(values[k], y + (p + k * me.step) * args.channels);
  }
  for (; p < args.pixels; p += me.step) {
    float values[N];
    apply_at(affines, x + p * args.channels, values);
    store_floats(values, y + p * args.channels);
  }
}

template <int N>
__device__ void keep_larger(const float (&values)[N], float (&best)[N]) {
  for (int i = 0; i < N; ++i)
    best[i] = values[i] > best[i] || values[i] != values[i] ? values[i] : best[i];
}

// The maximum of a window of normalised pixels.
template <class T, int N>
__device__ void window_maximum(const NormArgs& args, const Affine (&affines)[N], const T* corner,
                               float (&best)[N]) {
  const auto pixel = [&](std::int64_t h, std::int64_t w) {
    return corner + (h * args.width + w) * args.channels;
  };
  for (float& value : best) value = -__builtin_inff();
  if (args.window[0] == 2 && args.window[1] == 2) {  // the usual one: four loads at once
    float values[4][N];
    for (int k = 0; k < 4; ++k) apply_at(affines, pixel(k / 2, k % 2), values[k]);
    for (int k = 0; k < 4; ++k) keep_larger(values[k], best);
    return;
  }
  for (std::int32_t h = 0; h < args.window[0]; ++h)
    for (std::int32_t w = 0; w < args.window[1]; ++w) {
      float values[N];
      apply_at(affines, pixel(h, w), values);
      keep_larger(values, best);
    }
}

template <class T, int N>
__device__ void normalise_pooled(const NormArgs& args, const Affine (&affines)[N],
                                 const Member<N>& me, const T* x, T* y, const Divisor& by_width) {
  for (std::int32_t p = me.first; p < args.out_pixels; p += me.step) {
    const Division place = by_width.divide(static_cast<std::uint32_t>(p));
    const std::int64_t top = static_cast<std::int64_t>(place.quotient) * args.window[0];
    const std::int64_t left = static_cast<std::int64_t>(place.remainder) * args.window[1];
    float best[N];
    window_maximum(args, affines, x + (top * args.width + left) * args.channels, best);
    store_floats(best, y + static_cast<std::int64_t>(p) * args.channels);
  }
}

template <class T, int N>
__global__ void instance_norm_kernel(NormArgs args, Teams teams, Divisor by_width) {
  __shared__ float shared[kBlockThreads * N];
  const Member<N> me(args, teams);
  const T* x = static_cast<const T*>(args.in);
  if (me.valid)
    x = row_input<T>(args, me.row) + me.sample * args.pixels * args.channels + me.channel;
  const std::int64_t end = me.valid ? args.pixels : 0;
  const auto count = static_cast<float>(args.pixels);
  float mean[N] = {}, squares[N] = {};
  MP_UNROLL
  for (std::int64_t p = me.first; p < end; p += me.step) {
    float values[N];
    load_floats(x + p * args.channels, values);
    for (int i = 0; i < N; ++i) mean[i] += values[i];
  }
  me.sum(mean, shared);
  for (float& each : mean) each /= count;
  MP_UNROLL
  for (std::int64_t p = me.first; p < end; p += me.step) {
    float values[N];
    load_floats(x + p * args.channels, values);
    for (int i = 0; i < N; ++i)
      squares[i] = fmaf(values[i] - mean[i], values[i] - mean[i], squares[i]);
  }
  me.sum(squares, shared);
  if (!me.valid) return;
  Affine affines[N];
  find_affines(args, me, mean, squares, affines);
  const std::int64_t out_pixels = args.pooled ? args.out_pixels : args.pixels;
  T* y = static_cast<T*>(args.out) + me.image * out_pixels * args.channels + me.channel;
  if (args.pooled)
    normalise_pooled(args, affines, me, x, y, by_width);
  else
    normalise(args, affines, me, x, y);
}

}  // namespace

void instance_norm_gpu(DType dtype, const NormArgs& args, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    with_vectors<T>(args.channels, {}, [&](auto n) {
      const Teams teams = make_teams(args, n);
      const std::int64_t threads = teams.units << (teams.vectors_log2 + teams.members_log2);
      launch(instance_norm_kernel<T, n>, blocks_for(threads), Block{kBlockThreads}, 0, stream, args,
             teams, Divisor(args.out_width));
    });
  });
}

}  // namespace marketplace::gpu
