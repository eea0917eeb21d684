// Arrays in a device's memory, ours or another library's.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "backend.h"
#include "bindings/dlpack.h"

namespace marketplace::bindings {

// Row-major. Holds no Python object that it would need Python for to let go of.
struct DeviceTensor {
  std::shared_ptr<Exchange> exchange;
  std::shared_ptr<void> memory;  // whoever owns the bytes
  std::byte* data = nullptr;
  int device = 0;
  dlpack::DataType dtype = {dlpack::kFloat, 32, 1};
  Shape shape;

  std::int64_t item_bytes() const { return dtype.bits / 8; }
  std::int64_t bytes() const { return element_count(shape) * item_bytes(); }
  std::string dtype_name() const;
};

// Float32 of the exchange's leader, not written yet.
DeviceTensor make_device_tensor(std::shared_ptr<Exchange> exchange, Shape shape);

}  // namespace marketplace::bindings
