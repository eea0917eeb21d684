#include "cpu/executor.h"

#include <algorithm>
#include <string>

#include "cpu/isa.h"
#include "cpu/walker.h"

namespace marketplace::cpu {
namespace {

// Two activations of a tile and the panel they meet should stay in a core's second-level cache.
constexpr std::int64_t kTileBytes = 512 << 10;
// Processors with vectors of 512 bits have larger ones, and lose more time between short products.
constexpr std::int64_t kWideTileBytes = 1 << 20;
constexpr std::int64_t kWideFloats = 16;
// On demand, a vendor's panels are made once per tile, so tiles must be large enough to pay for it.
constexpr std::int64_t kOnDemandTileBytes = 16 << 20;
// Panels of all vendors are kept for one probe up to here, those of the smallest levels first.
constexpr std::int64_t kPanelBudgetBytes = 48 << 20;
constexpr std::int64_t kPartialLosses = 1 << 21;
constexpr std::int64_t kMostBlocks = 64;
constexpr std::int64_t kMostRows = 1 << 20;

// Copies results to (P, B, each).
class Results final : public Sink {
 public:
  Results(float* out, std::int64_t batch, std::int64_t each)
      : out_(out), batch_(batch), each_(each) {}

  void take(std::int64_t path, std::int64_t first, std::int64_t count, const float* values,
            std::int64_t stride) override {
    for (std::int64_t s = 0; s < count; ++s)
      std::copy_n(values + s * stride, each_, out_ + (path * batch_ + first + s) * each_);
  }

