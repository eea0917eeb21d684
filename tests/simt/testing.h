// Helpers of the shim's own tests.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "control.h"
#include "core/error.h"
#include "gpu/launch.h"

namespace marketplace::gpu::testing {

inline constexpr int kSeeds = 32;  // orders tried where one of them must show a mistake

inline simt::Machine machine(std::uint64_t seed, int devices = 1) {
  simt::Machine machine;
  machine.seed = seed;
  machine.devices = devices;
  return machine;
}

// Whether `body` ends the process, as AddressSanitizer does at a wrong access; in a child.
template <class F>
bool dies(F&& body) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(0);
    try {
      body();
    } catch (...) {
      _exit(0);  // an exception is not what is asked for
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// The message of the Error that `body` throws; empty when it throws none.
template <class F>
std::string error_of(F&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

template <class T>
DeviceMemory on_device(const std::vector<T>& values, Pool& pool, const Stream& stream) {
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  DeviceMemory block = pool.allocate(bytes, stream);
  copy_to_device_now(block.get(), values.data(), bytes, stream);
  return block;
}

template <class T>
std::vector<T> to_host(const T* data, std::int64_t count, const Stream& stream) {
  std::vector<T> values(count);
  copy_to_host(values.data(), data, count * static_cast<std::int64_t>(sizeof(T)), stream);
  stream.synchronize();
  return values;
}

}  // namespace marketplace::gpu::testing
