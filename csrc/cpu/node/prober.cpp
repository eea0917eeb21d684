#include "cpu/node/prober.h"

#include <algorithm>
#include <cmath>

namespace marketplace::cpu {
namespace {

double root_mean_square(const float* values, std::int64_t count) {
  double squares = 0;
  for (std::int64_t i = 0; i < count; ++i) squares += static_cast<double>(values[i]) * values[i];
  return std::sqrt(squares / static_cast<double>(count));
}

constexpr std::int64_t kTile = 8;  // samples of a task
constexpr std::int64_t kBlockBytes = 48 << 20;

float* floats(const Buffer& buffer) {
  return reinterpret_cast<float*>(buffer.get());
}

void reserve_floats(Buffer& buffer, std::int64_t count) {
  buffer.reserve(std::max<std::int64_t>(64, count * 4));
}

std::int64_t tasks_of(std::int64_t samples) {
  return (samples + kTile - 1) / kTile;
}

}  // namespace

CpuNodeProber::CpuNodeProber(Backend& backend, const Models& models,
                             const std::vector<std::int64_t>& counts, const Shape& input_shape,
                             const KernelTable& kernels, std::shared_ptr<ThreadPool> pool)
    : models_(models),
      kernels_(kernels),
      pool_(std::move(pool)),
      first_spec_(first_trained(counts)),
      chain_shape_(input_shape) {
  const auto first = static_cast<std::size_t>(first_spec_);
  for (std::size_t i = 0; i < first; ++i)
    chain_shape_ = infer_shapes(models[i]->graph(), chain_shape_)[models[i]->graph().output];
  if (first > 0)
    prefix_ = backend.compile({models.begin(), models.begin() + first_spec_}, input_shape);
  const Chain chain = make_chain(models, static_cast<int>(first_spec_), chain_shape_);
  if (!chain.entry.empty()) {
    entry_slice_ = std::make_unique<Slice>(models, chain.entry);
    entry_ =
        std::make_unique<Segment>(kernels, chain_shape_, Layout{}, true, entry_slice_->model());
  }
  std::int64_t sample_floats = 0;
  for (std::size_t l = 0; l < chain.stages.size(); ++l) {
    const std::int64_t probes = counts[chain.stages[l].contraction.spec] - 1;
    stages_.push_back(std::make_unique<NodeStage>(models, chain, l, probes, kernels));
    const NodeStage& stage = *stages_.back();
    sample_floats += 2 * stage.in_floats + 2 * stage.sum_floats;
  }
  kept_.resize(stages_.size());
  classes_ = stages_.back()->sum_floats;
  in_floats_ = element_count(chain_shape_);
  block_samples_ = std::max<std::int64_t>(1, kBlockBytes / (4 * sample_floats) / kTile) * kTile;
  for (int t = 0; t < pool_->threads(); ++t) workspaces_.push_back(std::make_unique<Workspace>());
}

void CpuNodeProber::reserve(std::int64_t samples) {
  reserve_floats(input_, samples * in_floats_);
  losses_.resize(samples);
  std::int64_t scratch = 1, channels = 1, words = 1, sum = 1, out = 1, spread = 1;
  if (entry_) {
    scratch = entry_->scratch_floats(kTile);
    channels = entry_->largest_channels();
  }
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const NodeStage& stage = *stages_[l];
    Kept& kept = kept_[l];
    reserve_floats(kept.in, samples * stage.in_floats);
    reserve_floats(kept.sum, samples * stage.sum_floats);
    kept.noise.resize(samples);
    kept.changes.assign(tasks_of(samples) * stage.probes * stage.channels, 0.0);
    scratch = std::max(scratch, stage.largest_scratch(kTile));
    channels = std::max(channels, stage.largest_channels());
    words = std::max(words, stage.sign_words());
    sum = std::max(sum, stage.sum_floats);
    out = std::max(out, stage.out_floats);
    if (stage.probes > 0) spread = std::max(spread, stages_[l + 1]->sum_floats);
    if (!stage.trained) continue;
    reserve_floats(kept.padded, samples * stage.weight_gradient().input_floats());
    reserve_floats(kept.panel, stage.weight_gradient().panel_floats(samples));
    reserve_floats(kept.gradient, stage.weight_gradient().result_floats());
  }
  for (auto& workspace : workspaces_) {
    reserve_floats(workspace->scratch, scratch);
    reserve_floats(workspace->statistics, 2 * channels);
    reserve_floats(workspace->words, kTile * words);
    reserve_floats(workspace->noisy, kTile * sum);
    reserve_floats(workspace->errors, kTile * sum);
    reserve_floats(workspace->out, kTile * out);
    reserve_floats(workspace->planes, kTile * out);
    reserve_floats(workspace->spread, kTile * spread);
    reserve_floats(workspace->logits, kTile * classes_);
  }
}

