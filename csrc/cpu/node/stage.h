// One stage of a chain made ready for node perturbation on the CPU.
#pragma once

#include <memory>
#include <vector>

#include "cpu/node/weight_gradient.h"
#include "cpu/program.h"
#include "cpu/workspace.h"
#include "graph/stage_parts.h"

namespace marketplace::cpu {

using Models = std::vector<std::shared_ptr<Model>>;

// Some ops with their program, all in float32, and the packed weights of `variants` of them.
class Segment {
 public:
  Segment(const KernelTable& kernels, const Shape& input_shape, Layout layout, bool planar_out,
          Model& model);

  std::int64_t output_size() const { return program_.output_size; }
  std::int64_t scratch_floats(std::int64_t samples) const {
    return program_.scratch_size * samples;
  }
  std::int64_t largest_channels() const { return program_.largest_channels; }
  // Values of variants, (count, n); null: the model's own weights.
  void pack(const std::shared_ptr<const Vector>& variants, std::int64_t count);
  void run(std::int64_t variant, std::int64_t samples, const float* in, float* out, float* scratch,
           float* statistics) const;

 private:
  const KernelTable& kernels_;
  Model& model_;
  Program program_;
  Buffer packed_, staging_;
};

class NodeStage : public StageParts {
 public:
  NodeStage(const Models& models, const Chain& chain, std::size_t index,
            const std::vector<std::int64_t>& counts, const KernelTable& kernels);

  // Takes over the market's weights. seeds (V,) of the spec; scale as in NodeProbe.
  void prepare(const Models& models, const std::vector<std::uint64_t>& seeds, float scale);
  std::uint64_t key() const { return key_; }  // of its random signs

  const Segment& run_sum() const { return *sum_; }         // planar -> channels-last
  const Segment& run_rest() const { return *rest_; }       // channels-last -> planar
  const Segment& run_spread() const { return *spread_; }   // one channel -> channels-last
  const Segment* run_tail() const { return tail_.get(); }  // channels-last -> logits
  const WeightGradient& weight_gradient() const { return *gradient_; }

  // Adds gradients: of the contraction from the result of weight_gradient, and, from the loss
  // changes (probes, channels) summed over samples, those of the channelwise parameters.
  void add_contraction(const float* result, const float* panel, std::int64_t samples,
                       std::vector<std::vector<float>>& gradients, const Models& models) const;
  void add_channelwise(const std::vector<double>& changes,
                       std::vector<std::vector<float>>& gradients, const Models& models) const;
  std::int64_t largest_scratch(std::int64_t samples) const;
  std::int64_t largest_channels() const;

 private:
  void prepare_channelwise();
  void prepare_spread(const Models& models);
  bool moves(std::int64_t element) const { return learns[element / channels]; }
  float sign(std::int64_t element, std::int64_t probe) const;

  const KernelTable& kernels_;
  std::unique_ptr<Segment> sum_, rest_, spread_, tail_;
  std::unique_ptr<WeightGradient> gradient_;
  std::uint64_t key_ = 0;
  std::vector<std::uint32_t> flips_;  // random signs of (parameter, channel)
  float scale_ = 0;
};

}  // namespace marketplace::cpu
