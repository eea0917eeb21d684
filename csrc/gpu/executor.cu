#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "gpu/checksum.h"
#include "gpu/executor.h"
#include "gpu/incoming.h"
#include "gpu/update.h"

namespace marketplace::gpu {
namespace {

constexpr std::uint64_t kUpdatesPerCheck = 64;

}  // namespace

std::shared_ptr<const Lowered> lower_market(const std::vector<std::shared_ptr<Model>>& models,
                                            const Shape& input_shape, DType dtype) {
  auto lowered = std::make_shared<Lowered>();
  lowered->models = models;
  Shape shape = input_shape;
  Layout layout;
  for (std::size_t i = 0; i < models.size(); ++i) {
    lowered->programs.push_back(lower(*models[i], shape, layout, i + 1 == models.size(), dtype));
    shape = lowered->programs.back().output_shape;
    layout = lowered->programs.back().output_layout;
  }
  return lowered;
}

GpuExecutor::GpuExecutor(const std::vector<std::shared_ptr<Model>>& models,
                         const Shape& input_shape, std::shared_ptr<Team> team)
    : lowered_(lower_market(models, input_shape, team->device(0)->dtype)), team_(std::move(team)) {
  for (std::size_t d = 0; d < team_->size(); ++d)
    devices_.push_back(std::make_unique<DeviceExecutor>(lowered_, team_, d));
}

void GpuExecutor::share_out(const Plan& plan, bool statistics) {
  if (!parts_.empty() && statistics == statistics_ && plan == plan_) return;
  std::vector<std::int64_t> leaders(plan.levels.size(), -1), flops;
  if (statistics) leaders = leader_rows(plan);
  for (const Program& program : lowered_->programs) flops.push_back(program.flops);
  parts_ = split_plan(plan, flops, static_cast<std::int64_t>(devices_.size()), leaders);
  plan_ = plan;
  statistics_ = statistics;
}

// What each device runs of a call: its part of the plan, on the weights that it keeps.
std::vector<Request> GpuExecutor::requests_for(const Request& whole) {
  const auto guard = team_->lock();
  std::vector<Request> requests(parts_.size(), whole);
  for (std::size_t d = 0; d < parts_.size(); ++d) {
    requests[d].plan = &parts_[d].plan;
    requests[d].leaders = parts_[d].leaders;
  }
  std::vector<std::shared_ptr<Resident>> bases;
  for (std::size_t i = 0; i < lowered_->models.size(); ++i) {
    const Vector& base = lowered_->models[i]->weights();
    const VendorWeights& vendors = (*whole.weights)[i];
    const bool scaled = vendors.kind == VendorWeights::Kind::scaled && !base.empty();
    const auto held = base.empty() ? nullptr : team_->bring(base);
    const auto direction = scaled ? team_->bring(*vendors.values) : nullptr;
    for (std::size_t d = 0; d < parts_.size(); ++d) {
      requests[d].bases.push_back(held ? held->at(d) : nullptr);
      requests[d].directions.push_back(direction ? direction->at(d) : nullptr);
    }
    if (held) bases.push_back(held);
  }
  watch(bases);
  return requests;
}

// Now and then all devices compare what they have.
void GpuExecutor::watch(const std::vector<std::shared_ptr<Resident>>& bases) {
  std::vector<std::uint64_t> versions;
  for (const auto& model : lowered_->models) versions.push_back(model->weights().version());
  if (versions == versions_) return;
  versions_.clear();
  if (team_->size() > 1 && updates_++ % kUpdatesPerCheck == 0) compare_devices(*team_, bases);
  versions_ = std::move(versions);
}

void GpuExecutor::losses(const Plan& plan, const std::vector<VendorWeights>& weights,
                         const Batch& batch, const Labels& labels, float* losses,
                         LeaderStatistics* leader) {
  share_out(plan, leader != nullptr);
  const std::vector<Request> requests =
      requests_for({&plan, &weights, &batch, &labels, false, {}, {}, {}});
  for (std::size_t d = 0; d < parts_.size(); ++d) devices_[d]->start_losses(requests[d]);
  for (std::size_t d = 0; d < parts_.size(); ++d) devices_[d]->wait();
  read_losses(losses, leader);
}

void GpuExecutor::read_losses(float* losses, LeaderStatistics* leader) {
  if (leader) leader->assign(lowered_->programs.size(), {});
  for (std::size_t d = 0; d < parts_.size(); ++d) {
    std::vector<float> mine(parts_[d].paths.size());
    devices_[d]->read_losses(mine.data(), leader);
    for (std::size_t p = 0; p < mine.size(); ++p) losses[parts_[d].paths[p]] = mine[p];
  }
}

// What scores these losses on every device; false where no memory is left for it.
bool GpuExecutor::has_scorer(const Scoring& scoring) {
  if (scorer_ && scorer_->serves(scoring, parts_)) return true;
  scorer_.reset();
  try {
    scorer_ = std::make_unique<Scorer>(team_, scoring, parts_);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::memory) throw;
  }
  return scorer_ != nullptr;
}

