// What node perturbation runs at one stage of a chain, cut out of the market, on every device: the
// contraction, what follows it channel by channel, how a disturbed channel spreads into the next
// contraction, and the rest of the market.
#pragma once

#include <memory>
#include <vector>

#include "core/walsh.h"
#include "graph/chain.h"

namespace marketplace {

struct StageParts {
  // Stage `index` of a chain, disturbed once per vendor of its contraction's spec beyond the
  // leader; the last stage never is. counts: vendors per spec.
  StageParts(const std::vector<std::shared_ptr<Model>>& models, const Chain& chain,
             std::size_t index, const std::vector<std::int64_t>& counts);

  Link contraction{}, next{};  // next: the contraction after this one, unless this is the last
  int spec;
  bool last;  // the market's output layer
  std::int64_t probes;
  bool trained;  // has a gradient
  Shape in_shape, sum_shape, out_shape, next_sum;
  std::int64_t channels, pixels, out_pixels, in_floats, sum_floats, out_floats;

  std::unique_ptr<Slice> sum_slice;     // the contraction
  std::unique_ptr<Slice> rest_slice;    // what follows it; null at the last stage
  std::unique_ptr<Model> spread_model;  // the next contraction with one input channel, or null
  std::unique_ptr<Slice> tail_slice;    // everything behind the next contraction, or null
  Shape spread_in;
  bool relu_first = false;   // the tail wants its input clamped
  std::vector<bool> learns;  // parameters of rest_slice, flat: not those of a frozen spec
  PixelColumns columns;      // of signs

  // What random signs follow from, for the seeds (V,) of the spec: the first vendor's behind the
  // leader, for probes share them (core/walsh.h tells probes apart). 0 without probes.
  std::uint64_t sign_key(const std::vector<std::uint64_t>& seeds) const;
  // Words of random signs of one sample, a pixel's channels in words of their own.
  std::int64_t sign_words() const { return pixels * ((channels + 31) / 32); }

 private:
  void build_spread(const std::vector<std::shared_ptr<Model>>& models);
  void build_tail(const std::vector<std::shared_ptr<Model>>& models, const Chain& chain,
                  std::size_t index);
};

// Counter of signs that all samples share: those of the channelwise parameters.
inline constexpr std::uint32_t kNoSample = 0xFFFFFFFF;

}  // namespace marketplace
