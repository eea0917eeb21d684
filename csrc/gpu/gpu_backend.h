// One or several GPUs of one vendor as a backend.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"

namespace marketplace::gpu {

// devices: indices, the first leads; every one works for each call. max_memory_bytes: per device,
// 0 for most of what is free now.
std::shared_ptr<Backend> make_gpu_backend(const std::vector<int>& devices, DType dtype,
                                          std::int64_t max_memory_bytes);

}  // namespace marketplace::gpu
