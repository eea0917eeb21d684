// The devices of this build, by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace marketplace {

struct DeviceInfo {
  std::string name;         // "cpu"
  std::string kind;         // "cpu"
  std::string description;  // instruction set in use
  int threads = 1;
};

std::vector<DeviceInfo> usable_devices();
std::vector<std::string> compiled_backends();
std::vector<std::string> compiled_isas();
std::string active_isa();

// device "auto" or a name from usable_devices(); threads 0 means every core this process may use.
std::shared_ptr<Backend> make_backend(const std::string& device, const std::string& dtype,
                                      int threads);

}  // namespace marketplace
