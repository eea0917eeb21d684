// Finds and opens device plugins: libmarketplace_<kind>.so in the folders of
// MARKETPLACE_PLUGIN_PATH, beside this library, or in an installed distribution marketplace_<kind>
// next to its folder.
#pragma once

#include <string>
#include <vector>

#include "plugin.h"

namespace marketplace {

struct Plugin {
  std::string kind;     // "cuda", "hip"
  std::string path;     // of its library, empty when there is none
  std::string problem;  // why it cannot be used, empty when it can
  const PluginInterface* interface = nullptr;
  std::vector<PluginDevice> devices;

  std::size_t first_usable() const;  // devices.size() where none is
};

// One entry for each kind, opened at the first call in this process; thread-safe.
const std::vector<Plugin>& plugins();

// The same with a folder list of one's own, opened anew.
std::vector<Plugin> open_plugins(const std::vector<std::string>& folders);

}  // namespace marketplace
