// Runs a market's specs on the CPU: tile by tile, depth first, one activation per depth alive.
#pragma once

#include <memory>
#include <vector>

#include "backend.h"
#include "cpu/job.h"
#include "cpu/loss_sums.h"
#include "cpu/program.h"
#include "cpu/thread_pool.h"
#include "cpu/wide_head.h"
#include "cpu/workspace.h"

namespace marketplace::cpu {

class Walker;   // one thread's walk through a subtree
class PathRun;  // one call with a path for every sample

class CpuExecutor : public Executor {
 public:
  CpuExecutor(std::vector<std::shared_ptr<Model>> models, const Shape& input_shape, DType dtype,
              const KernelTable& kernels, std::shared_ptr<ThreadPool> pool);

  void losses(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
              const Labels& labels, float* losses, LeaderStatistics* leader) override;
  void forward(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
               const Output& out, LeaderStatistics* leader) override;
  void infer(const Batch& batch, const Output& out) override;
  void forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                     const std::int32_t* paths, const SampleResults& results) override;

 private:
  friend class Walker;
  friend class PathRun;

  // What one thread works in.
  struct Workspace {
    Buffer input, scratch, statistics, staging, logits;
    std::vector<Buffer> activations;         // per level, (tile, output)
    std::vector<Buffer> panels;              // per level, when panels are made on demand
    std::vector<std::int64_t> panel_vendor;  // whose weights they hold, -1 for nobody's
  };

  struct PackTask {
    std::size_t level;
    std::int64_t item;       // a vendor, or a group of vendors of the wide head
    const PackPiece* piece;  // of a vendor's weights; null for a wide head's group of vendors
  };

  // Samples that run at once: of one level alone, and of all levels on top of one another.
  std::int64_t level_tile(std::size_t level, std::int64_t batch) const;
  std::int64_t tile_samples(std::int64_t batch) const;
  std::int64_t output_bytes(std::size_t level) const;  // of one sample
  bool repacks() const;  // whether some level's panels are made on demand
  // `wide`: the last spec's vendors side by side, see WideHead.
  void choose_panels(const std::vector<VendorWeights>& weights, bool wide);
  std::int64_t kept_bytes(std::size_t level, const std::vector<VendorWeights>& weights) const;
  // Of the vendors that a plan has, or of all; with a plan, `wide` where that pays.
  void prepare_panels(const std::vector<VendorWeights>& weights, const Plan* plan);
  // Those of the base weights alone, which stay until somebody changes a weight or needs the
  // memory.
  void prepare_base_panels();
  void add_pack_tasks(std::size_t level, const VendorWeights& weights, const Plan* plan);
  void run_pack_task(const PackTask& task, const VendorWeights& weights, Workspace& workspace);
  void prepare_workspaces(std::int64_t tile);
  // Rows of one sample that meet a weight, on average over all that a plan runs.
  std::int64_t rows_per_weight(const Plan& plan) const;
  // Sets schedule and tile.
  void plan_job(Job& job);
  void run_job(const Job& job);
  // Samples [first, first + count) of all inputs laid end to end, converted to the compute type.
  void load_samples(const Batch& batch, std::int64_t first, std::int64_t count,
                    std::byte* out) const;
  // The packed weights of a vendor; made into the thread's own buffer when on demand.
  const std::byte* vendor_panels(Workspace& workspace, std::size_t level,
                                 const std::vector<VendorWeights>& weights, std::int64_t vendor);
  void run_vendor(Workspace& workspace, std::size_t level,
                  const std::vector<VendorWeights>& weights, std::int64_t vendor, RunArgs args);

  std::vector<std::shared_ptr<Model>> models_;
  const DType dtype_;
  const std::int64_t element_bytes_;
  const KernelTable& kernels_;
  const TypedKernels& typed_;
  std::shared_ptr<ThreadPool> pool_;
  std::vector<Program> programs_;
  // Per level: of weights that lie somewhere, and of those that are drawn, which is done by the
  // whole parameter.
  std::vector<std::vector<PackPiece>> pieces_, whole_steps_;
  std::unique_ptr<WideHead> head_;
  bool whole_batch_ = false;
  bool wide_ = false;            // the panels of the last level are the wide head's
  std::vector<bool> on_demand_;  // per level: panels of all vendors would not fit the budget
  std::vector<Buffer> panels_;   // per level, (V, packed_bytes)
  std::vector<std::uint64_t> base_versions_;  // of the base weights that panels_ hold, else none
  std::vector<std::unique_ptr<Workspace>> workspaces_;  // per thread
  Buffer path_results_[2];  // (B, output) of one level and of the next, when samples part ways

  // One level's samples by vendor, those of a vendor cut into tiles.
  struct PathTiles {
    struct Tile {
      std::int64_t vendor, first, count;
    };
    std::vector<std::int64_t> begin;    // of a vendor's samples
    std::vector<std::int64_t> samples;  // (B,)
    std::vector<Tile> tiles;
    std::int64_t largest = 0;
  };

  // What a call works out, kept so that the next one of its kind allocates nothing.
  Schedule schedule_;
  LossSums loss_sums_;
  PathTiles path_tiles_;
  std::vector<PackTask> pack_tasks_;
  std::vector<char> needed_;                                       // of one level's vendors
  std::vector<std::pair<std::int64_t, std::size_t>> panel_sizes_;  // bytes, level
  std::vector<std::int64_t> flops_;                                // of one sample, per level
  // of inference
  Plan base_plan_;
  std::vector<VendorWeights> base_weights_;
};

}  // namespace marketplace::cpu
