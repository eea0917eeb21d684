// Tiles without matrix units: lane l holds row l % 16 of C and every other kColumns columns, and
// reads its operands in mma() where it needs them. Included by the vendors' mma headers.
#pragma once

namespace marketplace::gpu {

// Where an operand is read from: four consecutive elements as float32.
__device__ __forceinline__ float4 load4(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
__device__ __forceinline__ float4 load4(const BFloat16* p) {
  const uint2 pair = *reinterpret_cast<const uint2*>(p);
  return make_float4(bits_to_float(pair.x << 16), bits_to_float(pair.x & 0xFFFF0000u),
                     bits_to_float(pair.y << 16), bits_to_float(pair.y & 0xFFFF0000u));
}

template <class E>
struct FmaTileA {
  const E* row_;
  __device__ __forceinline__ void load(const E* row) { row_ = row; }
};

template <class E>
struct FmaTileB {
  const E* first_;
  int stride_;
  __device__ __forceinline__ void load(const E* first, int stride) {
    first_ = first;
    stride_ = stride;
  }
};

struct FmaTileC {
  static constexpr int kGroups = kWarpSize / 16;
  static constexpr int kColumns = 16 / kGroups;
  float values_[kColumns];

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) values_[i] = 0;
  }
  template <class F>
  __device__ __forceinline__ void for_each(F&& visit) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) visit(lane % 16, i * kGroups + lane / 16, values_[i]);
  }
};

template <class E>
__device__ __forceinline__ void mma(FmaTileC& c, const FmaTileA<E>& a, const FmaTileB<E>& b) {
  const int group = static_cast<int>(threadIdx.x) % kWarpSize / 16;
#pragma unroll
  for (int k = 0; k < 16; k += 4) {
    const float4 x = load4(a.row_ + k);
#pragma unroll
    for (int i = 0; i < FmaTileC::kColumns; ++i) {
      const float4 y = load4(b.first_ + (i * FmaTileC::kGroups + group) * b.stride_ + k);
      float& sum = c.values_[i];
      sum = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
    }
  }
}

}  // namespace marketplace::gpu
