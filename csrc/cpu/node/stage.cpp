#include "cpu/node/stage.h"

#include <algorithm>

namespace marketplace::cpu {
namespace {

const Op& op_of(const Models& models, const Link& link) {
  return models[link.spec]->graph().ops[link.node];
}

}  // namespace

Segment::Segment(const KernelTable& kernels, const Shape& input_shape, Layout layout,
                 bool planar_out, Model& model)
    : kernels_(kernels),
      model_(model),
      program_(lower(model, input_shape, layout, planar_out, DType::float32, kernels,
                     Convolution::direct)) {}

void Segment::pack(const std::shared_ptr<const Vector>& variants, std::int64_t count) {
  VendorWeights weights;
  weights.count = count;
  if (variants) {
    weights.kind = VendorWeights::Kind::explicit_;
    weights.values = variants;
  }
  packed_.reserve(std::max<std::int64_t>(64, program_.packed_bytes * count));
  auto* staging = reinterpret_cast<float*>(
      staging_.reserve(std::max<std::int64_t>(64, program_.staging_floats * 4)));
  for (std::int64_t v = 0; v < count; ++v)
    pack_vendor(program_, kernels_, kernels_.float32, model_, weights, v, staging,
                packed_.get() + v * program_.packed_bytes);
}

void Segment::run(std::int64_t variant, std::int64_t samples, const float* in, float* out,
                  float* scratch, float* statistics) const {
  RunArgs args;
  args.model = &model_;
  args.packed = packed_.get() + variant * program_.packed_bytes;
  args.samples = samples;
  args.in = reinterpret_cast<const std::byte*>(in);
  args.out = reinterpret_cast<std::byte*>(out);
  args.scratch = reinterpret_cast<std::byte*>(scratch);
  args.statistics = statistics;
  args.inference = true;
  run_program(program_, kernels_.float32, sizeof(float), args);
}

NodeStage::NodeStage(const Models& models, const Chain& chain, std::size_t index,
                     const std::vector<std::int64_t>& counts, const KernelTable& kernels)
    : StageParts(models, chain, index, counts), kernels_(kernels) {
  sum_ = std::make_unique<Segment>(kernels, in_shape, Layout{}, last, sum_slice->model());
  const Op& op = op_of(models, contraction);
  const Shape& weight = models[spec]->graph().parameters[op.weight].shape;
  gradient_ = std::make_unique<WeightGradient>(op, in_shape, sum_shape, weight, kernels);
  if (rest_slice)
    rest_ = std::make_unique<Segment>(kernels, sum_shape, image_layout(sum_shape), true,
                                      rest_slice->model());
  if (spread_model)
    spread_ = std::make_unique<Segment>(kernels, spread_in, Layout{}, !tail_slice, *spread_model);
  if (tail_slice)
    tail_ = std::make_unique<Segment>(kernels, next_sum, image_layout(next_sum), true,
                                      tail_slice->model());
}

void NodeStage::prepare(const Models& models, const std::vector<std::uint64_t>& seeds,
                        float scale) {
  scale_ = scale;
  for (Slice* slice : {sum_slice.get(), rest_slice.get(), tail_slice.get()})
    if (slice) slice->refresh(models);
  sum_->pack(nullptr, 1);
  if (last) return;
  key_ = sign_key(seeds);
  prepare_channelwise();
  if (probes == 0) return;
  prepare_spread(models);
  if (tail_) tail_->pack(nullptr, 1);
}

// Variant 0 is the leader's; variant k + 1 moves every channelwise parameter that learns by
// `scale`, their values being of the order of one.
void NodeStage::prepare_channelwise() {
  const Model& model = rest_slice->model();
  const std::int64_t n = model.parameter_count();
  if (probes == 0 || n == 0) return rest_->pack(nullptr, 1);
  flips_.resize((n + 31) / 32);
  kernels_.random_words(key_, kNoSample, static_cast<std::int64_t>(flips_.size()), flips_.data());
  std::vector<float> values((probes + 1) * n);
  const float* base = model.values();
  for (std::int64_t k = -1; k < probes; ++k)
    for (std::int64_t i = 0; i < n; ++i)
      values[(k + 1) * n + i] = base[i] + (k >= 0 && moves(i) ? scale_ * sign(i, k) : 0);
  rest_->pack(std::make_shared<const Vector>(std::move(values)), probes + 1);
}

// Of element i of the flat channelwise parameters, (parameters, channels), in probe k.
float NodeStage::sign(std::int64_t i, std::int64_t k) const {
  const std::uint32_t flip = flips_[i / 32] >> (i % 32) & 1u;
  return walsh_of_parameter(static_cast<std::uint32_t>(k), i / channels) != flip ? -1.0f : 1.0f;
}

void NodeStage::prepare_spread(const Models& models) {
  const Model& model = *models[next.spec];
  const int id = op_of(models, next).weight;
  const Shape& shape = model.graph().parameters[id].shape;
  const std::int64_t each = spread_model->parameter_count() / shape[0];  // of one channel
  const std::int64_t row = model.size(id) / shape[0];
  std::vector<float> values(model.size(id));
  float* out = values.data();
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t o = 0; o < shape[0]; ++o, out += each)
      std::copy_n(model.data(id) + o * row + c * each, each, out);
  spread_->pack(std::make_shared<const Vector>(std::move(values)), channels);
}

void NodeStage::add_contraction(const float* result, const float* panel, std::int64_t samples,
                                std::vector<std::vector<float>>& gradients,
                                const Models& models) const {
  const Op& op = op_of(models, contraction);
  const Model& model = *models[spec];
  float* out = gradients[spec].data();
  gradient_->add(result, panel, samples, out + model.offset(op.weight),
                 op.bias < 0 ? nullptr : out + model.offset(op.bias));
}

void NodeStage::add_channelwise(const std::vector<double>& changes,
                                std::vector<std::vector<float>>& gradients,
                                const Models& models) const {
  const Model& model = rest_slice->model();
  for (std::size_t id = 0; id < rest_slice->sources().size(); ++id) {
    const Slice::Source& source = rest_slice->sources()[id];
    const std::int64_t first = model.offset(static_cast<int>(id));
    if (!moves(first)) continue;
    float* out = gradients[source.spec].data() + models[source.spec]->offset(source.id);
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (std::int64_t k = 0; k < probes; ++k)
        sum += changes[k * channels + c] * sign(first + c, k);
      out[c] += static_cast<float>(sum / (static_cast<double>(probes) * scale_));
    }
  }
}

std::int64_t NodeStage::largest_scratch(std::int64_t samples) const {
  std::int64_t floats = 1;
  for (const Segment* s : {sum_.get(), rest_.get(), spread_.get(), tail_.get()})
    if (s) floats = std::max(floats, s->scratch_floats(samples));
  return floats;
}

std::int64_t NodeStage::largest_channels() const {
  std::int64_t count = 1;
  for (const Segment* s : {sum_.get(), rest_.get(), tail_.get()})
    if (s) count = std::max(count, s->largest_channels());
  return count;
}

}  // namespace marketplace::cpu
