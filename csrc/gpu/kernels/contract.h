// Convolution and linear layers as one implicit matrix product; see Contraction.
//
// in (parents, samples, H, W, C) channels-last, packed panels (vendor, O, K) with k = (kh, kw, c)
// -> out (rows, samples, H', W', O). bfloat16 operands on matrix units with float32 sums, or plain
// float32 fused multiply-adds; k always ascends, so a result does not depend on how it was tiled.
#pragma once

#include "gpu/divisor.h"
#include "gpu/program.h"
#include "gpu/runtime.h"
#include "gpu/schedule.h"

namespace marketplace::gpu {

// What the product of a linear output layer turns into on the way out, when labels are given.
struct LossArgs {
  const std::int32_t* labels = nullptr;  // (samples,)
  float* losses = nullptr;               // (rows, samples)
  bool ignoring = false;
  std::int32_t ignored = 0;
};

// How a contraction's windows lie in its input, for kernels.
struct WindowArgs {
  std::int64_t rows = 0, columns = 0;  // pixels and channels out of one group
  std::int64_t sample_stride = 0;
  std::int32_t height = 0, width = 0, channels = 0, out_width = 0;
  std::int32_t stride[2] = {1, 1}, padding[2] = {0, 0};
  std::int64_t span = 1;  // pixels of the image from a window's first to its last, both counted

  WindowArgs() = default;
  explicit WindowArgs(const Contraction& c)
      : rows(c.rows()),
        columns(c.columns),
        sample_stride(c.height * c.width * c.channels),
        height(static_cast<std::int32_t>(c.height)),
        width(static_cast<std::int32_t>(c.width)),
        channels(static_cast<std::int32_t>(c.channels)),
        out_width(static_cast<std::int32_t>(c.out_width)) {
    for (int axis : {0, 1}) {
      stride[axis] = static_cast<std::int32_t>(c.window.stride[axis]);
      padding[axis] = static_cast<std::int32_t>(c.window.padding[axis]);
    }
    const auto reach = [&](int axis) {
      return c.window.dilation[axis] * (c.window.kernel[axis] - 1);
    };
    span = reach(0) * c.width + reach(1) + 1;
  }
};

// How a tile's pixels lie in shared memory, in elements of it.
struct PixelLayout {
  std::int32_t pixel_stride = 0, row_stride = 0, image_pad = 0;
  Divisor channels, pixel_vectors, width, height;  // pixel_vectors: 16 bytes of a pixel's channels
};

struct ContractArgs : WindowArgs {
  using WindowArgs::WindowArgs;
  const void* in = nullptr;
  void* out = nullptr;
  const std::byte* packed = nullptr;  // of vendor 0
  std::int64_t packed_stride = 0;     // bytes between vendors
  std::int64_t weight_at = 0, bias_at = -1;
  const Tap* taps = nullptr;
  const Product* products = nullptr;
  std::int64_t parents = 1, vendors = 1, product_count = 0;  // of every product
  std::int64_t samples = 0;
  std::int64_t groups = 1, group_stride = 0, padded_depth = 0;
  // every window lies inside its image and k is not padded: no address need be looked at
  bool whole = false;
  Activation activation = Activation::none;
  bool float_out = false;
  LossArgs loss;
  std::int64_t tile_columns = 0;  // from here on set by contract_gpu
  struct {
    Divisor rows, columns, out_width, row_tiles, column_tiles, groups;
  } by;
  PixelLayout pixels;
};

// Classes up to here go through the fused loss.
constexpr std::int64_t kMostFusedClasses = 128;

void contract_gpu(DType dtype, const DeviceInfo& device, ContractArgs args, const Stream& stream);

}  // namespace marketplace::gpu
