#include "devices.h"

#include "core/error.h"
#include "cpu/cpu_backend.h"

namespace marketplace {

std::vector<DeviceInfo> usable_devices() {
  return {{"cpu", "cpu", active_isa(), cpu::default_threads()}};
}

std::vector<std::string> compiled_backends() {
  return {"cpu"};
}
std::vector<std::string> compiled_isas() {
  return cpu::compiled_isas();
}
std::string active_isa() {
  return cpu::active_kernels().name;
}

std::shared_ptr<Backend> make_backend(const std::string& device, const std::string& dtype,
                                      int threads) {
  if (threads < 0 || threads > 1024)
    fail("threads", "0 (all cores) to 1024", std::to_string(threads));
  if (device == "cpu" || device == "auto")
    return cpu::make_cpu_backend(compute_dtype(dtype), threads);
  const auto colon = device.find(':');
  const std::string kind = device.substr(0, colon);
  if (kind == "cuda" || kind == "hip")
    fail(ErrorKind::runtime, "device", "a device of this build: 'cpu' or 'auto'",
         "'" + device + "' (this build has no " + kind + " backend)");
  fail("device", "'auto' or 'cpu'", "'" + device + "'");
}

}  // namespace marketplace
