// Max and average pooling over channels-last images. Padding never wins a maximum; an average
// counts padded places as zeros unless count_include_pad is false.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

struct PoolArgs {
  const void* in = nullptr;  // (images, height, width, channels)
  void* out = nullptr;
  std::int64_t images = 0, channels = 0;
  std::int32_t height = 0, width = 0, out_height = 0, out_width = 0;
  std::int32_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  bool count_include_pad = true;
};

void pool_gpu(DType dtype, bool maximum, const PoolArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
