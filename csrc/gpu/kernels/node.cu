#include "core/threefry.h"
#include "gpu/kernels/node.h"
#include "gpu/kernels/rows.h"
#include "graph/stage_parts.h"

namespace marketplace::gpu {
namespace {

constexpr int kWordBits = 32;
constexpr double kSilence = 1e-30;  // a root mean square below it says nothing of a layer's size

// By the blocks of a sample, by the channels of a pixel, by the samples of a probe.
struct LayerDivisors {
  Divisor blocks, channels, samples;
};

__device__ std::int64_t words_per_pixel(std::int64_t channels) {
  return (channels + kWordBits - 1) / kWordBits;
}

// One of `count` words of a sample: all first words of its blocks, then all second.
__device__ std::uint32_t word_at(std::uint64_t key, std::uint32_t sample, std::int64_t count,
                                 std::int64_t index) {
  const std::int64_t half = (count + 1) / 2;
  const RandomWords words = threefry2x32(key, static_cast<std::uint32_t>(index % half), sample);
  return index < half ? words.lane0 : words.lane1;
}

// What a thread has of (probes, samples, pixels, channels): N neighbouring channels of a pixel.
struct Channels {
  std::int64_t sample, index;  // index: of the first, in the sample
  std::uint32_t probe, pixel, first;
};

// False behind the end of a sample.
template <int N>
__device__ bool find_channels(const LayerShape& shape, const LayerDivisors& by, Channels& found) {
  const Part part = part_of<N>(by.blocks);
  if (part.first >= shape.pixels * shape.channels) return false;
  const Division at = by.channels.divide(static_cast<std::uint32_t>(part.first));
  const Division row = by.samples.divide(part.row);
  found = {row.remainder, part.first, row.quotient, at.quotient, at.remainder};
  return true;
}

// The random signs of those channels, lowest bit first; a set bit is a minus.
__device__ std::uint32_t random_signs(const ProbeSigns& signs, const LayerShape& shape,
                                      const Channels& at) {
  const std::int64_t row = at.sample * shape.pixels + at.pixel;
  return signs.words[row * words_per_pixel(shape.channels) + at.first / kWordBits] >>
         (at.first % kWordBits);
}

// Those of probe `signs.probe + probe`.
__device__ std::uint32_t signs_of(std::uint32_t random, ProbeSigns signs, std::uint32_t probe,
                                  const Channels& at) {
  signs.probe += probe;
  return random ^ (0u - walsh_of_pixel(signs, at.pixel));
}

__device__ float with_sign(std::uint32_t signs, int i, float value) {
  return (signs >> i & 1u) != 0 ? -value : value;
}

__global__ void noise_kernel(const float* sums, std::int64_t each, const float* scale,
                             float* noise) {
  __shared__ double squares[kBlockThreads];
  const float* mine = sums + static_cast<std::int64_t>(blockIdx.x) * each;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < each; i += kBlockThreads)
    sum += static_cast<double>(mine[i]) * mine[i];
  squares[threadIdx.x] = sum;
  for (unsigned width = kBlockThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) squares[threadIdx.x] += squares[threadIdx.x + width];
  }
  if (threadIdx.x != 0) return;
  const double rms = sqrt(squares[0] / static_cast<double>(each));
  noise[blockIdx.x] = scale[0] * static_cast<float>(rms < kSilence ? 1.0 : rms);
}

__global__ void sign_words_kernel(const std::uint64_t* key, std::int64_t first, std::int64_t count,
                                  std::int64_t each, std::uint32_t* words) {
  const std::int64_t half = (each + 1) / 2, index = thread_index();
  if (index >= count * half) return;
  const std::int64_t sample = index / half, block = index % half;
  const RandomWords both = threefry2x32(key[0], static_cast<std::uint32_t>(block),
                                        static_cast<std::uint32_t>(first + sample));
  std::uint32_t* out = words + sample * each;
  out[block] = both.lane0;
  if (half + block < each) out[half + block] = both.lane1;
}

