// Node perturbation on the GPUs of a team. Each takes some of the batch's pieces and follows
// disturbed channels as the CPU does (cpu/node/), all channels of a tile at once; the pieces' sums
// are brought to all devices, and each makes the same gradients of them. Sums of a piece depend on
// nothing but its samples, so neither the number of devices nor their memory changes a bit.
#pragma once

#include <memory>
#include <vector>

#include "gpu/node/node_device.h"

namespace marketplace::gpu {

class GpuNodeProber : public NodeProber {
 public:
  GpuNodeProber(const Models& models, const std::vector<std::int64_t>& counts,
                const Shape& input_shape, std::shared_ptr<Team> team);
  ~GpuNodeProber() override;
  GpuNodeProber(const GpuNodeProber&) = delete;
  GpuNodeProber& operator=(const GpuNodeProber&) = delete;

  double probe(const NodeProbe& probe, const Batch& batch, const Labels& labels, bool add,
               Directions& gradients) override;

 private:
  std::vector<NodeCall> share_out(const NodeProbe& probe, const Batch& batch, const Labels& labels);
  void exchange(const std::vector<NodeCall>& calls);
  void add_task(std::size_t spec, const NodeProbe& probe, std::int64_t pieces, float share,
                bool add, Vector& gradient);
  void add_gradients(std::size_t spec, std::int64_t pieces, const OnDevice& place,
                     float* out) const;

  std::shared_ptr<const NodeMarket> market_;
  std::shared_ptr<Team> team_;
  std::vector<std::unique_ptr<NodeDevice>> devices_;
  const std::uint64_t number_;  // of its tasks
};

}  // namespace marketplace::gpu