// A call is made step by step the first time, as its kernels are recorded when it comes again, and
// where the memory for more is wanting.
std::optional<bool> GpuExecutor::step(const Plan& plan, const std::vector<VendorWeights>& weights,
                                      const Batch& batch, const Labels& labels,
                                      const StepUpdate& update, float* losses,
                                      LeaderStatistics* leader) {
  const auto guard = team_->lock();
  share_out(plan, leader != nullptr);
  const std::vector<Request> requests =
      requests_for({&plan, &weights, &batch, &labels, false, {}, {}, {}});
  for (std::size_t d = 0; d < parts_.size(); ++d)
    if (!devices_[d]->knows(requests[d])) return std::nullopt;
  if (!has_scorer(update.scoring)) return std::nullopt;
  team_->together([&] { gather_step(requests, update); });
  team_->wait();
  read_losses(losses, leader);
  return devices_[0]->read_verdict().degenerate != 0;
}

void GpuExecutor::gather_step(const std::vector<Request>& requests, const StepUpdate& update) {
  add_probe(requests);
  scorer_->add_tasks();
  team_->obey(scorer_->verdicts());
  update.work([&](std::size_t spec, Vector& out) {
    if (!out.empty())
      combine(*team_, *lowered_->models[spec], (*requests[0].weights)[spec],
              scorer_->coefficients(spec), out);
  });
  add_fetch();
}

void GpuExecutor::add_probe(const std::vector<Request>& requests) {
  Task task;
  for (std::size_t d = 0; d < parts_.size(); ++d) {
    devices_[d]->bring(requests[d]);
    const std::vector<std::uint64_t> key = devices_[d]->step_key();
    task.key.insert(task.key.end(), key.begin(), key.end());
  }
  task.launch = [this](const OnDevice& place) {
    if (place.device < parts_.size())
      devices_[place.device]->record_losses(place.stream, scorer_->losses(place.device));
  };
  team_->add(std::move(task));
}

// The first device tells what all of them found.
void GpuExecutor::add_fetch() {
  Task task;
  task.key = {0};
  task.launch = [this](const OnDevice& place) {
    if (place.device < parts_.size())
      devices_[place.device]->record_fetch(place.stream,
                                           place.device == 0 ? place.verdict : nullptr);
  };
  team_->add(std::move(task));
}