template <int N>
__global__ void disturb_kernel(const float* sums, ProbeSigns probe, const float* noise,
                               LayerShape shape, LayerDivisors by, float* noisy) {
  Channels at;
  if (!find_channels<N>(shape, by, at)) return;
  const std::uint32_t signs = signs_of(random_signs(probe, shape, at), probe, at.probe, at);
  const float amplitude = noise[at.sample];
  const std::int64_t each = shape.pixels * shape.channels;
  float values[N];
  load_floats(sums + at.sample * each + at.index, values);
  for (int i = 0; i < N; ++i) values[i] += with_sign(signs, i, amplitude);
  store_floats(values, noisy + (at.probe * shape.samples + at.sample) * each + at.index);
}

// Where planes come from: by the pixels of a sample, by those of a probe, by the blocks of a row.
struct PlaneDivisors {
  Divisor sample, probe, blocks;
};

// A row for every channel: its samples and their pixels.
__global__ void planes_kernel(const float* out, const float* base, LayerShape shape,
                              PlaneDivisors by, float* planes) {
  const Part part = part_of<1>(by.blocks);
  const std::int64_t each = shape.probes * shape.samples * shape.pixels;
  if (part.first >= each) return;
  const auto from = [&](std::uint32_t index) {
    const Division at = by.sample.divide(index);
    return (at.quotient * shape.channels + part.row) * shape.pixels + at.remainder;
  };
  const auto index = static_cast<std::uint32_t>(part.first);
  const std::uint32_t undisturbed = by.probe.divide(index).remainder;
  planes[part.row * each + part.first] = out[from(index)] - base[from(undisturbed)];
}

constexpr int kTile = 32;  // pixels, and channels, of a block of threads

// The same of pixels whose channels are neighbours, by way of shared memory: threads read and write
// neighbours.
__global__ void turned_planes_kernel(const float* out, const float* base, LayerShape shape,
                                     Divisor tiles, Divisor probe, float* planes) {
  __shared__ float tile[kTile][kTile + 1];  // no two of a column on one bank
  const Division at = tiles.divide(blockIdx.x);
  const std::int64_t pixel = static_cast<std::int64_t>(at.quotient) * kTile;
  const std::int64_t channel = static_cast<std::int64_t>(at.remainder) * kTile;
  const std::int64_t each = shape.probes * shape.samples * shape.pixels;
  const int x = static_cast<int>(threadIdx.x) % kTile, y = static_cast<int>(threadIdx.x) / kTile;
  // read
  for (int i = y; i < kTile; i += kBlockThreads / kTile) {
    if (pixel + i >= each || channel + x >= shape.channels) continue;
    const std::int64_t undisturbed = probe.divide(static_cast<std::uint32_t>(pixel + i)).remainder;
    tile[i][x] = out[(pixel + i) * shape.channels + channel + x] -
                 base[undisturbed * shape.channels + channel + x];
  }
  __syncthreads();
  // write
  for (int i = y; i < kTile; i += kBlockThreads / kTile)
    if (pixel + x < each && channel + i < shape.channels)
      planes[(channel + i) * each + pixel + x] = tile[x][i];
}

// One thread goes through all probes, in their order.
template <int N>
__global__ void collect_errors_kernel(CollectArgs args, LayerDivisors by) {
  Channels at;
  const LayerShape& shape = args.shape;
  if (!find_channels<N>(shape, by, at)) return;
  const std::uint32_t random = random_signs(args.signs, shape, at);
  const float base = args.base[at.sample];
  float* errors = args.errors + at.sample * shape.pixels * shape.channels + at.index;
  float sums[N] = {};
  if (args.signs.probe > 0) load_floats(errors, sums);
  for (std::uint32_t k = 0; k < shape.probes; ++k) {
    const std::uint32_t signs = signs_of(random, args.signs, k, at);
    for (int i = 0; i < N; ++i) {
      const std::int64_t row = (at.first + i) * shape.probes + k;
      sums[i] += with_sign(signs, i, args.losses[row * shape.samples + at.sample] - base);
    }
  }
  store_floats(sums, errors);
}

