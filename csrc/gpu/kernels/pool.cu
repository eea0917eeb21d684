#include "gpu/kernels/pool.h"
#include "gpu/kernels/rows.h"

namespace marketplace::gpu {
namespace {

constexpr float kNone = -__builtin_inff();

template <class T>
__device__ float pool_window(bool maximum, const PoolArgs& args, const T* x, std::int32_t oh,
                             std::int32_t ow) {
  float best = maximum ? kNone : 0.0f;
  std::int64_t seen = 0;
  for (std::int32_t kh = 0; kh < args.kernel[0]; ++kh) {
    const std::int32_t h = oh * args.stride[0] - args.padding[0] + kh * args.dilation[0];
    if (h < 0 || h >= args.height) continue;
    for (std::int32_t kw = 0; kw < args.kernel[1]; ++kw) {
      const std::int32_t w = ow * args.stride[1] - args.padding[1] + kw * args.dilation[1];
      if (w < 0 || w >= args.width) continue;
      const float value =
          to_float(x[(static_cast<std::int64_t>(h) * args.width + w) * args.channels]);
      ++seen;
      if (maximum)
        best = value > best || value != value ? value : best;
      else
        best += value;
    }
  }
  if (maximum) return best;
  const std::int64_t whole = static_cast<std::int64_t>(args.kernel[0]) * args.kernel[1];
  const std::int64_t counted = args.count_include_pad ? whole : seen;
  return best / static_cast<float>(counted > 0 ? counted : 1);
}

// A row for every image.
template <class T>
__global__ void pool_kernel(bool maximum, PoolArgs args, Divisor channels, Divisor width,
                            Divisor blocks) {
  const Part part = part_of<1>(blocks);
  const std::int64_t each = args.channels * args.out_height * args.out_width;
  if (part.first >= each) return;
  const Division place = channels.divide(static_cast<std::uint32_t>(part.first));
  const Division pixel = width.divide(place.quotient);
  const T* x = static_cast<const T*>(args.in) +
               part.row * args.channels * args.height * args.width + place.remainder;
  static_cast<T*>(args.out)[part.row * each + part.first] =
      rounded<T>(pool_window(maximum, args, x, static_cast<std::int32_t>(pixel.quotient),
                             static_cast<std::int32_t>(pixel.remainder)));
}

}  // namespace

void pool_gpu(DType dtype, bool maximum, const PoolArgs& args, const Stream& stream) {
  const RowBlocks blocks(args.images, args.channels * args.out_height * args.out_width, 1);
  dispatch(dtype, [&](auto element) {
    launch(pool_kernel<decltype(element)>, blocks.grid, Block{kBlockThreads}, 0, stream, maximum,
           args, Divisor(args.channels), Divisor(args.out_width), blocks.divisor);
  });
}

}  // namespace marketplace::gpu
