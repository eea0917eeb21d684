// What the normalisations' kernels share. Only norm.cu and instance_norm.cu include this.
#pragma once

#include "gpu/kernels/element.h"
#include "gpu/kernels/norm.h"

namespace marketplace::gpu {

// (x - mean) * scale + shift, a relu behind it where asked.
struct Affine {
  float mean, scale, shift, floor;
};

__device__ inline float apply(const Affine& affine, float x) {
  const float y = fmaf(x - affine.mean, affine.scale, affine.shift);
  return y < affine.floor ? affine.floor : y;
}

// A vendor's weights or biases, by channel.
__device__ inline const float* parameters(const NormArgs& args, std::int64_t row, std::int64_t at) {
  return reinterpret_cast<const float*>(args.packed + args.vendor[row] * args.packed_stride + at);
}

template <class T>
__device__ const T* row_input(const NormArgs& args, std::int64_t row) {
  const std::int64_t from = args.map ? args.map[row] : row;
  return static_cast<const T*>(args.in) + from * args.samples * args.pixels * args.channels;
}

}  // namespace marketplace::gpu
