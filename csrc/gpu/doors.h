// Where other libraries' work and ours meet: one stream a device. What comes in is ordered before
// it, calls that use such memory begin behind it, and it follows what they leave there.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

// What `later` gets from now on runs behind what `earlier` holds now.
inline void follow(const Stream& later, const Stream& earlier) {
  const DeviceGuard guard(earlier.device());  // a default stream is the current device's
  Event there(earlier.device());
  there.record(earlier);
  later.wait(there);
}

class Doors {
 public:
  // The device's stream, made when first asked for.
  const Stream& at(int device) {
    const std::lock_guard lock(mutex_);
    const auto index = static_cast<std::size_t>(device);
    if (device < 0 || index >= streams_.size()) grow(device);
    if (!streams_[index]) streams_[index] = std::make_unique<Stream>(device);
    return *streams_[index];
  }

 private:
  void grow(int device) {
    const int count = device_count();
    if (device < 0 || device >= count)
      fail(ErrorKind::runtime, "device", "one of " + std::to_string(count) + " devices",
           std::to_string(device));
    streams_.resize(static_cast<std::size_t>(count));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Stream>> streams_;  // by device
};

}  // namespace marketplace::gpu