// One thread for a channel of a probe of a piece.
__global__ void collect_changes_kernel(CollectArgs args) {
  const std::int64_t channels = args.shape.channels, probes = args.shape.probes;
  const std::int64_t channel = thread_index() % channels, row = thread_index() / channels;
  const std::int64_t probe = row % probes;
  const std::int64_t piece = args.range.first / args.range.piece + row / probes;
  const std::int64_t start = piece * args.range.piece, last = args.range.first + args.range.count;
  if (start >= last) return;
  const std::int64_t begin = start < args.range.first ? args.range.first : start;
  const std::int64_t end = start + args.range.piece < last ? start + args.range.piece : last;
  double& changes = args.changes[piece * args.stride + probe * channels + channel];
  double sum = begin == start ? 0.0 : changes;  // or an earlier tile began the piece
  const float* losses = args.losses + (channel * probes + probe) * args.shape.samples;
  for (std::int64_t s = begin - args.range.first; s < end - args.range.first; ++s)
    sum += losses[s] - args.base[s];
  changes = sum;
}

__global__ void repeat_labels_kernel(const std::int32_t* labels, std::int64_t count,
                                     std::int64_t times, std::int32_t* out) {
  const std::int64_t i = thread_index();
  if (i < times * count) out[i] = labels[i % count];
}

__global__ void logit_errors_kernel(CrossEntropyArgs args, float* errors) {
  const std::int64_t sample = thread_index();
  if (sample >= args.samples) return;
  const float* x = args.logits + sample * args.classes;
  float* out = errors + sample * args.classes;
  const std::int32_t label = args.labels[sample];
  const bool ignored = args.ignoring && label == args.ignored;
  float largest = x[0];
  for (std::int64_t c = 1; c < args.classes; ++c) largest = x[c] > largest ? x[c] : largest;
  double total = 0;
  for (std::int64_t c = 0; c < args.classes; ++c) total += out[c] = expf(x[c] - largest);
  for (std::int64_t c = 0; c < args.classes; ++c) {
    const auto share = static_cast<float>(out[c] / total);
    out[c] = ignored ? 0.0f : c == label ? share - 1.0f : share;
  }
}

__device__ float parameter_sign(const ChannelParameter& parameter, std::int64_t channel,
                                std::int64_t probe) {
  const std::int64_t i = parameter.position * parameter.channels + channel;
  const std::uint32_t word = word_at(parameter.key[0], kNoSample,
                                     (parameter.count + kWordBits - 1) / kWordBits, i / kWordBits);
  const std::uint32_t flip = word >> (i % kWordBits) & 1u;
  const auto row = static_cast<std::uint32_t>(probe);
  return walsh_of_parameter(row, parameter.position) != flip ? -1.0f : 1.0f;
}

__global__ void move_parameter_kernel(ChannelParameter parameter, const float* scale,
                                      std::byte* packed, std::int64_t stride) {
  const std::int64_t channel = thread_index() % parameter.channels;
  const std::int64_t probe = thread_index() / parameter.channels;
  if (probe >= parameter.probes) return;
  auto* values = reinterpret_cast<float*>(packed + (probe + 1) * stride);
  values[channel] += scale[0] * parameter_sign(parameter, channel, probe);
}

__global__ void parameter_gradient_kernel(ChannelParameter parameter, const double* changes,
                                          std::int64_t pieces, std::int64_t stride,
                                          const float* scale, const float* share, float* out) {
  const std::int64_t channel = thread_index();
  if (channel >= parameter.channels) return;
  double sum = 0;
  for (std::int64_t k = 0; k < parameter.probes; ++k) {
    double change = 0;
    for (std::int64_t p = 0; p < pieces; ++p)
      change += changes[p * stride + k * parameter.channels + channel];
    sum += change * parameter_sign(parameter, channel, k);
  }
  out[channel] +=
      share[0] * static_cast<float>(sum / (static_cast<double>(parameter.probes) * scale[0]));
}

__global__ void pack_spread_kernel(SpreadArgs args) {
  const std::int64_t i = thread_index();
  if (i >= args.rows * args.channels * args.each) return;
  const std::int64_t r = i % args.each, channel = i / args.each % args.channels;
  const std::int64_t row = i / args.each / args.channels;
  auto* to = reinterpret_cast<float*>(args.packed + channel * args.stride);
  to[row * args.padded_depth + r] = args.weight[i];
}

// Calls run(n, grid, divisors), n channels to a thread, for every sample of `probes` probes.
template <class Run>
void with_channels(const LayerShape& shape, std::int64_t probes, Run run) {
  with_vectors<float>(shape.channels, {}, [&](auto n) {
    const RowBlocks blocks(probes * shape.samples, shape.pixels * shape.channels, n);
    run(n, blocks.grid,
        LayerDivisors{blocks.divisor, Divisor(shape.channels), Divisor(shape.samples)});
  });
}

}  // namespace

