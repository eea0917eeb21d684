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
          "test plugin: expected more memory, received 2 devices with 77 bytes");
  }
}

TEST_CASE("a plugin that cannot be used says why") {
  const auto problem = [](const std::string& name, const std::string& why) {
    const Plugin plugin = open_cuda(name);
    CAPTURE(plugin.problem);
    CHECK(plugin.problem.find(why) != std::string::npos);
    CHECK(plugin.devices.empty());
  };
  problem("other_version", "expected " MARKETPLACE_VERSION " with interface");
  problem("other_version", "received 0.0.0");
  problem("other_interface", "with interface 999");
  problem("no_device", "devices: expected a driver, received none");
  problem("other_library", "is no plugin");
  const std::string text = kFolder + "/text";
  std::filesystem::create_directories(text);
  std::ofstream(text + "/libmarketplace_cuda.so") << "not a library";
  problem("text", "does not load");
  problem("nowhere", "this build has no cuda backend: no libmarketplace_cuda.so in " + kFolder);
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
  CHECK(plugin_reports().size() == 2);
  CHECK(compiled_backends()[0] == "cpu");
}

}  // namespace
}  // namespace marketplace