double CpuNodeProber::probe(const NodeProbe& probe, const Batch& batch, const Labels& labels,
                            std::vector<std::vector<float>>& gradients) {
  scale_ = probe.scale;
  if (entry_) {
    entry_slice_->refresh(models_);
    entry_->pack(nullptr, 1);
  }
  pool_->run(static_cast<std::int64_t>(stages_.size()), [&](std::int64_t l, int) {
    stages_[l]->prepare(models_, probe.seeds[stages_[l]->spec], probe.scale);
  });
  gradients.resize(models_.size());
  for (std::size_t i = 0; i < models_.size(); ++i)
    gradients[i].assign(models_[i]->parameter_count(), 0.0f);
  double total = 0;
  for (std::int64_t first = 0; first < batch.size; first += block_samples_) {
    const Block block{&batch, &labels, first, std::min(block_samples_, batch.size - first)};
    run_block(block, gradients);
    for (std::int64_t b = 0; b < block.count; ++b) total += losses_[b];
  }
  std::int64_t counted = batch.size;
  if (labels.ignore_index)
    counted -= std::count(labels.data, labels.data + batch.size, *labels.ignore_index);
  const auto share = 1.0f / static_cast<float>(counted);
  for (auto& gradient : gradients)
    for (float& value : gradient) value *= share;
  return total / static_cast<double>(counted);
}

// The block's samples at the chain's door, row-major float32.
const float* CpuNodeProber::load(const Block& block) {
  const Batch& batch = *block.batch;
  const std::int64_t each = element_count(batch.sample_shape);
  const std::int64_t bytes = batch.dtype == DType::uint8 ? 1 : 4;
  Batch part = batch;
  part.data = static_cast<const std::byte*>(batch.data) + block.first * each * bytes;
  part.size = block.count;
  float* out = floats(input_);
  if (prefix_)
    prefix_->infer(part, out);
  else if (batch.dtype == DType::uint8)
    kernels_.float32.from_uint8(static_cast<const std::uint8_t*>(part.data), out,
                                block.count * each);
  else
    std::copy_n(static_cast<const float*>(part.data), block.count * each, out);
  return out;
}

void CpuNodeProber::run_block(const Block& block, std::vector<std::vector<float>>& gradients) {
  reserve(block.count);
  const float* in = load(block);
  const std::int64_t tasks = tasks_of(block.count);
  pool_->run(tasks, [&](std::int64_t task, int thread) {
    const std::int64_t first = task * kTile;
    run_leader(block, in, first, std::min(kTile, block.count - first), *workspaces_[thread]);
  });
  std::vector<std::pair<std::size_t, std::int64_t>> jobs;  // stage, task
  for (std::size_t l = 0; l < stages_.size(); ++l)
    for (std::int64_t task = 0; stages_[l]->probes > 0 && task < tasks; ++task)
      jobs.emplace_back(l, task);
  pool_->run(static_cast<std::int64_t>(jobs.size()), [&](std::int64_t job, int thread) {
    disturb(block, jobs[job].first, jobs[job].second, *workspaces_[thread]);
  });
  gather_gradients(block.count, gradients);
}

