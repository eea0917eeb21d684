// Where other libraries' work and ours meet: one stream a device. What comes in is ordered before
// it, calls that use such memory begin behind it, and it follows what they leave there.
#pragma once

#include <map>
#include <mutex>

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
    return streams_.try_emplace(device, device).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<int, Stream> streams_;
};

}  // namespace marketplace::gpu