namespace {

// work(0) .. work(count - 1) by a thread each: they wait for their devices. The first error of the
// lowest number is thrown once all are done.
template <class Work>
void at_once(std::size_t count, Work work) {
  std::vector<std::exception_ptr> errors(count);
  const auto guarded = [&](std::size_t i) {
    try {
      work(i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < count; ++i) others.emplace_back(guarded, i);
    guarded(0);
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace

void GpuExecutor::run_forward(const Request& request, const Output& out, LeaderStatistics* leader,
                              const std::vector<std::int64_t>* order) {
  share_out(*request.plan, leader != nullptr);
  const std::vector<Request> requests = requests_for(request);
  if (leader) leader->assign(lowered_->programs.size(), {});
  at_once(parts_.size(), [&](std::size_t d) {
    devices_[d]->forward(requests[d], out, parts_[d].paths.data(), leader, order);
  });
}

void GpuExecutor::forward(const Plan& plan, const std::vector<VendorWeights>& weights,
                          const Batch& batch, const Output& out, LeaderStatistics* leader) {
  run_forward({&plan, &weights, &batch, nullptr, false, {}, {}, {}}, out, leader);
}

void GpuExecutor::infer(const Batch& batch, const Output& out) {
  Plan plan;
  plan.levels.assign(lowered_->programs.size(), {{0}, {0}});
  const std::vector<VendorWeights> weights(lowered_->programs.size());
  run_forward({&plan, &weights, &batch, nullptr, true, {}, {}, {}}, out, nullptr);
}

namespace {

// Samples by their paths, so that those of one vendor are neighbours.
std::vector<std::int64_t> path_order(const std::int32_t* paths, std::int64_t samples,
                                     std::int64_t depth) {
  std::vector<std::int64_t> order(samples);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    const std::int32_t *mine = paths + a * depth, *other = paths + b * depth;
    const auto [x, y] = std::mismatch(mine, mine + depth, other);
    return x == mine + depth ? a < b : *x < *y;
  });
  return order;
}

// One row per sample of each spec: its own input, then its own vendors.
Plan sample_plan(const std::int32_t* paths, const std::vector<std::int64_t>& order,
                 std::size_t depth) {
  Plan plan;
  plan.input_count = static_cast<std::int64_t>(order.size());
  plan.levels.resize(depth);
  for (std::size_t r = 0; r < order.size(); ++r)
    for (std::size_t i = 0; i < depth; ++i) {
      plan.levels[i].vendor.push_back(paths[order[r] * static_cast<std::int64_t>(depth) + i]);
      plan.levels[i].parent.push_back(static_cast<std::int32_t>(r));
    }
  return plan;
}

// The samples in another order.
std::vector<std::byte> reordered(const Batch& batch, const std::vector<std::int64_t>& order) {
  const auto bytes =
      static_cast<std::size_t>(element_count(batch.sample_shape) * size_bytes(batch.dtype));
  std::vector<std::byte> samples(order.size() * bytes);
  for (std::size_t r = 0; r < order.size(); ++r)
    if (bytes > 0)
      std::memcpy(samples.data() + r * bytes,
                  static_cast<const std::byte*>(batch.data) + order[r] * bytes, bytes);
  return samples;
}

float cross_entropy(const float* x, std::int64_t classes, std::int32_t label) {
  const float largest = *std::max_element(x, x + classes);
  float sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(x[c] - largest);
  return std::log(sum) + (largest - x[label]);
}

}  // namespace

void GpuExecutor::forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                                const std::int32_t* paths, const SampleResults& results) {
  const std::size_t depth = lowered_->programs.size();
  const std::int64_t each = lowered_->programs.back().output_size;
  const auto order = path_order(paths, batch.size, static_cast<std::int64_t>(depth));
  const Plan plan = sample_plan(paths, order, depth);
  std::vector<std::byte> samples;
  DeviceMemory samples_there;
  Batch rows{nullptr, batch.dtype, 1, batch.sample_shape, kHost};
  if (batch.device == kHost) {
    samples = reordered(batch, order);
    rows.data = samples.data();
  } else {
    Device& first = *team_->device(0);
    samples_there = gather_samples(batch, order, first);
    rows.data = samples_there.get();
    rows.device = first.index;
  }
  std::vector<float> values(batch.size * each);
  run_forward({&plan, &weights, &rows, nullptr, true, {}, {}, {}}, values.data(), nullptr, &order);
  for (std::int64_t r = 0; r < batch.size; ++r) {
    const float* mine = values.data() + r * each;
    const std::int64_t b = order[r];
    if (results.out) std::copy_n(mine, each, results.out + b * each);
    if (results.losses == nullptr) continue;
    const std::int32_t label = results.labels->data[b];
    const bool ignored = results.labels->ignore_index == label;
    results.losses[b] = ignored ? 0.0f : cross_entropy(mine, each, label);
  }
}

}  // namespace marketplace::gpu
