// What one device computes of a node probe, tile by tile.
#include <algorithm>

#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/weight_gradient.h"
#include "gpu/node/node_device.h"

namespace marketplace::gpu {

const std::uint64_t* NodeDevice::key(std::size_t stage) const {
  return at<std::uint64_t>(arena_.keys) + stage;
}

ProbeSigns NodeDevice::signs(std::size_t stage, std::int64_t probe) const {
  return {at<std::uint32_t>(arena_.words), static_cast<std::uint32_t>(probe),
          market_->stages[stage].parts.columns};
}

void NodeDevice::run(const NodeCall& call) const {
  pack(call);
  for (std::int64_t done = 0; done < call.count; done += arena_.tile) {
    const TileRange range{call.first + done, std::min(arena_.tile, call.count - done), call.piece};
    run_leader(call, range);
    for (std::size_t l = 0; l < stages_.size(); ++l) {
      const NodeStage& stage = market_->stages[l];
      if (stage.parts.last)
        logit_errors_gpu(losses_of(call, range, 1, floats(arena_.sum[l]), nullptr),
                         floats(arena_.errors), stream_);
      else if (stage.parts.probes > 0)
        disturb(l, call, range);
      if (stage.parts.trained) add_gradient(l, range);
    }
  }
}

void NodeDevice::pack(const NodeCall& call) const {
  if (entry_) entry_->pack(call.bases, stream_);
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const Stage& stage = stages_[l];
    for (const auto* segment : {&stage.sum, &stage.rest, &stage.spread, &stage.tail})
      if (*segment) (*segment)->pack(call.bases, stream_);
    if (!stage.spread) continue;
    move_parameters(l);
    const StageParts& parts = market_->stages[l].parts;
    const Step& step = stage.spread->program().steps.front();
    const Op& op = market_->models[parts.next.spec]->graph().ops[parts.next.node];
    SpreadArgs args;
    args.weight = call.bases[parts.next.spec] + market_->models[parts.next.spec]->offset(op.weight);
    args.rows = step.contraction.columns;
    args.channels = parts.channels;
    args.each = step.contraction.depth;
    args.padded_depth = step.contraction.padded_depth;
    args.packed = stage.spread->packed() + step.weight_at;
    args.stride = stage.spread->program().packed_bytes;
    pack_spread_gpu(args, stream_);
  }
}

// Variant 1 + k of what follows a contraction moves every parameter that learns by the noise's
// scale, their values being of the order of one.
void NodeDevice::move_parameters(std::size_t l) const {
  const StageParts& parts = market_->stages[l].parts;
  const DeviceSegment& rest = *stages_[l].rest;
  const Model& model = parts.rest_slice->model();
  for (const Packing& packing : rest.program().packings) {
    ChannelParameter parameter;
    parameter.key = key(l);
    parameter.position = model.offset(packing.id) / parts.channels;
    parameter.count = model.parameter_count();
    parameter.channels = parts.channels;
    parameter.probes = parts.probes;
    if (parts.learns[parameter.position])
      move_parameter_gpu(parameter, floats(arena_.scale), rest.packed(),
                         rest.program().packed_bytes, packing.at, stream_);
  }
}

// The first stage's input from the chain's.
void NodeDevice::enter(const TileRange& range, std::int64_t first) const {
  const StageParts& parts = market_->stages.front().parts;
  const float* x = floats(arena_.input) + first * element_count(market_->chain_shape);
  if (entry_) {
    entry_->run(device_->info,
                {range.count, 0, x, floats(arena_.planar), at<std::byte>(arena_.scratch), {}},
                stream_);
    x = floats(arena_.planar);
  }
  const Layout& layout = market_->in_layout;
  if (layout.planar())
    copy_on_device(floats(arena_.in[0]), x, range.count * parts.in_floats * 4, stream_);
  else
    transpose_gpu(DType::float32, x, floats(arena_.in[0]), range.count, layout.channels,
                  layout.pixels, stream_);
}

CrossEntropyArgs NodeDevice::losses_of(const NodeCall& call, const TileRange& range,
                                       std::int64_t rows, const float* logits,
                                       float* losses) const {
  CrossEntropyArgs args;
  args.logits = logits;
  args.losses = losses;
  args.labels = at<std::int32_t>(arena_.labels) + range.first - call.first;
  args.rows = rows;
  args.samples = range.count;
  args.classes = market_->classes();
  args.ignoring = call.labels->ignore_index.has_value();
  args.ignored = call.labels->ignore_index.value_or(0);
  return args;
}

// The undisturbed market: every stage's input and sums stay, and the losses.
void NodeDevice::run_leader(const NodeCall& call, const TileRange& range) const {
  const std::int64_t first = range.first - call.first;
  auto* scratch = at<std::byte>(arena_.scratch);
  enter(range, first);
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    float* sum = floats(arena_.sum[l]);
    stages_[l].sum->run(device_->info, {range.count, 0, floats(arena_.in[l]), sum, scratch, {}},
                        stream_);
    if (stages_[l].rest)
      stages_[l].rest->run(
          device_->info, {range.count, 0, sum, floats(arena_.in[l + 1]), scratch, {}, 1}, stream_);
  }
  cross_entropy_gpu(
      losses_of(call, range, 1, floats(arena_.sum.back()), floats(arena_.losses) + first),
      device_->info, stream_);
}

