#include "plugins.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "core/error.h"

namespace marketplace {
namespace {

namespace fs = std::filesystem;

// The kinds of device, and why none of that kind came with this build, where none did.
struct Kind {
  const char* name;
  const char* not_built;
};
constexpr Kind kKinds[] = {{"cuda", MARKETPLACE_NO_CUDA}, {"hip", MARKETPLACE_NO_HIP}};

// The folder of the library or program that this code is part of.
fs::path own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0) return {};
  std::error_code error;
  const fs::path path = fs::canonical(info.dli_fname, error);
  return error ? fs::path() : path.parent_path();
}

std::vector<std::string> folders_of_environment() {
  std::vector<std::string> folders;
  const char* list = std::getenv("MARKETPLACE_PLUGIN_PATH");
  std::istringstream stream(list == nullptr ? "" : list);
  for (std::string folder; std::getline(stream, folder, ':');)
    if (!folder.empty()) folders.push_back(folder);
  return folders;
}

void find_library(Plugin& plugin, const char* not_built, const std::vector<std::string>& folders) {
  const std::string name = "libmarketplace_" + plugin.kind + ".so";
  std::vector<fs::path> places(folders.begin(), folders.end());
  const fs::path own = own_folder();
  if (!own.empty()) {
    places.push_back(own);
    places.push_back(own.parent_path() / ("marketplace_" + plugin.kind));
  }
  std::string searched;
  for (const fs::path& place : places) {
    std::error_code error;
    if (fs::is_regular_file(place / name, error)) {
      plugin.path = (place / name).string();
      return;
    }
    searched += (searched.empty() ? "" : ", ") + place.string();
  }
  plugin.problem = "no " + name + " in " + searched;
  if (*not_built != 0) plugin.problem += "; this build did not make it: " + std::string(not_built);
}

void open_library(Plugin& plugin) {
  void* library = dlopen(plugin.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    plugin.problem = std::string("it does not load: ") + dlerror();
    return;
  }
  using Entry = decltype(&marketplace_plugin);
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "marketplace_plugin"));
  const PluginInterface* interface = entry == nullptr ? nullptr : entry();
  if (interface == nullptr)
    plugin.problem = plugin.path + " is no plugin of marketplace";
  else if (interface->interface != kPluginInterface ||
           std::strcmp(interface->version, MARKETPLACE_VERSION) != 0)
    plugin.problem = plugin.path +
                     " belongs to another version: expected " MARKETPLACE_VERSION
                     " with interface " +
                     std::to_string(kPluginInterface) + ", received " + interface->version +
                     " with interface " + std::to_string(interface->interface);
  else
    plugin.interface = interface;
}

void list_devices(Plugin& plugin) {
  try {
    plugin.devices = plugin.interface->devices();
    if (plugin.devices.empty())
      plugin.problem = "it finds no device";
    else if (plugin.first_usable() == plugin.devices.size())
      plugin.problem = "devices: " + plugin.devices.front().problem + ", received " +
                       plugin.devices.front().description;
  } catch (const std::exception& error) {
    plugin.problem = error.what();
  }
}

}  // namespace

std::size_t Plugin::first_usable() const {
  const auto usable = [](const PluginDevice& device) { return device.problem.empty(); };
  return static_cast<std::size_t>(std::find_if(devices.begin(), devices.end(), usable) -
                                  devices.begin());
}

std::vector<Plugin> open_plugins(const std::vector<std::string>& folders) {
  std::vector<Plugin> found;
  for (const Kind& kind : kKinds) {
    Plugin plugin;
    plugin.kind = kind.name;
    find_library(plugin, kind.not_built, folders);
    if (!plugin.path.empty()) open_library(plugin);
    if (plugin.interface != nullptr) list_devices(plugin);
    found.push_back(std::move(plugin));
  }
  return found;
}

const std::vector<Plugin>& plugins() {
  static const std::vector<Plugin> opened = open_plugins(folders_of_environment());
  return opened;
}

}  // namespace marketplace
