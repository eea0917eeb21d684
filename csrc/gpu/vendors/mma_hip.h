// Tiles on AMD: MFMA on CDNA (gfx90a, gfx94x, gfx950), WMMA on RDNA 3 (gfx11) and RDNA 4 (gfx12),
// FMA elsewhere. Register layouts: AMD matrix instruction calculator. The order of k within an
// operand register is free as long as A and B share it.
#pragma once

#include "gpu/vendors/hip.h"  // MP_MATRIX_MFMA
#include "gpu/vendors/mma_fma.h"

#if defined(__GFX11__)
#define MP_MATRIX_WMMA11 1
#elif defined(__GFX12__)
#define MP_MATRIX_WMMA12 1
#endif

namespace marketplace::gpu {

__device__ __forceinline__ int tile_lane() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}

#if defined(MP_MATRIX_MFMA) || defined(MP_MATRIX_WMMA11) || defined(MP_MATRIX_WMMA12)

#if defined(MP_MATRIX_MFMA)
inline constexpr int kOperand = 4;       // bfloat16 elements a lane holds of A and of B
inline constexpr int kAccumulators = 4;  // elements a lane holds of C
#elif defined(MP_MATRIX_WMMA11)
inline constexpr int kOperand = 16;  // both halves of the warp hold the same
inline constexpr int kAccumulators = 8;
#else
inline constexpr int kOperand = 8;
inline constexpr int kAccumulators = 8;
#endif

typedef short MatrixOperand __attribute__((ext_vector_type(kOperand)));
typedef float MatrixAccumulator __attribute__((ext_vector_type(kAccumulators)));

// Where in k this lane's elements begin.
__device__ __forceinline__ int operand_offset() {
  return kOperand == 16 ? 0 : tile_lane() / 16 * kOperand;
}

template <>
struct TileA<BFloat16> {
  MatrixOperand words_;
  __device__ __forceinline__ void load(const BFloat16* row) {
    words_ = *reinterpret_cast<const MatrixOperand*>(row + operand_offset());
  }
};

template <>
struct TileB<BFloat16> {
  MatrixOperand words_;
  __device__ __forceinline__ void load(const BFloat16* first, int stride) {
    const BFloat16* column = first + tile_lane() % 16 * stride;
    words_ = *reinterpret_cast<const MatrixOperand*>(column + operand_offset());
  }
};

struct MatrixTileC {
  MatrixAccumulator values_;

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int i = 0; i < kAccumulators; ++i) values_[i] = 0;
  }
  template <class F>
  __device__ __forceinline__ void for_each(F&& visit) {
    const int lane = tile_lane();
#pragma unroll
    for (int i = 0; i < kAccumulators; ++i) {
#if defined(MP_MATRIX_WMMA11)
      const int row = i * 2 + lane / 16;
#else
      const int row = lane / 16 * kAccumulators + i;
#endif
      float value = values_[i];
      visit(row, lane % 16, value);
      values_[i] = value;
    }
  }
};

template <>
struct TileC<BFloat16> : MatrixTileC {};

__device__ __forceinline__ void mma(TileC<BFloat16>& c, const TileA<BFloat16>& a,
                                    const TileB<BFloat16>& b) {
#if defined(MP_MATRIX_MFMA)
  c.values_ = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a.words_, b.words_, c.values_, 0, 0, 0);
#elif defined(MP_MATRIX_WMMA11)
  c.values_ = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a.words_, b.words_, c.values_);
#else
  c.values_ = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a.words_, b.words_, c.values_);
#endif
}

#else

template <>
struct TileA<BFloat16> : FmaTileA<BFloat16> {};
template <>
struct TileB<BFloat16> : FmaTileB<BFloat16> {};
template <>
struct TileC<BFloat16> : FmaTileC {};

#endif

#if defined(MP_MATRIX_MFMA)

// 16x16x4, four times: step i takes element i of every lane's four.
template <>
struct TileA<float> {
  float4 values_;
  __device__ __forceinline__ void load(const float* row) {
    values_ = *reinterpret_cast<const float4*>(row + tile_lane() / 16 * 4);
  }
};

template <>
struct TileB<float> {
  float4 values_;
  __device__ __forceinline__ void load(const float* first, int stride) {
    values_ =
        *reinterpret_cast<const float4*>(first + tile_lane() % 16 * stride + tile_lane() / 16 * 4);
  }
};

template <>
struct TileC<float> : MatrixTileC {};

__device__ __forceinline__ void mma(TileC<float>& c, const TileA<float>& a, const TileB<float>& b) {
  const float x[4] = {a.values_.x, a.values_.y, a.values_.z, a.values_.w};
  const float y[4] = {b.values_.x, b.values_.y, b.values_.z, b.values_.w};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    c.values_ = __builtin_amdgcn_mfma_f32_16x16x4f32(x[i], y[i], c.values_, 0, 0, 0);
}

#else

template <>
struct TileA<float> : FmaTileA<float> {};
template <>
struct TileB<float> : FmaTileB<float> {};
template <>
struct TileC<float> : FmaTileC {};

#endif

// No tf32 units: full float32.
template <>
struct TileA<Tf32> : TileA<float> {};
template <>
struct TileB<Tf32> : TileB<float> {};
template <>
struct TileC<Tf32> : TileC<float> {};

}  // namespace marketplace::gpu
