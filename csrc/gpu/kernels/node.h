// What node perturbation computes beside a market's own ops; docs/node.md has the formulas.
//
// Values of a tile of samples are (samples, pixels, channels) float32. Sums over samples are kept
// by pieces, runs of neighbouring samples that depend on the batch's size alone: so a sum does not
// depend on how a batch was cut into tiles or shared out among devices.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/walsh.h"
#include "gpu/kernels/cross_entropy.h"
#include "gpu/program.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

// Samples [first, first + count) of a batch, in pieces of `piece`.
struct TileRange {
  std::int64_t first = 0, count = 0, piece = 1;
};

// How a layer's results are cut: (samples, pixels, channels), or of several probes at once:
// (probes, samples, pixels, channels).
struct LayerShape {
  std::int64_t samples = 0, pixels = 1, channels = 0, probes = 1;
};

// noise (samples,) = scale[0] times the root mean square of a sample's `each` sums; scale[0] where
// that says nothing, the sums being zero.
void noise_gpu(const float* sums, std::int64_t samples, std::int64_t each, const float* scale,
               float* noise, const Stream& stream);

// words (count, each): random signs of samples first, first + 1, ... under key[0], one bit an
// element, a pixel's channels in words of their own, lowest bit first; a set bit is a minus.
void sign_words_gpu(const std::uint64_t* key, std::int64_t first, std::int64_t count,
                    std::int64_t each, std::uint32_t* words, const Stream& stream);

// noisy (probes, ...) = sums + sign * noise[sample]; signs: of the first of the probes.
void disturb_gpu(const float* sums, const ProbeSigns& signs, const float* noise,
                 const LayerShape& shape, float* noisy, const Stream& stream);

// planes (channels, probes, samples, pixels) = out (probes, ...) - base, which lie as `layout`
// says.
void planes_gpu(const float* out, const float* base, const LayerShape& shape, const Layout& layout,
                float* planes, const Stream& stream);

struct CollectArgs {
  const float* losses = nullptr;  // (channels, probes, samples), of a disturbed channel each
  const float* base = nullptr;    // (samples,), undisturbed
  ProbeSigns signs;               // of the first of the probes
  LayerShape shape;
  TileRange range;
  float* errors = nullptr;  // += sign * (loss - base); = where the first probe is among these
  double* changes =
      nullptr;  // (pieces, stride): sums of loss - base, (probes, channels) of a piece
  std::int64_t stride = 0;
};
void collect_gpu(const CollectArgs& args, const Stream& stream);

// out (times, count) = labels (count,).
void repeat_labels_gpu(const std::int32_t* labels, std::int64_t count, std::int64_t times,
                       std::int32_t* out, const Stream& stream);

// errors (samples, classes) = softmax(logits) - one-hot(label); zero where the label is ignored.
void logit_errors_gpu(const CrossEntropyArgs& args, float* errors, const Stream& stream);

// A channelwise parameter: the `position`-th of its stage's flat ones, which are `count` in all.
struct ChannelParameter {
  const std::uint64_t* key = nullptr;  // of the stage's random signs
  std::int64_t position = 0, count = 0, channels = 0, probes = 0;
};

// packed (1 + probes, stride bytes): variant 1 + k of the parameter at `at` bytes moves by
// scale[0] times its sign in probe k.
void move_parameter_gpu(const ChannelParameter& parameter, const float* scale, std::byte* packed,
                        std::int64_t stride, std::int64_t at, const Stream& stream);

// out (channels,) += share[0] * sum over probes of sign * changes / (probes * scale[0]), changes
// (pieces, stride) of (probes, channels) each.
void parameter_gradient_gpu(const ChannelParameter& parameter, const double* changes,
                            std::int64_t pieces, std::int64_t stride, const float* scale,
                            const float* share, float* out, const Stream& stream);

// The weights (rows, channels, each) of a layer as those of `channels` layers with one channel:
// packed (channels, stride bytes), columns of padded_depth elements.
struct SpreadArgs {
  const float* weight = nullptr;
  std::int64_t rows = 0, channels = 0, each = 0, padded_depth = 0;
  std::byte* packed = nullptr;
  std::int64_t stride = 0;
};
void pack_spread_gpu(const SpreadArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