void noise_gpu(const float* sums, std::int64_t samples, std::int64_t each, const float* scale,
               float* noise, const Stream& stream) {
  launch(noise_kernel, Grid{samples}, Block{kBlockThreads}, 0, stream, sums, each, scale, noise);
}

void sign_words_gpu(const std::uint64_t* key, std::int64_t first, std::int64_t count,
                    std::int64_t each, std::uint32_t* words, const Stream& stream) {
  launch(sign_words_kernel, blocks_for(count * ((each + 1) / 2)), Block{kBlockThreads}, 0, stream,
         key, first, count, each, words);
}

void disturb_gpu(const float* sums, const ProbeSigns& signs, const float* noise,
                 const LayerShape& shape, float* noisy, const Stream& stream) {
  with_channels(shape, shape.probes, [&](auto n, Grid grid, LayerDivisors by) {
    launch(disturb_kernel<n>, grid, Block{kBlockThreads}, 0, stream, sums, signs, noise, shape, by,
           noisy);
  });
}

void planes_gpu(const float* out, const float* base, const LayerShape& shape, const Layout& layout,
                float* planes, const Stream& stream) {
  const std::int64_t each = shape.probes * shape.samples * shape.pixels;
  const Divisor probe(shape.samples * shape.pixels);
  const RowBlocks blocks(shape.channels, each, 1);
  const std::int64_t tiles = (shape.channels + kTile - 1) / kTile;
  if (layout.planar())
    launch(planes_kernel, blocks.grid, Block{kBlockThreads}, 0, stream, out, base, shape,
           PlaneDivisors{Divisor(shape.pixels), probe, blocks.divisor}, planes);
  else
    launch(turned_planes_kernel, Grid{(each + kTile - 1) / kTile * tiles}, Block{kBlockThreads}, 0,
           stream, out, base, shape, Divisor(tiles), probe, planes);
}

void collect_gpu(const CollectArgs& args, const Stream& stream) {
  const TileRange& range = args.range;
  const std::int64_t pieces =
      (range.first + range.count - 1) / range.piece - range.first / range.piece + 1;
  with_channels(args.shape, 1, [&](auto n, Grid grid, LayerDivisors by) {
    launch(collect_errors_kernel<n>, grid, Block{kBlockThreads}, 0, stream, args, by);
  });
  launch(collect_changes_kernel, blocks_for(pieces * args.shape.probes * args.shape.channels),
         Block{kBlockThreads}, 0, stream, args);
}

void repeat_labels_gpu(const std::int32_t* labels, std::int64_t count, std::int64_t times,
                       std::int32_t* out, const Stream& stream) {
  launch(repeat_labels_kernel, blocks_for(times * count), Block{kBlockThreads}, 0, stream, labels,
         count, times, out);
}

void logit_errors_gpu(const CrossEntropyArgs& args, float* errors, const Stream& stream) {
  launch(logit_errors_kernel, blocks_for(args.samples), Block{kBlockThreads}, 0, stream, args,
         errors);
}

void move_parameter_gpu(const ChannelParameter& parameter, const float* scale, std::byte* packed,
                        std::int64_t stride, std::int64_t at, const Stream& stream) {
  launch(move_parameter_kernel, blocks_for(parameter.channels * parameter.probes),
         Block{kBlockThreads}, 0, stream, parameter, scale, packed + at, stride);
}

void parameter_gradient_gpu(const ChannelParameter& parameter, const double* changes,
                            std::int64_t pieces, std::int64_t stride, const float* scale,
                            const float* share, float* out, const Stream& stream) {
  launch(parameter_gradient_kernel, blocks_for(parameter.channels), Block{kBlockThreads}, 0, stream,
         parameter, changes, pieces, stride, scale, share, out);
}

void pack_spread_gpu(const SpreadArgs& args, const Stream& stream) {
  launch(pack_spread_kernel, blocks_for(args.rows * args.channels * args.each),
         Block{kBlockThreads}, 0, stream, args);
}

}  // namespace marketplace::gpu
