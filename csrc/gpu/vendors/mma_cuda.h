// Tiles on tensor cores: mma.sync m16n8k16 (bfloat16) and m16n8k8 (tf32), operands by ldmatrix.
// Register layouts: PTX ISA, "Matrix multiply-accumulate operation using mma instruction".
#pragma once

#include "gpu/vendors/mma_fma.h"

namespace marketplace::gpu {

// Four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8 and
// receives elements 2 (l % 4), 2 (l % 4) + 1 of row l / 4 of every matrix.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ int tile_lane() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}

template <>
struct TileA<BFloat16> {
  unsigned words_[4];
  __device__ __forceinline__ void load(const BFloat16* row) {
    load_matrices(words_, row + tile_lane() / 16 * 8);
  }
};

template <>
struct TileB<BFloat16> {
  unsigned words_[4];  // columns 0..7 at k 0..7, k 8..15; then columns 8..15
  __device__ __forceinline__ void load(const BFloat16* first, int stride) {
    const int lane = tile_lane();
    load_matrices(words_,
                  first + (lane % 8 + lane / 16 * 8) * stride + static_cast<int>(lane / 8 % 2) * 8);
  }
};

// The 16x8 halves of C side by side: lane l holds columns 2 (l % 4) and + 1 of rows l / 4 and + 8.
struct TensorTileC {
  float values_[8];

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (float& value : values_) value = 0;
  }
  template <class F>
  __device__ __forceinline__ void for_each(F&& visit) {
    const int row = tile_lane() / 4, column = tile_lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < 8; ++i) visit(row + i / 2 % 2 * 8, column + i % 2 + i / 4 * 8, values_[i]);
  }
};

template <>
struct TileC<BFloat16> : TensorTileC {};
template <>
struct TileC<Tf32> : TensorTileC {};

__device__ __forceinline__ void mma(TileC<BFloat16>& c, const TileA<BFloat16>& a,
                                    const TileB<BFloat16>& b) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* v = c.values_ + half * 4;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
        : "r"(a.words_[0]), "r"(a.words_[1]), "r"(a.words_[2]), "r"(a.words_[3]),
          "r"(b.words_[half * 2]), "r"(b.words_[half * 2 + 1]));
  }
}

// float32 bits to tf32: 10 bits of mantissa, to nearest.
__device__ __forceinline__ void round_to_tf32(unsigned (&words)[4]) {
#pragma unroll
  for (unsigned& word : words)
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(__uint_as_float(word)));
}

template <>
struct TileA<Tf32> {
  unsigned words_[2][4];  // k 0..7, k 8..15
  __device__ __forceinline__ void load(const float* row) {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      load_matrices(words_[step], row + step * 8 + tile_lane() / 16 * 4);
      round_to_tf32(words_[step]);
    }
  }
};

template <>
struct TileB<Tf32> {
  unsigned words_[2][4];
  __device__ __forceinline__ void load(const float* first, int stride) {
    const int lane = tile_lane();
    const float* column = first + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 4;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      load_matrices(words_[step], column + step * 8);
      round_to_tf32(words_[step]);
    }
  }
};

__device__ __forceinline__ void mma(TileC<Tf32>& c, const TileA<Tf32>& a, const TileB<Tf32>& b) {
#pragma unroll
  for (int step = 0; step < 2; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* v = c.values_ + half * 4;
      asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
          : "r"(a.words_[step][0]), "r"(a.words_[step][1]), "r"(a.words_[step][2]),
            "r"(a.words_[step][3]), "r"(b.words_[step][half * 2]),
            "r"(b.words_[step][half * 2 + 1]));
    }
  }
}

template <>
struct TileA<float> : FmaTileA<float> {};
template <>
struct TileB<float> : FmaTileB<float> {};
template <>
struct TileC<float> : FmaTileC {};

}  // namespace marketplace::gpu