 private:
  float* out_;
  const std::int64_t batch_, each_;
};

// Which of a spec's vendors a plan runs; without a plan, all.
void find_needed(const Plan* plan, std::size_t level, std::int64_t count,
                 std::vector<char>& needed) {
  needed.assign(count, plan ? 0 : 1);
  if (plan)
    for (const std::int32_t vendor : plan->levels[level].vendor) needed[vendor] = 1;
}

}  // namespace

CpuExecutor::CpuExecutor(std::vector<std::shared_ptr<Model>> models, const Shape& input_shape,
                         DType dtype, const KernelTable& kernels, std::shared_ptr<ThreadPool> pool)
    : models_(std::move(models)),
      dtype_(dtype),
      element_bytes_(size_bytes(dtype)),
      kernels_(kernels),
      typed_(typed_kernels(kernels, dtype)),
      pool_(std::move(pool)),
      loss_sums_(kernels) {
  Shape shape = input_shape;
  Layout layout;
  for (std::size_t i = 0; i < models_.size(); ++i) {
    const bool last = i + 1 == models_.size();
    programs_.push_back(lower(*models_[i], shape, layout, last, dtype_, kernels_));
    shape = programs_.back().output_shape;
    layout = programs_.back().output_layout;
    flops_.push_back(programs_.back().flops);
    whole_batch_ = whole_batch_ || needs_whole_batch(models_[i]->graph());
  }
  for (const Program& program : programs_) {
    pieces_.push_back(pack_pieces(program, kernels_, dtype_));
    whole_steps_.push_back(pack_steps(program));
  }
  head_ = std::make_unique<WideHead>(programs_.back(), *models_.back(), kernels_, dtype_);
  panels_.resize(models_.size());
  base_plan_.levels.assign(models_.size(), {{0}, {0}});
  base_weights_.resize(models_.size());
  for (int t = 0; t < pool_->threads(); ++t) {
    workspaces_.push_back(std::make_unique<Workspace>());
    workspaces_.back()->activations.resize(models_.size());
    workspaces_.back()->panels.resize(models_.size());
  }
}

bool CpuExecutor::repacks() const {
  return std::find(on_demand_.begin(), on_demand_.end(), true) != on_demand_.end();
}

std::int64_t CpuExecutor::level_tile(std::size_t level, std::int64_t batch) const {
  const Program& program = programs_[level];
  const std::int64_t sample_bytes =
      (program.scratch_size + program.input_size + program.output_size) * element_bytes_;
  const bool wide = kernels_.vector_floats >= kWideFloats;
  const std::int64_t budget = repacks() ? kOnDemandTileBytes : wide ? kWideTileBytes : kTileBytes;
  return std::clamp<std::int64_t>(budget / std::max<std::int64_t>(sample_bytes, 1), 1, batch);
}

std::int64_t CpuExecutor::tile_samples(std::int64_t batch) const {
  std::int64_t tile = batch;
  for (std::size_t i = 0; i < programs_.size(); ++i) tile = std::min(tile, level_tile(i, batch));
  return tile;
}

std::int64_t CpuExecutor::output_bytes(std::size_t level) const {
  return programs_[level].output_size * (level + 1 == programs_.size() ? 4 : element_bytes_);
}

void CpuExecutor::choose_panels(const std::vector<VendorWeights>& weights, bool wide) {
  wide_ = wide && programs_.size() > 1 && head_->suits();
  panel_sizes_.clear();
  for (std::size_t i = 0; i < programs_.size(); ++i)
    panel_sizes_.emplace_back(kept_bytes(i, weights), i);
  std::sort(panel_sizes_.begin(), panel_sizes_.end());
  on_demand_.assign(programs_.size(), false);
  std::int64_t total = 0;
  for (const auto& [bytes, level] : panel_sizes_) {
    total += bytes;
    on_demand_[level] = weights[level].count > 1 && total > kPanelBudgetBytes;
  }
  wide_ = wide_ && !on_demand_.back();
}

std::int64_t CpuExecutor::kept_bytes(std::size_t level,
                                     const std::vector<VendorWeights>& weights) const {
  const std::int64_t count = weights[level].count;
  if (wide_ && level + 1 == programs_.size()) return head_->packed_bytes(count);
  return programs_[level].packed_bytes * count;
}

void CpuExecutor::prepare_panels(const std::vector<VendorWeights>& weights, const Plan* plan) {
  base_versions_.clear();
  choose_panels(weights, plan != nullptr);
  for (auto& workspace : workspaces_) workspace->panel_vendor.assign(programs_.size(), -1);
  pack_tasks_.clear();
  for (std::size_t i = 0; i < programs_.size(); ++i) {
    if (on_demand_[i]) continue;
    panels_[i].reserve(kept_bytes(i, weights));
    add_pack_tasks(i, weights[i], plan);
  }
  pool_->run(static_cast<std::int64_t>(pack_tasks_.size()), [&](std::int64_t index, int thread) {
    const PackTask& task = pack_tasks_[index];
    run_pack_task(task, weights[task.level], *workspaces_[thread]);
  });
}

void CpuExecutor::prepare_base_panels() {
  const auto unchanged = [](const auto& model, std::uint64_t version) {
    return model->weights().version() == version;
  };
  if (std::equal(models_.begin(), models_.end(), base_versions_.begin(), base_versions_.end(),
                 unchanged))
    return;
  prepare_panels(base_weights_, &base_plan_);
  for (const auto& model : models_) base_versions_.push_back(model->weights().version());
}

void CpuExecutor::add_pack_tasks(std::size_t level, const VendorWeights& weights,
                                 const Plan* plan) {
  const bool head = wide_ && level + 1 == programs_.size();
  const std::int64_t count = weights.count, each = head ? head_->group_vendors() : 1;
  find_needed(plan, level, count, needed_);
  for (std::int64_t v = 0; v < count; v += each) {
    if (std::count(needed_.begin() + v, needed_.begin() + std::min(count, v + each), 1) == 0)
      continue;
    if (head) {
      pack_tasks_.push_back({level, v / each, nullptr});
      continue;
    }
    const auto& pieces = is_drawn(weights, v) ? whole_steps_[level] : pieces_[level];
    for (const PackPiece& piece : pieces) pack_tasks_.push_back({level, v, &piece});
  }
}

void CpuExecutor::run_pack_task(const PackTask& task, const VendorWeights& weights,
                                Workspace& workspace) {
  const Program& program = programs_[task.level];
  const Model& model = *models_[task.level];
  const bool head = wide_ && task.level + 1 == programs_.size();
  const std::int64_t floats = head ? head_->staging_floats() : program.staging_floats;
  auto* staging = reinterpret_cast<float*>(workspace.staging.reserve(floats * 4));
  std::byte* panels = panels_[task.level].get();
  if (head) return head_->pack(weights, task.item, staging, panels);
  pack_piece(*task.piece, kernels_, typed_, model, weights, task.item, staging,
             panels + task.item * program.packed_bytes);
}

void CpuExecutor::prepare_workspaces(std::int64_t tile) {
  std::int64_t scratch = 0, channels = 1;
  for (const Program& program : programs_) {
    scratch = std::max(scratch, program.scratch_bytes(tile, element_bytes_));
    channels = std::max(channels, program.largest_channels);
  }
  for (auto& workspace : workspaces_) {
    workspace->input.reserve(tile * programs_[0].input_size * element_bytes_);
    workspace->scratch.reserve(scratch);
    workspace->statistics.reserve(2 * channels * 4);
    for (std::size_t i = 0; i < programs_.size(); ++i) {
      workspace->activations[i].reserve(tile * output_bytes(i));
      if (on_demand_[i]) {
        workspace->panels[i].reserve(programs_[i].packed_bytes);
        workspace->staging.reserve(programs_[i].staging_floats * 4);
      }
    }
    if (wide_) workspace->logits.reserve(head_->scratch_floats(tile) * 4);
  }
}

void CpuExecutor::load_samples(const Batch& batch, std::int64_t first, std::int64_t count,
                               std::byte* out) const {
  const std::int64_t each = programs_[0].input_size;
  if (batch.dtype == DType::uint8)
    typed_.from_uint8(static_cast<const std::uint8_t*>(batch.data) + first * each, out,
                      count * each);
  else
    typed_.from_float(static_cast<const float*>(batch.data) + first * each, out, count * each);
}

const std::byte* CpuExecutor::vendor_panels(Workspace& workspace, std::size_t level,
                                            const std::vector<VendorWeights>& weights,
                                            std::int64_t vendor) {
  const Program& program = programs_[level];
  if (!on_demand_[level]) return panels_[level].get() + vendor * program.packed_bytes;
  std::byte* packed = workspace.panels[level].get();
  if (workspace.panel_vendor[level] == vendor) return packed;
  pack_vendor(program, kernels_, typed_, *models_[level], weights[level], vendor,
              reinterpret_cast<float*>(workspace.staging.get()), packed);
  workspace.panel_vendor[level] = vendor;
  return packed;
}

void CpuExecutor::run_vendor(Workspace& workspace, std::size_t level,
                             const std::vector<VendorWeights>& weights, std::int64_t vendor,
                             RunArgs args) {
  args.model = models_[level].get();
  args.packed = vendor_panels(workspace, level, weights, vendor);
  args.scratch = workspace.scratch.get();
  args.statistics = reinterpret_cast<float*>(workspace.statistics.get());
  run_program(programs_[level], typed_, element_bytes_, args);
}

std::int64_t CpuExecutor::rows_per_weight(const Plan& plan) const {
  std::int64_t products = 0, weights = 1;
  for (std::size_t i = 0; i < programs_.size(); ++i) {
    const auto rows = static_cast<std::int64_t>(plan.levels[i].vendor.size());
    products += rows * flops_[i] / 2;
    weights += rows * models_[i]->parameter_count();
  }
  if (products == 0) return kMostRows;  // nothing to read that samples could share
  return std::max<std::int64_t>(1, products / weights);
}

void CpuExecutor::plan_job(Job& job) {
  if (job.inference)
    prepare_base_panels();
  else
    prepare_panels(job.weights, &job.plan);
  const bool whole = whole_batch_ && !job.inference;
  const std::int64_t batch = job.batch.size;
  job.tile = whole ? batch : tile_samples(batch);
  // the order of sums follows from batch and whole plan, never from the number of threads
  const std::int64_t paths = std::max(job.plan.whole_path_count, job.plan.path_count());
  const std::int64_t blocks =
      whole ? 1 : std::clamp<std::int64_t>(kPartialLosses / paths, 1, std::min(batch, kMostBlocks));
  prepare_workspaces(job.tile);
  if (job.leader) job.leader->assign(programs_.size(), {});
  const Grain grain{blocks, batch * rows_per_weight(job.plan), repacks()};
  if (!schedule_.suits(job.plan, grain))
    schedule_ = make_schedule(job.plan, grain, flops_, pool_->threads());
  job.schedule = &schedule_;
}

void CpuExecutor::run_job(const Job& job) {
  const auto count = static_cast<std::int64_t>(job.schedule->tasks.size());
  pool_->run(count, [&](std::int64_t index, int thread) {
    Walker(*this, job, thread, job.schedule->tasks[index]).run();
  });
}

void CpuExecutor::losses(const Plan& plan, const std::vector<VendorWeights>& weights,
                         const Batch& batch, const Labels& labels, float* losses,
                         LeaderStatistics* leader) {
  Job job{plan, weights, batch, loss_sums_, leader};
  plan_job(job);
  loss_sums_.begin(job, labels, programs_.back().output_size);
  run_job(job);
  loss_sums_.finish(losses);
}

void CpuExecutor::forward(const Plan& plan, const std::vector<VendorWeights>& weights,
                          const Batch& batch, const Output& out, LeaderStatistics* leader) {
  Results results(out.data, batch.size, programs_.back().output_size);
  Job job{plan, weights, batch, results, leader};
  plan_job(job);
  run_job(job);
}

void CpuExecutor::infer(const Batch& batch, const Output& out) {
  Results results(out.data, batch.size, programs_.back().output_size);
  Job job{base_plan_, base_weights_, batch, results, nullptr, true};
  plan_job(job);
  run_job(job);
}

}  // namespace marketplace::cpu