// A group of a stage's probes on a tile.
LayerShape NodeDevice::shape_of(std::size_t l, const TileRange& range) const {
  const StageParts& parts = market_->stages[l].parts;
  return {range.count, parts.pixels, parts.channels, arena_.group[l]};
}

// All probes of a stage; leaves the tile's errors.
void NodeDevice::disturb(std::size_t l, const NodeCall& call, const TileRange& range) const {
  const StageParts& parts = market_->stages[l].parts;
  noise_gpu(floats(arena_.sum[l]), range.count, parts.sum_floats, floats(arena_.scale),
            floats(arena_.noise), stream_);
  sign_words_gpu(key(l), range.first, range.count, parts.sign_words(),
                 at<std::uint32_t>(arena_.words), stream_);
  repeat_labels_gpu(at<std::int32_t>(arena_.labels) + range.first - call.first, range.count,
                    arena_.group[l], at<std::int32_t>(arena_.group_labels), stream_);
  for (std::int64_t k = 0; k < parts.probes; k += arena_.group[l]) {
    follow_probes(l, k, range);
    measure(l, call, range);
    collect(l, k, call, range);
  }
}

// The disturbed channels of a group up to the next contraction, all at once; their changes are left
// apart.
void NodeDevice::follow_probes(std::size_t l, std::int64_t first, const TileRange& range) const {
  const LayerShape shape = shape_of(l, range);
  disturb_gpu(floats(arena_.sum[l]), signs(l, first), floats(arena_.noise), shape,
              floats(arena_.noisy), stream_);
  DeviceSegment::Call rest;
  rest.samples = range.count;
  rest.variant = 1 + first;
  rest.in = floats(arena_.noisy);
  rest.out = floats(arena_.out);
  rest.scratch = at<std::byte>(arena_.scratch);
  rest.rows = shape.probes;
  stages_[l].rest->run(device_->info, rest, stream_);
  LayerShape out = shape;
  out.pixels = market_->stages[l].parts.out_pixels;
  planes_gpu(floats(arena_.out), floats(arena_.in[l + 1]), out, market_->stages[l].out_layout(),
             floats(arena_.planes), stream_);
}

// Every disturbed channel alone through the next contraction and on to its losses: rows of
// channels, whose samples are those of every probe.
void NodeDevice::measure(std::size_t l, const NodeCall& call, const TileRange& range) const {
  const StageParts& parts = market_->stages[l].parts;
  const Stage& stage = stages_[l];
  const std::int64_t group = arena_.group[l], samples = group * range.count;
  auto* scratch = at<std::byte>(arena_.scratch);
  float* sums = floats(arena_.spread);
  float* losses = floats(arena_.path_losses);
  stage.spread->run(device_->info, {samples, 0, floats(arena_.planes), sums, scratch, {}}, stream_);
  binary_gpu(DType::float32, false, parts.relu_first, {sums, nullptr},
             {floats(arena_.sum[l + 1]), zeros_.get<std::int32_t>()}, sums, parts.channels * group,
             range.count * element_count(parts.next_sum), stream_);
  CrossEntropyArgs args = losses_of(call, range, parts.channels, sums, losses);
  args.labels = at<std::int32_t>(arena_.group_labels);
  args.samples = samples;
  if (stage.tail) {
    const bool fused = fuses_loss(stage.tail->segment());
    LossArgs loss;
    if (fused) loss = {args.labels, losses, args.ignoring, args.ignored};
    stage.tail->run(device_->info,
                    {samples, 0, sums, fused ? nullptr : floats(arena_.logits), scratch, loss},
                    stream_);
    if (fused) return;
    args.logits = floats(arena_.logits);
  }
  cross_entropy_gpu(args, device_->info, stream_);
}

// What a group's losses tell of the errors and of the channelwise parameters.
void NodeDevice::collect(std::size_t l, std::int64_t first, const NodeCall& call,
                         const TileRange& range) const {
  CollectArgs args;
  args.losses = floats(arena_.path_losses);
  args.base = floats(arena_.losses) + range.first - call.first;
  args.signs = signs(l, first);
  args.shape = shape_of(l, range);
  args.range = range;
  args.errors = floats(arena_.errors);
  args.changes =
      changes() + market_->stages[l].changes_at + first * market_->stages[l].parts.channels;
  args.stride = market_->change_doubles;
  collect_gpu(args, stream_);
}

// Adds the outer product of a stage's errors and its input to the sums of their pieces.
void NodeDevice::add_gradient(std::size_t l, const TileRange& range) const {
  const NodeStage& stage = market_->stages[l];
  const Contraction& c = stage.contraction();
  WeightGradientArgs args(c);
  args.in = floats(arena_.in[l]);
  args.errors = floats(arena_.errors);
  args.noise = stage.parts.last ? nullptr : floats(arena_.noise);
  args.probes = static_cast<float>(stage.parts.probes);
  args.taps = stages_[l].sum->taps() + c.taps_at;
  args.depth = c.depth;
  args.range = range;
  args.partial = gradients() + stage.gradient_at;
  args.partial_stride = market_->gradient_floats;
  weight_gradient_gpu(args, stream_);
}

}  // namespace marketplace::gpu
