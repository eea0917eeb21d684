// Matrix units (x86's AMX) as eight tiles of up to 16 rows by 64 bytes, for contract_tiles.h alone.
// Tests compile the same calls as plain C++ (MP_EMULATED_TILES), on machines without such units.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/kernels/simd.h"

namespace {

constexpr int kTileHeight = 16;  // rows of a tile; columns of one that holds sums
constexpr int kTileBytes = 64;   // of a row
constexpr int kTileSteps = 32;   // of k in one product: a row of bfloat16

// Tiles 0 to 3 hold float32 sums (height, 16), 4 and 5 rows (height, 32) of bfloat16, 6 and 7
// columns: 16 pairs of steps, each a row of 16 columns.
constexpr int kSums = 0, kRows = 4, kColumns = 6;

#if !defined(MP_EMULATED_TILES)

struct TileConfig {
  std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// Clears all tiles.
MP_INLINE void configure_tiles(int height) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kTileBytes;
    config.rows[tile] = static_cast<std::uint8_t>(tile < kColumns ? height : kTileHeight);
  }
  asm volatile("ldtilecfg %0" ::"m"(config));
}
// Without it, every switch of threads would save and restore the tiles.
MP_INLINE void release_tiles() {
  asm volatile("tilerelease" ::: "memory");
}
template <int Tile>
MP_INLINE void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
}
template <int Tile>
MP_INLINE void load_tile(const void* rows, std::int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride_bytes), "i"(Tile)
               : "memory");
}
template <int Tile>
MP_INLINE void store_tile(void* rows, std::int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride_bytes), "i"(Tile)
               : "memory");
}
template <int Sums, int Rows, int Columns>
MP_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(Rows), "i"(Columns));
}

#else

struct EmulatedTiles {
  int height = 0;  // 0 while nothing is configured
  unsigned char bytes[8][kTileHeight][kTileBytes] = {};
};
static thread_local EmulatedTiles emulated_tiles;

MP_INLINE void configure_tiles(int height) {
  emulated_tiles = {};
  emulated_tiles.height = height;
}
MP_INLINE void release_tiles() {
  emulated_tiles = {};
}
MP_INLINE int emulated_rows(int tile) {
  return tile < kColumns ? emulated_tiles.height : kTileHeight;
}
template <int Tile>
MP_INLINE void zero_tile() {
  std::memset(emulated_tiles.bytes[Tile], 0, sizeof emulated_tiles.bytes[Tile]);
}
template <int Tile>
MP_INLINE void load_tile(const void* rows, std::int64_t stride_bytes) {
  for (int i = 0; i < emulated_rows(Tile); ++i)
    std::memcpy(emulated_tiles.bytes[Tile][i],
                static_cast<const unsigned char*>(rows) + i * stride_bytes, kTileBytes);
}
template <int Tile>
MP_INLINE void store_tile(void* rows, std::int64_t stride_bytes) {
  for (int i = 0; i < emulated_rows(Tile); ++i)
    std::memcpy(static_cast<unsigned char*>(rows) + i * stride_bytes, emulated_tiles.bytes[Tile][i],
                kTileBytes);
}
template <int Sums, int Rows, int Columns>
MP_INLINE void multiply_tiles() {
  float sums[kTileHeight][kTileHeight];
  BFloat16 rows[kTileHeight][kTileSteps], columns[kTileHeight][kTileHeight][2];
  std::memcpy(sums, emulated_tiles.bytes[Sums], sizeof sums);
  std::memcpy(static_cast<void*>(rows), emulated_tiles.bytes[Rows], sizeof rows);
  std::memcpy(static_cast<void*>(columns), emulated_tiles.bytes[Columns], sizeof columns);
  for (int i = 0; i < emulated_rows(Rows); ++i)
    for (int k = 0; k < kTileSteps; ++k)
      for (int j = 0; j < kTileHeight; ++j)
        sums[i][j] += to_float(rows[i][k]) * to_float(columns[k / 2][j][k % 2]);
  std::memcpy(emulated_tiles.bytes[Sums], sums, sizeof sums);
}

#endif

}  // namespace
