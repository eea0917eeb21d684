#include "devices.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "core/error.h"
#include "cpu/cpu_backend.h"
#include "plugins.h"

namespace marketplace {
namespace {

// "cuda:1" as kind and index; the index of "cuda" is 0, that of anything malformed -1.
struct DeviceName {
  std::string kind;
  int index = -1;
};

DeviceName parse(const std::string& device) {
  const auto colon = device.find(':');
  DeviceName name = {device.substr(0, colon), 0};
  if (colon == std::string::npos) return name;
  const char *first = device.data() + colon + 1, *last = device.data() + device.size();
  const auto [end, error] = std::from_chars(first, last, name.index);
  if (error != std::errc() || end != last || name.index < 0) name.index = -1;
  return name;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names)
    text.append(text.empty() ? "'" : ", '").append(name).append("'");
  return text;
}

std::string known_devices() {
  std::vector<std::string> names = {"auto"};
  for (const DeviceInfo& device : usable_devices()) names.push_back(device.name);
  return join(names);
}

const Plugin* find_plugin(const std::string& kind) {
  const auto found = std::find_if(plugins().begin(), plugins().end(),
                                  [&](const Plugin& plugin) { return plugin.kind == kind; });
  return found == plugins().end() ? nullptr : &*found;
}

// The plugin and index of one GPU's name; says what is wrong with it otherwise.
const Plugin& find_device(const std::string& device, int& index) {
  const DeviceName name = parse(device);
  const Plugin* plugin = find_plugin(name.kind);
  if (plugin == nullptr || name.index < 0)
    fail("device", "one of " + known_devices(), "'" + device + "'");
  if (!plugin->problem.empty())
    fail(ErrorKind::runtime, "device", "one of " + known_devices(),
         "'" + device + "' (" + plugin->problem + ")");
  if (name.index >= static_cast<int>(plugin->devices.size()))
    fail(ErrorKind::runtime, "device", "one of " + known_devices(), "'" + device + "'");
  const PluginDevice& found = plugin->devices[name.index];
  if (!found.problem.empty())
    fail(ErrorKind::runtime, "device", "one of " + known_devices(),
         "'" + device + "' (" + found.description + ": " + found.problem + ")");
  index = name.index;
  return *plugin;
}

std::shared_ptr<Backend> make_gpu(const std::vector<std::string>& devices, PluginOptions options) {
  const Plugin* plugin = nullptr;
  for (const std::string& device : devices) {
    int index = 0;
    const Plugin& found = find_device(device, index);
    const bool repeated = std::count(options.devices.begin(), options.devices.end(), index) > 0;
    if ((plugin != nullptr && plugin != &found) || repeated)
      fail("device", "different devices of one kind", join(devices));
    plugin = &found;
    options.devices.push_back(index);
  }
  return plugin->interface->make_backend(options);
}

// What "auto" stands for.
std::string best_device() {
  for (const Plugin& plugin : plugins())
    if (plugin.problem.empty()) return plugin.kind + ":" + std::to_string(plugin.first_usable());
  return "cpu";
}

}  // namespace

std::vector<DeviceInfo> usable_devices() {
  std::vector<DeviceInfo> devices = {{"cpu", "cpu", active_isa(), cpu::default_threads()}};
  for (const Plugin& plugin : plugins())
    for (std::size_t i = 0; i < plugin.devices.size(); ++i)
      if (plugin.devices[i].problem.empty())
        devices.push_back(
            {plugin.kind + ":" + std::to_string(i), plugin.kind, plugin.devices[i].description, 1});
  return devices;
}

std::vector<std::string> compiled_backends() {
  std::vector<std::string> backends = {"cpu"};
  for (const Plugin& plugin : plugins())
    if (!plugin.path.empty()) backends.push_back(plugin.kind);
  return backends;
}

std::vector<PluginReport> plugin_reports() {
  std::vector<PluginReport> reports;
  for (const Plugin& plugin : plugins()) {
    PluginReport report{plugin.kind, plugin.path, plugin.problem, {}};
    for (std::size_t i = 0; i < plugin.devices.size(); ++i)
      if (!plugin.devices[i].problem.empty())
        report.unusable.emplace_back(
            plugin.kind + ":" + std::to_string(i),
            plugin.devices[i].description + ": " + plugin.devices[i].problem);
    reports.push_back(std::move(report));
  }
  return reports;
}

std::vector<std::string> compiled_isas() {
  return cpu::compiled_isas();
}
std::string active_isa() {
  return cpu::active_kernels().name;
}

std::shared_ptr<Backend> make_backend(const std::vector<std::string>& devices,
                                      const std::string& dtype, int threads,
                                      std::int64_t max_memory_bytes) {
  if (threads < 0 || threads > 1024)
    fail("threads", "0 (all cores) to 1024", std::to_string(threads));
  if (max_memory_bytes < 0)
    fail("max_memory_bytes", "at least 0", std::to_string(max_memory_bytes));
  if (devices.empty()) fail("device", "at least one device", "none");
  std::vector<std::string> names = devices;
  if (names == std::vector<std::string>{"auto"}) names = {best_device()};
  const DType compute = compute_dtype(dtype);
  if (names == std::vector<std::string>{"cpu"}) {
    if (compute == DType::tf32)
      fail("dtype", "'float32' or 'bfloat16' with device 'cpu'", "'" + dtype + "'");
    return cpu::make_cpu_backend(compute, threads);
  }
  return make_gpu(names, {{}, compute, threads, max_memory_bytes});
}

std::shared_ptr<Backend> make_backend(const std::string& device, const std::string& dtype,
                                      int threads, std::int64_t max_memory_bytes) {
  std::vector<std::string> names;
  std::istringstream list(device + ",");
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return make_backend(names, dtype, threads, max_memory_bytes);
}

}  // namespace marketplace
