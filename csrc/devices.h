// The devices of this machine, by name: the CPU, and those of the plugins that can be used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"

namespace marketplace {

struct DeviceInfo {
  std::string name;         // "cpu", "cuda:0"
  std::string kind;         // "cpu", "cuda", "hip"
  std::string description;  // instruction set in use, or the device's own name
  int threads = 1;          // host threads that work for it
};

// A kind of device besides the CPU, and why it cannot be used (empty when it can).
struct PluginReport {
  std::string kind, path, problem;
  std::vector<std::pair<std::string, std::string>>
      unusable;  // devices' names, and why they are not
};

std::vector<DeviceInfo> usable_devices();
std::vector<std::string> compiled_backends();
std::vector<PluginReport> plugin_reports();
std::vector<std::string> compiled_isas();
std::string active_isa();

// devices: "auto" (the first GPU that can be used, else the CPU), a name from usable_devices(), or
// several names of one kind of GPU, which then work together; the first leads. threads 0 means
// every core this process may use; max_memory_bytes is a cap for each GPU, 0 for most of what is
// free.
std::shared_ptr<Backend> make_backend(const std::vector<std::string>& devices,
                                      const std::string& dtype, int threads,
                                      std::int64_t max_memory_bytes = 0);
// The same with names separated by commas, as Backend::device() tells them.
std::shared_ptr<Backend> make_backend(const std::string& device, const std::string& dtype,
                                      int threads, std::int64_t max_memory_bytes = 0);

}  // namespace marketplace
