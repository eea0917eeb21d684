// What a device plugin (libmarketplace_cuda.so, libmarketplace_hip.so) offers. The core opens it at
// run time, calls the one symbol below and talks to the device through Backend alone. Both sides
// must come from the same sources: version and interface are compared before anything else is
// touched.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace marketplace {

// Raised whenever this header, backend.h or what they hand over changes.
inline constexpr int kPluginInterface = 7;

struct PluginDevice {
  std::string description;  // "NVIDIA H200, sm_90, 132 multiprocessors, 139 GiB"
  std::string problem;      // why it cannot be used, empty when it can
};

struct PluginOptions {
  std::vector<int> devices;  // indices; the first leads
  DType dtype = DType::float32;
  int threads = 0;                    // host threads, 0: every core this process may use
  std::int64_t max_memory_bytes = 0;  // per device, 0: the backend decides
};

struct PluginInterface {
  int interface = kPluginInterface;
  const char* version = "";  // the package's
  const char* kind = "";     // "cuda", "hip"
  // Every device that the driver shows, in its order; throws Error with the reason when there is
  // none.
  std::vector<PluginDevice> (*devices)() = nullptr;
  std::shared_ptr<Backend> (*make_backend)(const PluginOptions& options) = nullptr;
};

}  // namespace marketplace

extern "C" __attribute__((visibility("default"))) const marketplace::PluginInterface*
marketplace_plugin();
