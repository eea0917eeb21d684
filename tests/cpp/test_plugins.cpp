// Plugins: found, refused with the reason, opened; errors come across.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "devices.h"
#include "plugins.h"

namespace marketplace {
namespace {

const std::string kFolder = MARKETPLACE_TEST_PLUGINS;

// What this process has: before anybody asks for it.
const int kChosen = setenv("MARKETPLACE_PLUGIN_PATH", MARKETPLACE_TEST_PLUGINS "/mixed", 1);

Plugin open_cuda(const std::string& name) {
  const std::vector<Plugin> opened = open_plugins({kFolder + "/nowhere", kFolder + "/" + name});
  CHECK(opened.size() == 2);
  CHECK(opened[0].kind == "cuda");
  CHECK(opened[1].kind == "hip");
  return opened[0];
}

TEST_CASE("a plugin that fits lists its devices") {
  const Plugin plugin = open_cuda("good");
  CHECK(plugin.problem == "");
  CHECK(plugin.path == kFolder + "/good/libmarketplace_cuda.so");
  REQUIRE(plugin.devices.size() == 2);
  CHECK(plugin.devices[1].description == "a device for tests");
}

TEST_CASE("errors keep their kind across the border") {
  const Plugin plugin = open_cuda("good");
  try {
    plugin.interface->make_backend({{0, 1}, DType::float32, 1, 77});
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::memory);
    CHECK(std::string(error.what()) ==
          "test plugin: expected more memory, received 2 devices from 0 on with 77 bytes");
  }
}

TEST_CASE("a plugin that cannot be used says why") {
  const auto problem = [](const std::string& name, const std::string& why) {
    const Plugin plugin = open_cuda(name);
    CAPTURE(plugin.problem);
    CHECK(plugin.problem.find(why) != std::string::npos);
    CHECK(plugin.first_usable() == plugin.devices.size());
  };
  problem("other_version", "expected " MARKETPLACE_VERSION " with interface");
  problem("other_version", "received 0.0.0");
  problem("other_interface", "with interface 999");
  problem("no_device", "devices: expected a driver, received none");
  problem("old_devices", "devices: expected a new one, received an old device");
  problem("other_library", "is no plugin");
  const std::string text = kFolder + "/text";
  std::filesystem::create_directories(text);
  std::ofstream(text + "/libmarketplace_cuda.so") << "not a library";
  problem("text", "does not load");
  problem("nowhere", "no libmarketplace_cuda.so in " + kFolder);
  problem("nowhere", "; this build did not make it: it was switched off");
}

TEST_CASE("devices by name") {
  for (const char* name :
       {"tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "cpu:0", "", "CPU ", "cpu,cpu", ","})
    CHECK_THROWS_WITH_AS(make_backend(name, "float32", 1), doctest::Contains("'auto', 'cpu'"),
                         Error);
  CHECK_THROWS_WITH_AS(make_backend(std::vector<std::string>(2, "cpu"), "float32", 1),
                       doctest::Contains("'cpu'"), Error);
  CHECK_THROWS_AS(make_backend(std::vector<std::string>{}, "float32", 1), Error);
  CHECK_THROWS_WITH_AS(make_backend("cpu", "float32", 1, -1), doctest::Contains("max_memory_bytes"),
                       Error);
  CHECK(compiled_backends()[0] == "cpu");
}

TEST_CASE("a device that cannot be used is told with the reason, and auto takes another") {
  REQUIRE(kChosen == 0);
  std::vector<std::string> names;
  for (const DeviceInfo& device : usable_devices()) names.push_back(device.name);
  CHECK(names == std::vector<std::string>{"cpu", "cuda:1", "cuda:2"});
  REQUIRE(plugin_reports().size() == 2);
  const PluginReport report = plugin_reports()[0];
  CHECK(report.problem == "");
  REQUIRE(report.unusable.size() == 1);
  CHECK(report.unusable[0].first == "cuda:0");
  CHECK(report.unusable[0].second == "an old device: expected a new one");
  CHECK_THROWS_WITH_AS(make_backend("auto", "float32", 1), doctest::Contains("1 devices from 1 on"),
                       Error);
  CHECK_THROWS_WITH_AS(make_backend("cuda:0", "float32", 1),
                       "device: expected one of 'auto', 'cpu', 'cuda:1', 'cuda:2', received "
                       "'cuda:0' (an old device: expected a new one)",
                       Error);
}

}  // namespace
}  // namespace marketplace
