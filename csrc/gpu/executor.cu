#include "gpu/executor.h"

#include "core/error.h"
#include "gpu/checksum.h"

namespace marketplace::gpu {
namespace {

constexpr std::uint64_t kUpdatesPerCheck = 64;

std::shared_ptr<const Lowered> lower_all(const std::vector<std::shared_ptr<Model>>& models,
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

bool same_plan(const Plan& a, const Plan& b) {
  if (a.levels.size() != b.levels.size() || a.input_count != b.input_count) return false;
  for (std::size_t i = 0; i < a.levels.size(); ++i)
    if (a.levels[i].vendor != b.levels[i].vendor || a.levels[i].parent != b.levels[i].parent)
      return false;
  return true;
}

}  // namespace

GpuExecutor::GpuExecutor(const std::vector<std::shared_ptr<Model>>& models,
                         const Shape& input_shape,
                         const std::vector<std::shared_ptr<Device>>& devices)
    : lowered_(lower_all(models, input_shape, devices[0]->dtype)) {
  for (const auto& device : devices)
    devices_.push_back(std::make_unique<DeviceExecutor>(lowered_, device));
}

void GpuExecutor::share_out(const Plan& plan, bool statistics) {
  if (!parts_.empty() && statistics == statistics_ && same_plan(plan, plan_)) return;
  std::vector<std::int64_t> leaders(plan.levels.size(), -1), flops;
  if (statistics) leaders = leader_rows(plan);
  for (const Program& program : lowered_->programs) flops.push_back(program.flops);
  parts_ = split_plan(plan, flops, static_cast<std::int64_t>(devices_.size()), leaders);
  plan_ = plan;
  statistics_ = statistics;
}

// The host's weights go to the first device, and from there to the others; now and then all compare
// what they have.
void GpuExecutor::bring_weights() {
  std::vector<std::uint64_t> versions;
  for (const auto& model : lowered_->models) versions.push_back(model->version());
  if (versions == versions_) return;
  versions_.clear();
  devices_[0]->update_weights();
  for (std::size_t d = 1; d < devices_.size(); ++d) devices_[d]->update_weights(*devices_[0]);
  if (devices_.size() > 1 && updates_++ % kUpdatesPerCheck == 0) compare_weights(devices_);
  versions_ = std::move(versions);
}

void GpuExecutor::losses(const Plan& plan, const std::vector<VendorWeights>& weights,
                         const Batch& batch, const Labels& labels, float* losses,
                         LeaderStatistics* leader) {
  share_out(plan, leader != nullptr);
  bring_weights();
  if (leader) leader->assign(lowered_->programs.size(), {});
  for (std::size_t d = 0; d < parts_.size(); ++d)
    devices_[d]->start_losses({&parts_[d].plan, &weights, &batch, &labels, false,
                               parts_[d].leaders});
  for (std::size_t d = 0; d < parts_.size(); ++d) {
    std::vector<float> mine(parts_[d].paths.size());
    devices_[d]->finish_losses(mine.data(), leader);
    for (std::size_t p = 0; p < mine.size(); ++p) losses[parts_[d].paths[p]] = mine[p];
  }
}

void GpuExecutor::run_forward(const Request& request, float* out, LeaderStatistics* leader) {
  share_out(*request.plan, leader != nullptr);
  bring_weights();
  if (leader) leader->assign(lowered_->programs.size(), {});
  for (std::size_t d = 0; d < parts_.size(); ++d) {
    Request mine = request;
    mine.plan = &parts_[d].plan;
    mine.leaders = parts_[d].leaders;
    devices_[d]->forward(mine, out, parts_[d].paths.data(), leader);
  }
}

void GpuExecutor::forward(const Plan& plan, const std::vector<VendorWeights>& weights,
                          const Batch& batch, float* out, LeaderStatistics* leader) {
  run_forward({&plan, &weights, &batch, nullptr, false, {}}, out, leader);
}

void GpuExecutor::infer(const Batch& batch, float* out) {
  Plan plan;
  plan.levels.assign(lowered_->programs.size(), {{0}, {0}});
  const std::vector<VendorWeights> weights(lowered_->programs.size());
  run_forward({&plan, &weights, &batch, nullptr, true, {}}, out, nullptr);
}

// Every sample is an input of its own, with a row of its own at every level.
void GpuExecutor::forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                                const std::int32_t* paths, float* out) {
  const std::size_t depth = lowered_->programs.size();
  Plan plan;
  plan.input_count = batch.size;
  plan.levels.resize(depth);
  for (std::int64_t b = 0; b < batch.size; ++b)
    for (std::size_t i = 0; i < depth; ++i) {
      plan.levels[i].vendor.push_back(paths[b * static_cast<std::int64_t>(depth) + i]);
      plan.levels[i].parent.push_back(static_cast<std::int32_t>(b));
    }
  Batch samples = batch;
  samples.size = 1;
  run_forward({&plan, &weights, &samples, nullptr, true, {}}, out, nullptr);
}

}  // namespace marketplace::gpu
