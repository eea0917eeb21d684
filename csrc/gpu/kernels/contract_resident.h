// Windows that stay: the pixels under all windows of a block's tile lie in shared memory for as
// long as the block runs, brought once, where a fetch of every k-step's windows brings a pixel once
// for each tap that meets it. Only contract.cu includes this.
//
// Images follow one another, so a tile's pixels are one run of the input. A window's elements of
// one tap are as far from its first pixel for every window: a row's place, plus the tap's. Pads
// keep eight neighbouring windows in different banks, across the ends of rows and images too.
#pragma once

#include "gpu/kernels/contract_tile.h"

namespace marketplace::gpu {

template <class T, int Rows>
class ResidentWindows {
 public:
  __device__ ResidentWindows(const ContractArgs& args, const Place& place, const Start* start,
                             std::byte* pixels)
      : args_(args),
        first_(start[0].offset),
        first_pixel_(static_cast<std::uint32_t>(start[0].top * args.width + start[0].left)),
        count_(pixels_behind_first(start[place.rows - 1].offset) +
               static_cast<std::uint32_t>(args.span)),
        pixels_(reinterpret_cast<T*>(pixels) - place_of(first_pixel_)) {}

  // All pixels, on their way.
  __device__ void bring() const {
    const T* from = static_cast<const T*>(args_.in) + first_;
    const Divisor& vectors = args_.pixels.pixel_vectors;
    MP_UNROLL
    for (std::uint32_t e = threadIdx.x; e < count_ * vectors.by; e += kThreads) {
      const Division at = vectors.divide(e);
      T* to = pixels_ + place_of(first_pixel_ + at.quotient) + at.remainder * kVector;
      Copy16 copy;
      copy.begin(to, from + e * kVector, true);
      copy.end(to);
    }
  }

  // The first element of a row's window. Rows behind the last have one too, and nobody their sums.
  __device__ const T* row(const Start& start) const {
    const std::uint32_t behind = start.offset < first_ ? 0 : pixels_behind_first(start.offset);
    return pixels_ + place_of(first_pixel_ + behind);
  }

  // How far behind it those of a k-step begin, which are all of one tap.
  __device__ int tap(int step) const {
    const Tap tap = load16(args_.taps + step * kStep);
    const int channel =
        static_cast<int>(tap.offset) - (tap.down * args_.width + tap.right) * args_.channels;
    return tap.down * args_.pixels.row_stride + tap.right * args_.pixels.pixel_stride + channel;
  }

 private:
  static constexpr std::uint32_t kVector = kVectorBytes / sizeof(T);
  static constexpr int kStep = kStepBytes / static_cast<int>(sizeof(T));

  __device__ std::uint32_t pixels_behind_first(std::int64_t offset) const {
    return args_.pixels.channels.divide(static_cast<std::uint32_t>(offset - first_)).quotient;
  }
  // pixel: counted from the first of the tile's first image.
  __device__ int place_of(std::uint32_t pixel) const {
    const PixelLayout& lie = args_.pixels;
    const Division row = lie.width.divide(pixel);
    return static_cast<int>(row.quotient) * lie.row_stride +
           static_cast<int>(row.remainder) * lie.pixel_stride +
           static_cast<int>(lie.height.divide(row.quotient).quotient) * lie.image_pad;
  }

  const ContractArgs& args_;
  std::int64_t first_;         // offset of the tile's first window
  std::uint32_t first_pixel_;  // of that window, in its image
  std::uint32_t count_;        // of the tile's pixels
  T* pixels_;                  // where the first pixel of the first image would lie
};

}  // namespace marketplace::gpu
