#include <algorithm>
#include <string>

#include "core/error.h"
#include "gpu/exchange.h"
#include "gpu/executor.h"
#include "gpu/gpu_backend.h"
#include "gpu/measure.h"
#include "gpu/node/prober.h"
#include "gpu/update.h"

namespace marketplace::gpu {
namespace {

class GpuBackend : public Backend {
 public:
  GpuBackend(std::vector<std::shared_ptr<Device>> devices, DType dtype)
      : team_(std::make_shared<Team>(std::move(devices))),
        dtype_(dtype),
        exchange_(make_exchange(team_->device(0))) {}

  std::string device() const override {
    std::string names;
    for (std::size_t d = 0; d < team_->size(); ++d)
      names += (names.empty() ? "" : ",") + std::string(kVendor) + ":" +
               std::to_string(team_->device(d)->index);
    return names;
  }
  DType dtype() const override { return dtype_; }
  int threads() const override { return 1; }  // of the host
  std::shared_ptr<Exchange> exchange() override { return exchange_; }

  std::unique_ptr<Executor> compile(const std::vector<std::shared_ptr<Model>>& models,
                                    const Shape& input_shape) override {
    return std::make_unique<GpuExecutor>(models, input_shape, team_);
  }

  std::unique_ptr<NodeProber> compile_nodes(const std::vector<std::shared_ptr<Model>>& models,
                                            const std::vector<std::int64_t>& counts,
                                            const Shape& input_shape) override {
    return std::make_unique<GpuNodeProber>(models, counts, input_shape, team_);
  }
  bool takes_steps() const override { return true; }

  void together(const std::function<void()>& work) override { team_->together(work); }
  void reserve(const Vector& vector) override {
    if (!vector.empty()) team_->reserve(vector);
  }
  void hold(const Vector& vector) override { team_->hold(vector); }
  void release(const Vector& vector) noexcept override { team_->release(vector); }
  void combine(const Model& model, const VendorWeights& weights,
               const std::vector<double>& coefficients, Vector& out) override {
    if (!out.empty()) gpu::combine(*team_, model, weights, coefficients, out);
  }
  void add_scaled(Vector& target, const Vector& values, float scale) override {
    if (!target.empty()) gpu::add_scaled(*team_, target, values, scale);
  }
  void decay_add(Vector& target, float decay, const Vector& values) override {
    if (!target.empty()) gpu::decay_add(*team_, target, decay, values);
  }
  void adam(Vector& direction, Vector& mean, Vector& square, const AdamStep& step) override {
    if (!direction.empty()) gpu::adam(*team_, direction, mean, square, step);
  }
  void normalise(Directions& vectors, bool together) override {
    gpu::normalise(*team_, vectors, together);
  }
  void clip(Directions& vectors, bool together, float length) override {
    gpu::clip(*team_, vectors, together, length);
  }
  std::int64_t first_not_finite(const Directions& vectors) override {
    return gpu::first_not_finite(*team_, vectors);
  }

  double measure_peak(double seconds) override {
    return gpu::measure_peak(*team_->device(0), seconds) * static_cast<double>(team_->size());
  }
  double measure_random(double seconds) override {
    return gpu::measure_random(*team_->device(0), seconds);
  }

 private:
  const std::shared_ptr<Team> team_;
  const DType dtype_;
  const std::shared_ptr<Exchange> exchange_;
};

void check_devices(const std::vector<int>& devices) {
  if (devices.empty()) fail("device", "at least one device", "none");
  const int count = device_count();
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const std::string name = std::string(kVendor) + ":" + std::to_string(devices[i]);
    if (devices[i] < 0 || devices[i] >= count)
      fail(ErrorKind::runtime, "device",
           "one of " + std::to_string(count) + " " + kVendor + " devices", "'" + name + "'");
    const DeviceInfo info = device_info(devices[i]);
    if (!info.problem.empty())
      fail(ErrorKind::runtime, "device", needed(),
           "'" + name + "' (" + info.name + ", " + info.architecture + ")");
    if (std::find(devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(i), devices[i]) !=
        devices.begin() + static_cast<std::ptrdiff_t>(i))
      fail("device", "every device once", "'" + name + "' twice");
  }
}

// So that copies go directly where they can, else through the host.
void open_to_each_other(Device& a, Device& b) {
  if (enable_peer_access(a.index, b.index)) static_cast<void>(b.pool.open_to(a.index));
  if (enable_peer_access(b.index, a.index)) static_cast<void>(a.pool.open_to(b.index));
}

}  // namespace

std::shared_ptr<Backend> make_gpu_backend(const std::vector<int>& devices, DType dtype,
                                          std::int64_t max_memory_bytes) {
  check_devices(devices);
  std::vector<std::shared_ptr<Device>> opened;
  for (const int index : devices) {
    opened.push_back(std::make_shared<Device>(index, dtype, max_memory_bytes));
    opened.back()->doors = opened.front()->doors;
    for (const auto& other : opened)
      if (other->index != index) open_to_each_other(*other, *opened.back());
  }
  return std::make_shared<GpuBackend>(std::move(opened), dtype);
}

}  // namespace marketplace::gpu
