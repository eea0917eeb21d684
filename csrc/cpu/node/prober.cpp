#include "cpu/node/prober.h"

#include <algorithm>
#include <cmath>

#include "cpu/losses.h"

namespace marketplace::cpu {
namespace {

double root_mean_square(const float* values, std::int64_t count) {
  double squares = 0;
  for (std::int64_t i = 0; i < count; ++i) squares += static_cast<double>(values[i]) * values[i];
  return std::sqrt(squares / static_cast<double>(count));
}

constexpr std::int64_t kTile = 8;  // samples of a task
constexpr std::int64_t kBlockBytes = 48 << 20;
constexpr double kSilence = 1e-30;  // a root mean square below it says nothing of a layer's size

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
    stages_.push_back(std::make_unique<NodeStage>(models, chain, l, counts, kernels));
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
  std::int64_t scratch = 1, norms = 1, words = 1, sum = 1, out = 1, spread = 1, channels = 1;
  if (entry_) {
    scratch = entry_->scratch_floats(kTile);
    norms = entry_->largest_channels();
  }
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const NodeStage& stage = *stages_[l];
    Kept& kept = kept_[l];
    reserve_floats(kept.in, samples * stage.in_floats);
    reserve_floats(kept.sum, samples * stage.sum_floats);
    kept.noise.resize(samples);
    kept.changes.assign(tasks_of(samples) * stage.probes * stage.channels, 0.0);
    scratch = std::max(scratch, stage.largest_scratch(kTile));
    norms = std::max(norms, stage.largest_channels());
    channels = std::max(channels, stage.channels);
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
    reserve_floats(workspace->statistics, 2 * norms);
    reserve_floats(workspace->words, kTile * words);
    reserve_floats(workspace->noisy, kTile * sum);
    reserve_floats(workspace->errors, kTile * sum);
    reserve_floats(workspace->out, kTile * out);
    reserve_floats(workspace->planes, kTile * out);
    reserve_floats(workspace->spread, kTile * spread);
    reserve_floats(workspace->changes, kTile * channels);
    reserve_floats(workspace->logits, kTile * classes_);
  }
}

double CpuNodeProber::probe(const NodeProbe& probe, const Batch& batch, const Labels& labels,
                            bool add, Directions& gradients) {
  scale_ = probe.scale;
  if (entry_) {
    entry_slice_->refresh(models_);
    entry_->pack(nullptr, 1);
  }
  pool_->run(static_cast<std::int64_t>(stages_.size()), [&](std::int64_t l, int) {
    stages_[l]->prepare(models_, probe.seeds[stages_[l]->spec], probe.scale);
  });
  gradients_.resize(models_.size());
  for (std::size_t i = 0; i < models_.size(); ++i)
    gradients_[i].assign(models_[i]->parameter_count(), 0.0f);
  double total = 0;
  for (std::int64_t first = 0; first < batch.size; first += block_samples_) {
    const Block block{&batch, &labels, first, std::min(block_samples_, batch.size - first)};
    run_block(block);
    for (std::int64_t b = 0; b < block.count; ++b) total += losses_[b];
  }
  std::int64_t counted = batch.size;
  if (labels.ignore_index)
    counted -= std::count(labels.data, labels.data + batch.size, *labels.ignore_index);
  hand_over(1.0f / static_cast<float>(counted), add, gradients);
  return total / static_cast<double>(counted);
}

