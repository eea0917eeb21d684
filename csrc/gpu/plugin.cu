// What the core finds in this plugin; see plugin.h.
#include "core/error.h"
#include "gpu/gpu_backend.h"
#include "gpu/runtime.h"
#include "plugin.h"

namespace marketplace::gpu {
namespace {

std::vector<PluginDevice> devices() {
  std::vector<PluginDevice> found;
  const int count = device_count();
  for (int i = 0; i < count; ++i) {
    const DeviceInfo info = device_info(i);
    found.push_back({info.name + ", " + info.architecture + ", " +
                         std::to_string(info.multiprocessor_count) + " multiprocessors, " +
                         std::to_string(info.total_bytes >> 30) + " GiB",
                     info.problem});
  }
  return found;
}

std::shared_ptr<Backend> make_backend(const PluginOptions& options) {
  return make_gpu_backend(options.devices, options.dtype, options.max_memory_bytes);
}

}  // namespace
}  // namespace marketplace::gpu

const marketplace::PluginInterface* marketplace_plugin() {
  static const marketplace::PluginInterface interface{
      marketplace::kPluginInterface, MARKETPLACE_VERSION, marketplace::gpu::kVendor,
      &marketplace::gpu::devices, &marketplace::gpu::make_backend};
  return &interface;
}
