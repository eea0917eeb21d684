// Plugins to be refused, or to offer devices that refuse to work, the first ones by their own word;
// which one is said by macros.
#include "plugin.h"

#include "core/error.h"

namespace {

std::vector<marketplace::PluginDevice> devices() {
  if (TEST_DEVICES == 0)
    marketplace::fail(marketplace::ErrorKind::runtime, "devices", "a driver", "none");
  std::vector<marketplace::PluginDevice> all(TEST_DEVICES, {"a device for tests", ""});
  for (int i = 0; i < TEST_UNUSABLE; ++i) all[i] = {"an old device", "expected a new one"};
  return all;
}

std::shared_ptr<marketplace::Backend> make_backend(const marketplace::PluginOptions& options) {
  marketplace::fail(marketplace::ErrorKind::memory, "test plugin", "more memory",
                    std::to_string(options.devices.size()) + " devices from " +
                        std::to_string(options.devices.front()) + " on with " +
                        std::to_string(options.max_memory_bytes) + " bytes");
}

}  // namespace

const marketplace::PluginInterface* marketplace_plugin() {
  static const marketplace::PluginInterface interface{TEST_INTERFACE, TEST_VERSION, "cuda",
                                                      &devices, &make_backend};
  return &interface;
}