// One tile through the undisturbed market; keeps inputs and sums, and the output layer's errors.
void CpuNodeProber::run_leader(const Block& block, const float* in, std::int64_t first,
                               std::int64_t count, Workspace& workspace) {
  float* scratch = floats(workspace.scratch);
  float* statistics = floats(workspace.statistics);
  const auto input_of = [&](std::size_t l) {
    return floats(kept_[l].in) + first * stages_[l]->in_floats;
  };
  const float* tile = in + first * in_floats_;
  if (entry_)
    entry_->run(0, count, tile, input_of(0), scratch, statistics);
  else
    std::copy_n(tile, count * in_floats_, input_of(0));
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const NodeStage& stage = *stages_[l];
    float* sum = floats(kept_[l].sum) + first * stage.sum_floats;
    stage.sum().run(0, count, input_of(l), sum, scratch, statistics);
    if (stage.trained) keep(l, first, count);
    if (!stage.last) stage.channelwise().run(0, count, sum, input_of(l + 1), scratch, statistics);
  }
  for (std::int64_t b = first; b < first + count; ++b)
    close_form(block, b, floats(kept_.back().sum) + b * classes_);
}

// What the gradient of a stage needs of a tile: its input, and the size of the noise, in units of
// the layer's own root mean square on the sample.
void CpuNodeProber::keep(std::size_t l, std::int64_t first, std::int64_t count) {
  const NodeStage& stage = *stages_[l];
  Kept& kept = kept_[l];
  for (std::int64_t b = first; b < first + count; ++b) {
    stage.weight_gradient().store_input(
        floats(kept.in) + b * stage.in_floats,
        floats(kept.padded) + b * stage.weight_gradient().input_floats());
    const double rms = root_mean_square(floats(kept.sum) + b * stage.sum_floats, stage.sum_floats);
    kept.noise[b] = scale_ * static_cast<float>(rms > 0 ? rms : 1.0);
  }
}

double CpuNodeProber::loss(const Block& block, std::int64_t sample, const float* logits) const {
  const Labels& labels = *block.labels;
  return kernels_.cross_entropy({logits, classes_, 1, classes_, labels.data + block.first + sample,
                                 labels.ignore_index.has_value(), labels.ignore_index.value_or(0),
                                 0.0});
}

// Loss, and its derivative by the logits: softmax minus one-hot.
void CpuNodeProber::close_form(const Block& block, std::int64_t sample, const float* logits) {
  losses_[sample] = loss(block, sample, logits);
  const Labels& labels = *block.labels;
  const std::int32_t label = labels.data[block.first + sample];
  std::vector<float> errors(classes_, 0.0f);
  if (!(labels.ignore_index && label == *labels.ignore_index)) {
    const float largest = *std::max_element(logits, logits + classes_);
    double total = 0;
    for (std::int64_t c = 0; c < classes_; ++c) total += std::exp(logits[c] - largest);
    for (std::int64_t c = 0; c < classes_; ++c)
      errors[c] = static_cast<float>(std::exp(logits[c] - largest) / total);
    errors[label] -= 1.0f;
  }
  stages_.back()->weight_gradient().store_errors(errors.data(), 1.0f, sample, block.count,
                                                 floats(kept_.back().panel));
}

// All probes of a stage on one tile; leaves the tile's errors in the panel.
void CpuNodeProber::disturb(const Block& block, std::size_t l, std::int64_t task,
                            Workspace& workspace) {
  const NodeStage& stage = *stages_[l];
  const std::int64_t first = task * kTile, count = std::min(kTile, block.count - first);
  float* errors = floats(workspace.errors);
  std::fill_n(errors, count * stage.sum_floats, 0.0f);
  for (std::int64_t k = 0; k < stage.probes; ++k) {
    follow(block, l, first, count, k, workspace);
    const float* changes = floats(workspace.noisy);  // (count, channels), see follow
    double* sums = kept_[l].changes.data() + (task * stage.probes + k) * stage.channels;
    for (std::int64_t b = 0; b < count; ++b) {
      const auto* words = reinterpret_cast<const std::uint32_t*>(workspace.words.get());
      kernels_.accumulate_signs(changes + b * stage.channels, words + b * stage.sign_words(),
                                stage.pixels, stage.channels, errors + b * stage.sum_floats);
      for (std::int64_t c = 0; c < stage.channels; ++c) sums[c] += changes[b * stage.channels + c];
    }
  }
  for (std::int64_t b = 0; b < count; ++b) {
    const float scale = 1.0f / (static_cast<float>(stage.probes) * kept_[l].noise[first + b]);
    stage.weight_gradient().store_errors(errors + b * stage.sum_floats, scale, first + b,
                                         block.count, floats(kept_[l].panel));
  }
}