void CpuNodeProber::hand_over(float share, bool add, Directions& gradients) const {
  for (std::size_t i = 0; i < gradients_.size(); ++i) {
    float* out = add ? gradients[i].data() : gradients[i].overwrite();
    for (std::size_t k = 0; k < gradients_[i].size(); ++k)
      out[k] = (add ? out[k] : 0.0f) + gradients_[i][k] * share;
  }
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

CpuNodeProber::Tile CpuNodeProber::tile_of(const Block& block, std::int64_t task,
                                           int thread) const {
  const std::int64_t first = task * kTile;
  return {block, task, first, std::min(kTile, block.count - first), *workspaces_[thread]};
}

void CpuNodeProber::run_block(const Block& block) {
  reserve(block.count);
  const float* in = load(block);
  const std::int64_t tasks = tasks_of(block.count);
  pool_->run(tasks,
             [&](std::int64_t task, int thread) { run_leader(tile_of(block, task, thread), in); });
  std::vector<std::pair<std::size_t, std::int64_t>> jobs;  // stage, task
  for (std::size_t l = 0; l < stages_.size(); ++l)
    for (std::int64_t task = 0; stages_[l]->probes > 0 && task < tasks; ++task)
      jobs.emplace_back(l, task);
  pool_->run(static_cast<std::int64_t>(jobs.size()), [&](std::int64_t job, int thread) {
    disturb(jobs[job].first, tile_of(block, jobs[job].second, thread));
  });
  gather_gradients(block.count);
}

// One tile through the undisturbed market; keeps inputs and sums, and the output layer's errors.
void CpuNodeProber::run_leader(const Tile& tile, const float* in) {
  float* scratch = floats(tile.workspace.scratch);
  float* statistics = floats(tile.workspace.statistics);
  const auto input_of = [&](std::size_t l) {
    return floats(kept_[l].in) + tile.first * stages_[l]->in_floats;
  };
  in += tile.first * in_floats_;
  if (entry_)
    entry_->run(0, tile.count, in, input_of(0), scratch, statistics);
  else
    std::copy_n(in, tile.count * in_floats_, input_of(0));
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const NodeStage& stage = *stages_[l];
    float* sum = floats(kept_[l].sum) + tile.first * stage.sum_floats;
    stage.run_sum().run(0, tile.count, input_of(l), sum, scratch, statistics);
    if (stage.trained) keep(l, tile);
    if (!stage.last) stage.run_rest().run(0, tile.count, sum, input_of(l + 1), scratch, statistics);
  }
  for_each_loss(kernels_, floats(kept_.back().sum) + tile.first * classes_, classes_, tile.count,
                classes_, first_label(tile), *tile.block.labels,
                [&](std::int64_t b, double loss) { losses_[tile.first + b] = loss; });
  for (std::int64_t b = 0; b < tile.count; ++b) close_form(tile, b);
}

const std::int32_t* CpuNodeProber::first_label(const Tile& tile) {
  return tile.block.labels->data + tile.block.first + tile.first;
}

// What the gradient of a stage needs of a tile: its input, and the size of the noise, in units of
// the layer's own root mean square on the sample.
void CpuNodeProber::keep(std::size_t l, const Tile& tile) {
  const NodeStage& stage = *stages_[l];
  const WeightGradient& gradient = stage.weight_gradient();
  Kept& kept = kept_[l];
  for (std::int64_t b = tile.first; b < tile.first + tile.count; ++b) {
    gradient.store_input(floats(kept.in) + b * stage.in_floats,
                         floats(kept.padded) + b * gradient.input_floats());
    const double rms = root_mean_square(floats(kept.sum) + b * stage.sum_floats, stage.sum_floats);
    kept.noise[b] = scale_ * static_cast<float>(rms < kSilence ? 1.0 : rms);
  }
}

// The derivative of sample b's loss by the logits: softmax minus one-hot.
void CpuNodeProber::close_form(const Tile& tile, std::int64_t b) {
  const std::int64_t sample = tile.first + b;
  const float* logits = floats(kept_.back().sum) + sample * classes_;
  const Labels& labels = *tile.block.labels;
  const std::int32_t label = first_label(tile)[b];
  float* errors = floats(tile.workspace.errors);
  if (labels.ignore_index && label == *labels.ignore_index) {
    std::fill_n(errors, classes_, 0.0f);
  } else {
    const float largest = *std::max_element(logits, logits + classes_);
    double total = 0;
    for (std::int64_t c = 0; c < classes_; ++c) total += errors[c] = std::exp(logits[c] - largest);
    for (std::int64_t c = 0; c < classes_; ++c) errors[c] = static_cast<float>(errors[c] / total);
    errors[label] -= 1.0f;
  }
  stages_.back()->weight_gradient().store_errors(errors, 1.0f, sample, tile.block.count,
                                                 floats(kept_.back().panel));
}

// All probes of a stage on one tile; leaves the tile's errors in the panel.
void CpuNodeProber::disturb(std::size_t l, const Tile& tile) {
  const NodeStage& stage = *stages_[l];
  Kept& kept = kept_[l];
  const float* changes = floats(tile.workspace.changes);  // (count, channels)
  float* errors = floats(tile.workspace.errors);
  std::fill_n(errors, tile.count * stage.sum_floats, 0.0f);
  draw_signs(l, tile);
  for (std::int64_t k = 0; k < stage.probes; ++k) {
    add_noise(l, k, tile);
    follow(l, k, tile);
    double* sums = kept.changes.data() + (tile.task * stage.probes + k) * stage.channels;
    for (std::int64_t b = 0; b < tile.count; ++b) {
      const float* own = changes + b * stage.channels;
      kernels_.accumulate_signs(own, signs_of(stage, k, b, tile), stage.pixels, stage.channels,
                                errors + b * stage.sum_floats);
      for (std::int64_t c = 0; c < stage.channels; ++c) sums[c] += own[c];
    }
  }
  for (std::int64_t b = 0; b < tile.count; ++b) {
    const std::int64_t sample = tile.first + b;
    const float scale = 1.0f / (static_cast<float>(stage.probes) * kept.noise[sample]);
    stage.weight_gradient().store_errors(errors + b * stage.sum_floats, scale, sample,
                                         tile.block.count, floats(kept.panel));
  }
}

