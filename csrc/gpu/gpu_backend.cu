#include <algorithm>
#include <mutex>
#include <string>

#include "core/error.h"
#include "gpu/exchange.h"
#include "gpu/executor.h"
#include "gpu/gpu_backend.h"
#include "gpu/measure.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kValuesPerSum = 4096;  // fixes the order of a sum, as on the CPU

class GpuBackend : public Backend {
 public:
  GpuBackend(std::vector<std::shared_ptr<Device>> devices, DType dtype)
      : devices_(std::move(devices)),
        dtype_(dtype),
        stream_(devices_[0]->index),
        exchange_(make_exchange(devices_[0])) {}

  std::string device() const override {
    std::string names;
    for (const auto& device : devices_)
      names +=
          (names.empty() ? "" : ",") + std::string(kVendor) + ":" + std::to_string(device->index);
    return names;
  }
  DType dtype() const override { return dtype_; }
  int threads() const override { return 1; }  // of the host
  std::shared_ptr<Exchange> exchange() override { return exchange_; }

  std::unique_ptr<Executor> compile(const std::vector<std::shared_ptr<Model>>& models,
                                    const Shape& input_shape) override {
    return std::make_unique<GpuExecutor>(models, input_shape, devices_);
  }

  void delta(const Model& model, const VendorWeights& weights, std::int64_t vendor,
             float* out) override {
    if (weights.kind == VendorWeights::Kind::explicit_) {
      const float* values = weights.values->data() + vendor * model.parameter_count();
      std::copy(values, values + model.parameter_count(), out);
      return;
    }
    std::vector<double> coefficients(weights.count, 0.0);
    coefficients[vendor] = 1.0;
    combine(model, weights, coefficients, out);
  }

  void combine(const Model& model, const VendorWeights& weights,
               const std::vector<double>& coefficients, float* out) override {
    const std::int64_t count = model.parameter_count();
    std::fill(out, out + count, 0.0f);
    switch (weights.kind) {
      case VendorWeights::Kind::base: return;
      case VendorWeights::Kind::seeded: return combine_seeded(model, weights, coefficients, out);
      case VendorWeights::Kind::scaled: {
        double scale = 0;
        for (std::int64_t v = 0; v < weights.count; ++v)
          scale += coefficients[v] * weights.scales[v];
        return add_scaled(out, weights.values->data(), static_cast<float>(scale), count);
      }
      case VendorWeights::Kind::explicit_:
        fail("direction", "vendors that differ by a delta", "explicit weights");
    }
  }

  double squared_norm(const float* values, std::int64_t count) override {
    double total = 0;
    for (std::int64_t first = 0; first < count; first += kValuesPerSum) {
      const std::int64_t end = std::min(count, first + kValuesPerSum);
      double sum = 0;
      for (std::int64_t i = first; i < end; ++i) sum += static_cast<double>(values[i]) * values[i];
      total += sum;
    }
    return total;
  }

  double measure_peak(double seconds) override {
    return gpu::measure_peak(*devices_[0], seconds) * static_cast<double>(devices_.size());
  }
  double measure_random(double seconds) override {
    return gpu::measure_random(*devices_[0], seconds);
  }

  void add_scaled(float* target, const float* values, float scale, std::int64_t count) override {
    for (std::int64_t i = 0; i < count; ++i) target[i] = target[i] + scale * values[i];
  }

 private:
  // Only the vendors that count, in their order.
  void combine_seeded(const Model& model, const VendorWeights& weights,
                      const std::vector<double>& coefficients, float* out) {
    std::vector<std::uint64_t> seeds;
    std::vector<float> factors;
    for (std::int64_t v = 0; v < weights.count; ++v) {
      const auto coefficient = static_cast<float>(coefficients[v]);
      if (weights.seeds[v] == 0 || coefficient == 0) continue;
      seeds.push_back(weights.seeds[v]);
      // the opposite delta of an antithetic vendor, times a number, is the delta times its opposite
      factors.push_back(weights.seeded_amplitude(v) == weights.amplitude ? coefficient
                                                                         : -coefficient);
    }
    if (seeds.empty() || model.parameter_count() == 0) return;
    run_combine(model, seeds, factors, weights.amplitude, out);
  }

  template <class T>
  DeviceMemory bring(const std::vector<T>& values) {
    const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
    DeviceMemory memory = devices_[0]->pool.allocate(bytes, stream_);
    copy_to_device(memory.get(), values.data(), bytes, stream_);
    return memory;
  }

  void run_combine(const Model& model, const std::vector<std::uint64_t>& seeds,
                   const std::vector<float>& factors, float amplitude, float* out) {
    const std::lock_guard lock(mutex_);
    const DeviceGuard guard(devices_[0]->index);
    const ParameterTable table = parameter_table(model, nullptr);
    const DeviceMemory parameters = bring(table.parameters), tiles = bring(table.tiles);
    const DeviceMemory keys = bring(seeds), coefficients = bring(factors);
    const std::int64_t bytes = model.parameter_count() * 4;
    const DeviceMemory sums = devices_[0]->pool.allocate(bytes, stream_);
    CombineArgs args;
    args.seeds = keys.get<std::uint64_t>();
    args.coefficients = coefficients.get<float>();
    args.vendors = static_cast<std::int64_t>(seeds.size());
    args.amplitude = amplitude;
    args.parameters = parameters.get<Parameter>();
    args.tiles = tiles.get<RandomTile>();
    args.tile_count = static_cast<std::int64_t>(table.tiles.size());
    args.out = sums.get<float>();
    combine_gpu(args, stream_);
    copy_to_host(out, sums.get(), bytes, stream_);
    stream_.synchronize();
  }

  const std::vector<std::shared_ptr<Device>> devices_;
  const DType dtype_;
  std::mutex mutex_;  // one sum at a time
  Stream stream_;
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
    if (std::find(devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(i), devices[i]) !=
        devices.begin() + static_cast<std::ptrdiff_t>(i))
      fail("device", "every device once", "'" + name + "' twice");
  }
}

}  // namespace

std::shared_ptr<Backend> make_gpu_backend(const std::vector<int>& devices, DType dtype,
                                          std::int64_t max_memory_bytes) {
  check_devices(devices);
  std::vector<std::shared_ptr<Device>> opened;
  for (const int index : devices) {
    opened.push_back(std::make_shared<Device>(index, dtype, max_memory_bytes));
    opened.back()->doors = opened.front()->doors;
    // copies to and from the first go directly where they can, else through the host
    if (index != devices[0]) {
      static_cast<void>(enable_peer_access(devices[0], index));
      static_cast<void>(enable_peer_access(index, devices[0]));
    }
  }
  return std::make_shared<GpuBackend>(std::move(opened), dtype);
}

}  // namespace marketplace::gpu
