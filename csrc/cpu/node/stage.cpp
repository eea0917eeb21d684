#include "cpu/node/stage.h"

#include <algorithm>
#include <bit>

#include "core/threefry.h"

namespace marketplace::cpu {
namespace {

constexpr std::uint32_t kStageDomain = 0x6E6F6465;  // keeps these keys apart from other uses
constexpr std::uint32_t kNoSample = 0xFFFFFFFF;     // counter of signs that all samples share

std::uint64_t stage_key(std::uint64_t seed, std::size_t stage) {
  const RandomWords words = threefry2x32(seed, static_cast<std::uint32_t>(stage), kStageDomain);
  return words.lane0 | static_cast<std::uint64_t>(words.lane1) << 32;
}

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
    : spec(chain.stages[index].contraction.spec),
      last(index + 1 == chain.stages.size()),
      probes(last ? 0 : counts[spec] - 1),
      trained(last || probes > 0),
      channels(chain.stages[index].channels()),
      pixels(chain.stages[index].pixels()),
      out_pixels(chain.stages[index].out_pixels()),
      in_floats(element_count(chain.stages[index].in)),
      sum_floats(element_count(chain.stages[index].sum)),
      out_floats(element_count(chain.stages[index].out)),
      kernels_(kernels),
      contraction_(chain.stages[index].contraction),
      keys_(probes) {
  const Chain::Stage& stage = chain.stages[index];
  sum_slice_ = std::make_unique<Slice>(models, std::vector<Link>{contraction_});
  sum_ = std::make_unique<Segment>(kernels, stage.in, Layout{}, last, sum_slice_->model());
  const Op& op = op_of(models, contraction_);
  const Shape& weight = models[spec]->graph().parameters[op.weight].shape;
  gradient_ = std::make_unique<WeightGradient>(op, stage.in, stage.sum, weight, kernels);
  if (last) return;
  rest_slice_ = std::make_unique<Slice>(models, stage.channelwise);
  rest_ = std::make_unique<Segment>(kernels, stage.sum, image_layout(stage.sum), true,
                                    rest_slice_->model());
  learns_.resize(rest_slice_->sources().size());
  for (std::size_t id = 0; id < learns_.size(); ++id)
    learns_[rest_slice_->model().offset(static_cast<int>(id)) / channels] =
        counts[rest_slice_->sources()[id].spec] > 1;
  if (probes == 0) return;
  build_spread(models, chain, index);
  build_tail(models, chain, index);
}

// The next contraction with one input channel: it sees a channel's change alone.
void NodeStage::build_spread(const Models& models, const Chain& chain, std::size_t index) {
  const Chain::Stage& stage = chain.stages[index];
  next_ = chain.stages[index + 1].contraction;
  Op op = op_of(models, next_);
  Shape weight = models[next_.spec]->graph().parameters[op.weight].shape;
  const bool image = op.kind == OpKind::conv2d;
  weight[1] = image ? 1 : stage.out_pixels();
  Graph graph;
  op.weight = graph.add_parameter("weight", weight, false);
  op.bias = -1;
  op.a = 0;
  graph.set_output(graph.add_op(std::move(op)));
  spread_model_ = std::make_unique<Model>(std::move(graph));
  const Shape in = image ? Shape{1, stage.out[1], stage.out[2]} : Shape{stage.out_pixels()};
  const bool head = index + 2 == chain.stages.size();
  spread_ = std::make_unique<Segment>(kernels_, in, Layout{}, head, *spread_model_);
}

// Everything behind the next contraction. A clamp at its start joins the addition before it.
void NodeStage::build_tail(const Models& models, const Chain& chain, std::size_t index) {
  const Chain::Stage& after = chain.stages[index + 1];
  if (index + 2 == chain.stages.size()) return;
  std::vector<Link> links = after.channelwise;
  for (std::size_t l = index + 2; l < chain.stages.size(); ++l) {
    links.push_back(chain.stages[l].contraction);
    links.insert(links.end(), chain.stages[l].channelwise.begin(),
                 chain.stages[l].channelwise.end());
  }
  const Op& first = op_of(models, links.front());
  relu_first_ = first.kind == OpKind::unary && first.unary == UnaryKind::relu;
  if (relu_first_) links.erase(links.begin());
  tail_slice_ = std::make_unique<Slice>(models, links);
  tail_ = std::make_unique<Segment>(kernels_, after.sum, image_layout(after.sum), true,
                                    tail_slice_->model());
}

void NodeStage::prepare(const Models& models, const std::vector<std::uint64_t>& seeds,
                        float scale) {
  scale_ = scale;
  for (Slice* slice : {sum_slice_.get(), rest_slice_.get(), tail_slice_.get()})
    if (slice) slice->refresh(models);
  sum_->pack(nullptr, 1);
  if (last) return;
  for (std::int64_t k = 0; k < probes; ++k)
    keys_[k] = stage_key(seeds[k + 1], static_cast<std::size_t>(contraction_.node));
  prepare_channelwise();
  if (probes == 0) return;
  prepare_spread(models);
  if (tail_) tail_->pack(nullptr, 1);
}

// Variant 0 is the leader's; variant k + 1 moves every channelwise parameter that learns by
// `scale`, their values being of the order of one, with signs that are orthogonal over the probes.
void NodeStage::prepare_channelwise() {
  const Model& model = rest_slice_->model();
  const std::int64_t n = model.parameter_count();
  if (probes == 0 || n == 0) return rest_->pack(nullptr, 1);
  flips_.resize((n + 31) / 32);
  kernels_.random_words(keys_[0], kNoSample, static_cast<std::int64_t>(flips_.size()),
                        flips_.data());
  std::vector<float> values((probes + 1) * n);
  const float* base = model.values();
  for (std::int64_t k = -1; k < probes; ++k)
    for (std::int64_t i = 0; i < n; ++i)
      values[(k + 1) * n + i] = base[i] + (k >= 0 && learns(i) ? scale_ * sign(i, k) : 0);
  rest_->pack(std::make_shared<const Vector>(std::move(values)), probes + 1);
}

// Of element i of the flat channelwise parameters, (parameters, channels), in probe k: a row of a
// Walsh matrix per parameter.
float NodeStage::sign(std::int64_t i, std::int64_t k) const {
  const auto walsh = static_cast<std::uint64_t>(k & (i / channels + 1));
  const bool flip = (flips_[i / 32] >> (i % 32) & 1u) != 0;
  return (std::popcount(walsh) % 2 != 0) != flip ? -1.0f : 1.0f;
}

void NodeStage::prepare_spread(const Models& models) {
  const Model& next = *models[next_.spec];
  const int id = op_of(models, next_).weight;
  const Shape& shape = next.graph().parameters[id].shape;
  const std::int64_t each = spread_model_->parameter_count() / shape[0];  // of one channel
  const std::int64_t row = next.size(id) / shape[0];
  std::vector<float> values(next.size(id));
  float* out = values.data();
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t o = 0; o < shape[0]; ++o, out += each)
      std::copy_n(next.data(id) + o * row + c * each, each, out);
  spread_->pack(std::make_shared<const Vector>(std::move(values)), channels);
}

void NodeStage::add_contraction(const float* result, const float* panel, std::int64_t samples,
                                std::vector<std::vector<float>>& gradients,
                                const Models& models) const {
  const Op& op = op_of(models, contraction_);
  const Model& model = *models[spec];
  float* out = gradients[spec].data();
  gradient_->add(result, panel, samples, out + model.offset(op.weight),
                 op.bias < 0 ? nullptr : out + model.offset(op.bias));
}

void NodeStage::add_channelwise(const std::vector<double>& changes,
                                std::vector<std::vector<float>>& gradients,
                                const Models& models) const {
  const Model& model = rest_slice_->model();
  for (std::size_t id = 0; id < rest_slice_->sources().size(); ++id) {
    const Slice::Source& source = rest_slice_->sources()[id];
    const std::int64_t first = model.offset(static_cast<int>(id));
    if (!learns(first)) continue;
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
