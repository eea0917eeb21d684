// One device of a backend: its memory and what it can do.
#pragma once

#include <cstdint>
#include <memory>

#include "core/dtype.h"
#include "gpu/doors.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

struct Device {
  // max_bytes 0: most of what is free now.
  Device(int number, DType compute, std::int64_t max_bytes)
      : index(number),
        dtype(compute),
        info(device_info(number)),
        pool(number, max_bytes > 0 ? max_bytes : free_bytes(number) / 10 * 9) {}

  // Bytes that may be allocated in addition to those in use.
  std::int64_t budget() const { return pool.max_bytes() - pool.used_bytes(); }

  int index;
  DType dtype;
  DeviceInfo info;
  std::shared_ptr<Doors> doors =
      std::make_shared<Doors>();  // all devices of a backend share theirs
  Pool pool;
};

}  // namespace marketplace::gpu