// Disturbs all channels of a tile at once, then follows each alone to its loss. The loss changes,
// (count, channels), take the place of the disturbed values.
void CpuNodeProber::follow(const Block& block, std::size_t l, std::int64_t first,
                           std::int64_t count, std::int64_t k, Workspace& workspace) {
  const NodeStage& stage = *stages_[l];
  auto* words = reinterpret_cast<std::uint32_t*>(workspace.words.get());
  for (std::int64_t b = 0; b < count; ++b) {
    std::uint32_t* own = words + b * stage.sign_words();
    const auto sample = static_cast<std::uint32_t>(block.first + first + b);
    kernels_.random_words(stage.key(k), sample, stage.sign_words(), own);
    kernels_.add_signs(floats(kept_[l].sum) + (first + b) * stage.sum_floats, own,
                       kept_[l].noise[first + b], stage.pixels, stage.channels,
                       floats(workspace.noisy) + b * stage.sum_floats);
  }
  stage.channelwise().run(k + 1, count, floats(workspace.noisy), floats(workspace.out),
                          floats(workspace.scratch), floats(workspace.statistics));
  const float* base = floats(kept_[l + 1].in) + first * stage.out_floats;
  const std::int64_t each = stage.out_pixels;
  for (std::int64_t c = 0; c < stage.channels; ++c)
    for (std::int64_t b = 0; b < count; ++b) {
      const std::int64_t at = b * stage.out_floats + c * each;
      float* plane = floats(workspace.planes) + (c * count + b) * each;
      for (std::int64_t p = 0; p < each; ++p)
        plane[p] = floats(workspace.out)[at + p] - base[at + p];
    }
  for (std::int64_t c = 0; c < stage.channels; ++c) measure(block, l, first, count, c, workspace);
}

// The loss changes of one disturbed channel on a tile.
void CpuNodeProber::measure(const Block& block, std::size_t l, std::int64_t first,
                            std::int64_t count, std::int64_t channel, Workspace& workspace) {
  const NodeStage& stage = *stages_[l];
  const std::int64_t sum = stages_[l + 1]->sum_floats;
  float* spread = floats(workspace.spread);
  float* scratch = floats(workspace.scratch);
  stage.spread().run(channel, count, floats(workspace.planes) + channel * count * stage.out_pixels,
                     spread, scratch, nullptr);
  kernels_.float32.add(floats(kept_[l + 1].sum) + first * sum, spread, spread, count * sum,
                       stage.relu_first());
  const float* logits = spread;
  if (stage.tail()) {
    stage.tail()->run(0, count, spread, floats(workspace.logits), scratch,
                      floats(workspace.statistics));
    logits = floats(workspace.logits);
  }
  float* changes = floats(workspace.noisy);
  for (std::int64_t b = 0; b < count; ++b)
    changes[b * stage.channels + channel] =
        static_cast<float>(loss(block, first + b, logits + b * classes_) - losses_[first + b]);
}

void CpuNodeProber::gather_gradients(std::int64_t count,
                                     std::vector<std::vector<float>>& gradients) {
  std::vector<std::pair<std::size_t, std::int64_t>> jobs;
  for (std::size_t l = 0; l < stages_.size(); ++l)
    for (std::int64_t t = 0; stages_[l]->trained && t < stages_[l]->weight_gradient().task_count();
         ++t)
      jobs.emplace_back(l, t);
  pool_->run(static_cast<std::int64_t>(jobs.size()), [&](std::int64_t job, int) {
    const auto [l, task] = jobs[job];
    stages_[l]->weight_gradient().run(task, count, floats(kept_[l].padded), floats(kept_[l].panel),
                                      floats(kept_[l].gradient));
  });
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const NodeStage& stage = *stages_[l];
    if (!stage.trained) continue;
    stage.add_contraction(floats(kept_[l].gradient), floats(kept_[l].panel), count, gradients,
                          models_);
    if (stage.last) continue;
    std::vector<double> sums(stage.probes * stage.channels, 0.0);
    for (std::size_t i = 0; i < kept_[l].changes.size(); ++i)
      sums[i % sums.size()] += kept_[l].changes[i];
    stage.add_channelwise(sums, gradients, models_);
  }
}

}  // namespace marketplace::cpu