// The random signs of a tile, which all probes share.
void CpuNodeProber::draw_signs(std::size_t l, const Tile& tile) {
  const NodeStage& stage = *stages_[l];
  auto* words = reinterpret_cast<std::uint32_t*>(tile.workspace.words.get());
  const std::int64_t first = tile.block.first + tile.first;
  for (std::int64_t b = 0; b < tile.count; ++b, words += stage.sign_words())
    kernels_.random_words(stage.key(), static_cast<std::uint32_t>(first + b), stage.sign_words(),
                          words);
}

// Of sample b of a tile in a probe.
ProbeSigns CpuNodeProber::signs_of(const NodeStage& stage, std::int64_t probe, std::int64_t b,
                                   const Tile& tile) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(tile.workspace.words.get());
  return {words + b * stage.sign_words(), static_cast<std::uint32_t>(probe), stage.columns};
}

// Disturbs every sum of a tile.
void CpuNodeProber::add_noise(std::size_t l, std::int64_t probe, const Tile& tile) {
  const NodeStage& stage = *stages_[l];
  float* noisy = floats(tile.workspace.noisy);
  for (std::int64_t b = 0; b < tile.count; ++b) {
    const std::int64_t sample = tile.first + b;
    kernels_.add_signs(floats(kept_[l].sum) + sample * stage.sum_floats,
                       signs_of(stage, probe, b, tile), kept_[l].noise[sample], stage.pixels,
                       stage.channels, noisy + b * stage.sum_floats);
  }
}

// The disturbed channels of a tile up to the next contraction, all at once, and from there on each
// alone to its loss.
void CpuNodeProber::follow(std::size_t l, std::int64_t probe, const Tile& tile) {
  const NodeStage& stage = *stages_[l];
  Workspace& workspace = tile.workspace;
  stage.run_rest().run(probe + 1, tile.count, floats(workspace.noisy), floats(workspace.out),
                       floats(workspace.scratch), floats(workspace.statistics));
  const float* out = floats(workspace.out);
  const float* base = floats(kept_[l + 1].in) + tile.first * stage.out_floats;
  const std::int64_t each = stage.out_pixels;
  float* plane = floats(workspace.planes);  // (channels, count, out_pixels)
  for (std::int64_t c = 0; c < stage.channels; ++c)
    for (std::int64_t b = 0; b < tile.count; ++b, plane += each) {
      const std::int64_t at = b * stage.out_floats + c * each;
      for (std::int64_t p = 0; p < each; ++p) plane[p] = out[at + p] - base[at + p];
    }
  for (std::int64_t c = 0; c < stage.channels; ++c) measure(l, c, tile);
}

// The loss changes of one disturbed channel on a tile.
void CpuNodeProber::measure(std::size_t l, std::int64_t channel, const Tile& tile) {
  const NodeStage& stage = *stages_[l];
  Workspace& workspace = tile.workspace;
  const std::int64_t next = stages_[l + 1]->sum_floats;
  float* sum = floats(workspace.spread);
  float* scratch = floats(workspace.scratch);
  stage.run_spread().run(channel, tile.count,
                         floats(workspace.planes) + channel * tile.count * stage.out_pixels, sum,
                         scratch, nullptr);
  kernels_.float32.add(floats(kept_[l + 1].sum) + tile.first * next, sum, sum, tile.count * next,
                       stage.relu_first);
  const float* logits = sum;
  if (stage.run_tail()) {
    stage.run_tail()->run(0, tile.count, sum, floats(workspace.logits), scratch,
                          floats(workspace.statistics));
    logits = floats(workspace.logits);
  }
  float* changes = floats(workspace.changes) + channel;
  for_each_loss(kernels_, logits, classes_, tile.count, classes_, first_label(tile),
                *tile.block.labels, [&](std::int64_t b, double loss) {
                  changes[b * stage.channels] = static_cast<float>(loss - losses_[tile.first + b]);
                });
}

void CpuNodeProber::gather_gradients(std::int64_t count) {
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
    stage.add_contraction(floats(kept_[l].gradient), floats(kept_[l].panel), count, gradients_,
                          models_);
    if (stage.last) continue;
    std::vector<double> sums(stage.probes * stage.channels, 0.0);
    for (std::size_t i = 0; i < kept_[l].changes.size(); ++i)
      sums[i % sums.size()] += kept_[l].changes[i];
    stage.add_channelwise(sums, gradients_, models_);
  }
}

}  // namespace marketplace::cpu
