// Runs a market's specs on one or several GPUs.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backend.h"
#include "gpu/device_executor.h"
#include "gpu/scorer.h"
#include "gpu/split.h"

namespace marketplace::gpu {

class GpuExecutor : public Executor {
 public:
  GpuExecutor(const std::vector<std::shared_ptr<Model>>& models, const Shape& input_shape,
              std::shared_ptr<Team> team);

  void losses(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
              const Labels& labels, float* losses, LeaderStatistics* leader) override;
  std::optional<bool> step(const Plan& plan, const std::vector<VendorWeights>& weights,
                           const Batch& batch, const Labels& labels, const StepUpdate& update,
                           float* losses, LeaderStatistics* leader) override;
  void forward(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
               const Output& out, LeaderStatistics* leader) override;
  void infer(const Batch& batch, const Output& out) override;
  void forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                     const std::int32_t* paths, const SampleResults& results) override;

 private:
  // Parts of a plan, kept for the next call with the same one.
  void share_out(const Plan& plan, bool statistics);
  std::vector<Request> requests_for(const Request& whole);
  void watch(const std::vector<std::shared_ptr<Resident>>& bases);
  bool has_scorer(const Scoring& scoring);
  void gather_step(const std::vector<Request>& requests, const StepUpdate& update);
  void add_probe(const std::vector<Request>& requests);
  void add_fetch();
  void read_losses(float* losses, LeaderStatistics* leader);
  void run_forward(const Request& request, const Output& out, LeaderStatistics* leader,
                   const std::vector<std::int64_t>* order = nullptr);

  std::shared_ptr<const Lowered> lowered_;
  std::shared_ptr<Team> team_;
  std::vector<std::unique_ptr<DeviceExecutor>> devices_;
  std::vector<std::uint64_t> versions_;  // of the weights that the last call met
  std::uint64_t updates_ = 0;
  Plan plan_;
  bool statistics_ = false;
  std::vector<Part> parts_;
  std::unique_ptr<Scorer> scorer_;  // of the latest whole step
};

}  // namespace marketplace::gpu
