// The sums of a block's tile, spread over its threads. Only contract.cu includes this.
#pragma once

#include <type_traits>

#include "gpu/kernels/contract_tile.h"
#include "gpu/tile_mma.h"

namespace marketplace::gpu {

// A block's sums. Matrix units: every warp holds a grid of 16 x 16 tiles.
template <class T, int Rows, int Columns>
class MatrixSums {
 public:
  __device__ void zero() {
    for (int i = 0; i < kTileRows; ++i)
      for (int j = 0; j < kTileColumns; ++j) sums_[i][j].zero();
  }

  __device__ void add(const std::byte* a, const std::byte* b) {
    const auto* rows = reinterpret_cast<const Element*>(a) + row(0) * kStride;
    add_rows([&](int i) { return rows + i * 16 * kStride; }, b);
  }

  // row_of(i): the k-elements of row(i), 16-byte aligned.
  template <class RowOf>
  __device__ void add_rows(RowOf row_of, const std::byte* b) {
    const auto* columns = reinterpret_cast<const Element*>(b) + first_column() * kStride;
    for (int k = 0; k < kStepBytes / static_cast<int>(sizeof(Element)); k += 16) {
      TileA<T> left[kTileRows];
      for (int i = 0; i < kTileRows; ++i) left[i].load(row_of(i) + k);
      for (int j = 0; j < kTileColumns; ++j) {
        TileB<T> right;
        right.load(columns + j * 16 * kStride + k, kStride);
        for (int i = 0; i < kTileRows; ++i) mma(sums_[i][j], left[i], right);
      }
    }
  }

  // visit(row, column, value) for this thread's share of the block's tile.
  template <class Visit>
  __device__ void for_each(Visit visit) {
    for (int i = 0; i < kTileRows; ++i)
      for (int j = 0; j < kTileColumns; ++j)
        sums_[i][j].for_each([&](int row, int column, float& value) {
          visit(first_row() + i * 16 + row, first_column() + j * 16 + column, value);
        });
  }

 private:
  using Element = typename TileElement<T>::type;
  static constexpr int kStride = kRowBytes / static_cast<int>(sizeof(Element));
  // a warp's grid is as square as it can be: what it loads is used most
  static constexpr int kWarpColumns = Rows <= 32 ? kWarps : Columns <= 32 || Rows > 128 ? 1 : 2;
  static constexpr int kWarpRows = kWarps / kWarpColumns;

 public:
  static constexpr int kTileRows = Rows / kWarpRows / 16;
  // The row of the block's tile that this lane loads of its warp's i-th 16.
  __device__ static int row(int i) { return first_row() + i * 16 + lane() % 16; }

 private:
  static constexpr int kTileColumns = Columns / kWarpColumns / 16;

  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  __device__ static int first_row() { return warp() / kWarpColumns * kTileRows * 16; }
  __device__ static int first_column() { return warp() % kWarpColumns * kTileColumns * 16; }

  TileC<T> sums_[kTileRows][kTileColumns];
};

// Plain float32 without them: every thread holds a grid of sums, rows and columns spread over the
// tile.
template <int Rows, int Columns>
class ThreadSums {
 public:
  __device__ void zero() {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j) sums_[i][j] = 0;
  }

  __device__ void add(const std::byte* a, const std::byte* b) {
    const float* rows = reinterpret_cast<const float*>(a) + row() * kStride;
    const float* columns = reinterpret_cast<const float*>(b) + column() * kStride;
    for (int k = 0; k < kStepBytes / 4; k += 4) {
      Float4 right[kColumns];
      for (int j = 0; j < kColumns; ++j)
        right[j] = *reinterpret_cast<const Float4*>(columns + j * kAcross * kStride + k);
      for (int i = 0; i < kRows; ++i) {
        const Float4 left = *reinterpret_cast<const Float4*>(rows + i * kDown * kStride + k);
        for (int j = 0; j < kColumns; ++j) {
          sums_[i][j] = fmaf(left.x, right[j].x, sums_[i][j]);
          sums_[i][j] = fmaf(left.y, right[j].y, sums_[i][j]);
          sums_[i][j] = fmaf(left.z, right[j].z, sums_[i][j]);
          sums_[i][j] = fmaf(left.w, right[j].w, sums_[i][j]);
        }
      }
      // or the operands of all k are loaded first, and have no room
      for (auto& sums : sums_)
        for (float& sum : sums) keep_order(sum);
    }
  }

  template <class Visit>
  __device__ void for_each(Visit visit) {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j)
        visit(row() + i * kDown, column() + j * kAcross, sums_[i][j]);
  }

 private:
  struct alignas(16) Float4 {
    float x, y, z, w;
  };
  static constexpr int kStride = kRowBytes / 4;
  static constexpr int kDown = Rows <= 32 ? 8 : 16, kAcross = kThreads / kDown;
  static constexpr int kRows = Rows / kDown, kColumns = Columns / kAcross;

  __device__ static int row() { return static_cast<int>(threadIdx.x) / kAcross; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % kAcross; }

  float sums_[kRows][kColumns];
};

template <class T, int Rows, int Columns>
using Sums = std::conditional_t<std::is_same_v<T, float> && !kHasFloatTiles,
                                ThreadSums<Rows, Columns>, MatrixSums<T, Rows, Columns>>;

}  // namespace marketplace::gpu
