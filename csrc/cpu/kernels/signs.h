// Signs for node perturbation: a random one for every element, one bit each, and in probe k those
// times row k of a Walsh matrix whose columns are pixels. A pixel's channels are in words of their
// own: word w holds channels 32 w to 32 w + 31, lowest bit first; a set bit is a minus.
#pragma once

#include "core/threefry.h"
#include "core/walsh.h"
#include "cpu/kernels/simd.h"

namespace {

constexpr int kWordBits = 32;

MP_INLINE std::int64_t words_per_pixel(std::int64_t channels) {
  return (channels + kWordBits - 1) / kWordBits;
}

// The sign bits of kVectorFloats channels from `channel` on, where floats have theirs; flip: all
// ones or none.
MP_INLINE VecU sign_bits(const std::uint32_t* words, std::int64_t channel, std::uint32_t flip) {
  VecU lanes{};
  for (int i = 0; i < kVectorFloats; ++i) lanes[i] = static_cast<std::uint32_t>(i);
  const VecU word = (words[channel / kWordBits] ^ flip) - VecU{};
  return (word >> (lanes + static_cast<std::uint32_t>(channel % kWordBits))) << 31;
}

// count words, of sample `sample` under a key: block j has counters (j, sample).
void random_words(std::uint64_t key, std::uint32_t sample, std::int64_t count, std::uint32_t* out) {
  const std::int64_t half = (count + 1) / 2, full = count / 2;
  for (std::int64_t j = 0; j < full; ++j) {
    const auto words = marketplace::threefry2x32(key, static_cast<std::uint32_t>(j), sample);
    out[j] = words.lane0;
    out[half + j] = words.lane1;
  }
  if (full < half)
    out[full] = marketplace::threefry2x32(key, static_cast<std::uint32_t>(full), sample).lane0;
}

// All ones where a probe turns a pixel's random signs round, or none.
MP_INLINE std::uint32_t flip_of(const marketplace::ProbeSigns& signs, std::int64_t pixel) {
  return 0u - marketplace::walsh_of_pixel(signs, static_cast<std::uint32_t>(pixel));
}

// out = x + scale * sign, (pixels, channels)
void add_signs(const float* x, const marketplace::ProbeSigns& signs, float scale,
               std::int64_t pixels, std::int64_t channels, float* out) {
  const std::uint32_t* words = signs.words;
  const VecU magnitude = (VecU)broadcast(scale);
  for (std::int64_t p = 0; p < pixels; ++p) {
    const std::uint32_t flip = flip_of(signs, p);
    for (std::int64_t c = 0; c < channels; c += kVectorFloats) {
      const Vec noise = (Vec)(sign_bits(words, c, flip) ^ magnitude);
      const std::int64_t left = channels - c;
      if (left >= kVectorFloats)
        store(out + c, load(x + c) + noise);
      else
        store_partial(out + c, load_partial(x + c, static_cast<int>(left)) + noise,
                      static_cast<int>(left));
    }
    x += channels, out += channels, words += words_per_pixel(channels);
  }
}

// total += sign * values, (pixels, channels), values (channels)
void accumulate_signs(const float* values, const marketplace::ProbeSigns& signs,
                      std::int64_t pixels, std::int64_t channels, float* total) {
  const std::uint32_t* words = signs.words;
  for (std::int64_t p = 0; p < pixels; ++p) {
    const std::uint32_t flip = flip_of(signs, p);
    for (std::int64_t c = 0; c < channels; c += kVectorFloats) {
      const VecU bits = sign_bits(words, c, flip);
      const std::int64_t left = channels - c;
      if (left >= kVectorFloats) {
        store(total + c, load(total + c) + (Vec)(bits ^ (VecU)load(values + c)));
      } else {
        const int rest = static_cast<int>(left);
        const Vec change = (Vec)(bits ^ (VecU)load_partial(values + c, rest));
        store_partial(total + c, load_partial(total + c, rest) + change, rest);
      }
    }
    total += channels, words += words_per_pixel(channels);
  }
}

}  // namespace
