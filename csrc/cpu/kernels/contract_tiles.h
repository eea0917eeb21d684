// contract.h's sums on matrix units, for bfloat16: blocks of two tiles of rows by two of columns.
// Tiles load their rows where they lie in the image, or from a copy (see TileRows). k ascends
// whichever way, so a result does not depend on it.
#pragma once

#include "cpu/kernels/contract.h"
#include "cpu/kernels/tiles.h"

namespace {

using marketplace::cpu::TileRows;

static_assert(kTileHeight == marketplace::cpu::kMatrixRows);
static_assert(kTileSteps == marketplace::cpu::kMatrixSteps);
static_assert(kVectorFloats == kTileHeight && kTileVectors == 2);

// Elements of a panel for one step of tiles and one vector of columns.
constexpr std::int64_t kTilePanel = kTileSteps * kVectorFloats;

// What tiles load: segments of all samples, cut into tiles of `height` positions.
struct TileSource {
  const BFloat16* in;
  TileRows rows;
  std::int64_t samples, sample_stride;
  const std::int64_t* row_offset;  // of one sample
  const std::int64_t* run_offset;  // (runs)
  std::int64_t runs, run_length;   // whole steps
  std::int64_t height, parts;      // positions of a tile, tiles of a segment

  void cut() {
    parts = (rows.positions + kTileHeight - 1) / kTileHeight;
    height = parts == 1 ? rows.positions : kTileHeight;
  }
  std::int64_t tiles() const { return samples * rows.segments * parts; }
  std::int64_t segment_rows() const {
    return rows.positions / rows.pitch * rows.line + rows.positions % rows.pitch;
  }
};

// One tile: its first position counted in its segment, where that lies, and the first row of the
// product that is among its positions, or behind them.
struct TilePlace {
  const BFloat16* in;
  std::int64_t column, row;

  // A segment's last tile begins early enough to be whole: some rows are computed twice.
  TilePlace(const TileSource& from, std::int64_t tile) {
    const TileRows& rows = from.rows;
    const std::int64_t segment = tile / from.parts, sample = segment / rows.segments;
    std::int64_t position = tile % from.parts * from.height;
    if (position + from.height > rows.positions) position = rows.positions - from.height;
    const std::int64_t first = segment % rows.segments * from.segment_rows();
    in = from.in + sample * from.sample_stride + from.row_offset[first] + position * rows.step;
    column = position % rows.pitch;
    row = segment * from.segment_rows() + position / rows.pitch * rows.line +
          (column < rows.line ? column : rows.line);
  }
};

// One panel block, its bias and where its results go.
template <class Out, int Vectors>
struct TileColumns {
  const BFloat16* panel;
  Vec bias[Vectors], floor;
  int columns;
  Out* out;
  std::int64_t out_row_stride;
};

template <int Tiles, int Vectors>
MP_INLINE void multiply_step(const BFloat16* const (&rows)[Tiles], std::int64_t row_bytes,
                             const BFloat16* panel) {
  // products with the same columns follow one another: the unit keeps them
  load_tile<kColumns>(panel, Vectors * kTileBytes);
  load_tile<kRows>(rows[0], row_bytes);
  if constexpr (Tiles == 2) load_tile<kRows + 1>(rows[1], row_bytes);
  if constexpr (Vectors == 2) load_tile<kColumns + 1>(panel + kTileSteps, Vectors * kTileBytes);
  multiply_tiles<kSums, kRows, kColumns>();
  if constexpr (Tiles == 2) multiply_tiles<kSums + 2, kRows + 1, kColumns>();
  if constexpr (Vectors == 2) multiply_tiles<kSums + 1, kRows, kColumns + 1>();
  if constexpr (Tiles == 2 && Vectors == 2) multiply_tiles<kSums + 3, kRows + 1, kColumns + 1>();
}

template <int Tiles, int Vectors>
MP_INLINE void sum_tiles(const TileSource& from, const TilePlace* places, const BFloat16* panel) {
  zero_tile<kSums>(), zero_tile<kSums + 1>(), zero_tile<kSums + 2>(), zero_tile<kSums + 3>();
  const std::int64_t row_bytes = from.rows.step * static_cast<std::int64_t>(sizeof(BFloat16));
  for (std::int64_t r = 0; r < from.runs; ++r) {
    const BFloat16* rows[Tiles];
    for (int i = 0; i < Tiles; ++i) rows[i] = places[i].in + from.run_offset[r];
    for (std::int64_t k = 0; k < from.run_length; k += kTileSteps) {
      multiply_step<Tiles, Vectors>(rows, row_bytes, panel);
      for (int i = 0; i < Tiles; ++i) rows[i] += kTileSteps;
      panel += Vectors * kTilePanel;
    }
  }
}

// Adds the bias, clamps, rounds; positions between two lines are dropped.
template <class Out, int Vectors>
MP_INLINE void finish_rows(const TileColumns<Out, Vectors>& to, const TileSource& from,
                           const TilePlace& place, const float* sums) {
  Out* out = to.out + place.row * to.out_row_stride;
  std::int64_t column = place.column;
  for (std::int64_t i = 0; i < from.height; ++i, sums += Vectors * kVectorFloats) {
    if (column < from.rows.line) {
      Vec values[Vectors];
      for (int j = 0; j < Vectors; ++j)
        values[j] = max(load(sums + j * kVectorFloats) + to.bias[j], to.floor);
      store_row<Out, Vectors>(out, values, to.columns);
      out += to.out_row_stride;
    }
    if (++column == from.rows.pitch) column = 0;
  }
}

template <class Out, int Tiles, int Vectors>
MP_INLINE void contract_tiles_block(const TileSource& from, const TileColumns<Out, Vectors>& to,
                                    std::int64_t tile) {
  constexpr int kSumFloats = kTileHeight * Vectors * kVectorFloats;
  constexpr std::int64_t kStride = Vectors * kTileBytes;
  alignas(kTileBytes) float sums[Tiles][kSumFloats];
  const TilePlace places[2] = {{from, tile}, {from, tile + Tiles - 1}};
  sum_tiles<Tiles, Vectors>(from, places, to.panel);
  store_tile<kSums>(sums[0], kStride);
  if constexpr (Vectors == 2) store_tile<kSums + 1>(sums[0] + kVectorFloats, kStride);
  if constexpr (Tiles == 2) store_tile<kSums + 2>(sums[1], kStride);
  if constexpr (Tiles == 2 && Vectors == 2) store_tile<kSums + 3>(sums[1] + kVectorFloats, kStride);
  for (int i = 0; i < Tiles; ++i) finish_rows(to, from, places[i], sums[i]);
}

template <class Out, int Vectors>
static void contract_tiles_columns(const ContractArgs& args, const TileSource& from,
                                   const BFloat16* panel, std::int64_t column, int columns,
                                   Out* out) {
  TileColumns<Out, Vectors> to;
  to.panel = panel;
  for (int j = 0; j < Vectors; ++j) {
    const int left = columns - j * kVectorFloats;
    to.bias[j] = args.bias ? load_lanes(args.bias + column + j * kVectorFloats,
                                        left < kVectorFloats ? left : kVectorFloats)
                           : Vec{};
  }
  to.floor = broadcast(args.relu ? 0.0f : -__builtin_inff());
  to.columns = columns;
  to.out = out + column;
  to.out_row_stride = args.out_row_stride;
  const std::int64_t tiles = from.tiles();
  std::int64_t tile = 0;
  for (; tile + 2 <= tiles; tile += 2) contract_tiles_block<Out, 2, Vectors>(from, to, tile);
  if (tile < tiles) contract_tiles_block<Out, 1, Vectors>(from, to, tile);
}

template <class Out>
MP_INLINE void contract_tile_rows(const ContractArgs& args, TileSource from, Out* out) {
  from.cut();
  configure_tiles(static_cast<int>(from.height));
  const BFloat16* panel = static_cast<const BFloat16*>(args.panel);
  const std::int64_t depth = from.runs * from.run_length;
  for (std::int64_t column = 0; column < args.columns; column += kBlockColumns) {
    const std::int64_t left = args.columns - column;
    const int columns = static_cast<int>(left < kBlockColumns ? left : kBlockColumns);
    if (columns > kVectorFloats)
      contract_tiles_columns<Out, 2>(args, from, panel, column, columns, out);
    else
      contract_tiles_columns<Out, 1>(args, from, panel, column, columns, out);
    panel += depth * (columns > kVectorFloats ? kBlockColumns : kVectorFloats);
  }
}

// Copies runs, each with a zero behind an odd one.
class RunCopy {
 public:
  static RunCopy make(std::int64_t length) {
    RunCopy copy;
    copy.whole_ = (length - 1) / kTileSteps * kTileSteps;
    copy.rest_ = length - copy.whole_;
#if defined(__AVX512BW__)
    const std::uint64_t lanes = (std::uint64_t{1} << copy.rest_) - 1;
    copy.load_ = static_cast<__mmask32>(lanes);
    copy.store_ = static_cast<__mmask32>(lanes | lanes << copy.rest_ % 2);
#endif
    return copy;
  }
  __attribute__((always_inline)) void run(const BFloat16* in, BFloat16* out) const {
    for (std::int64_t k = 0; k < whole_; k += kTileSteps)
      std::memcpy(static_cast<void*>(out + k), in + k, kTileBytes);
#if defined(__AVX512BW__)
    _mm512_mask_storeu_epi16(out + whole_, store_, _mm512_maskz_loadu_epi16(load_, in + whole_));
#else
    std::memcpy(static_cast<void*>(out + whole_), in + whole_, sizeof(BFloat16) * rest_);
    if (rest_ % 2) out[whole_ + rest_] = {};
#endif
  }

 private:
  std::int64_t whole_, rest_;  // elements in whole vectors, and behind them
#if defined(__AVX512BW__)
  __mmask32 load_, store_;
#endif
};

// Rows [first, first + count) of all samples' with their runs side by side, as the panel has them,
// and zeros up to a whole step.
MP_INLINE void gather_rows(const ContractArgs& args, std::int64_t first, std::int64_t count,
                           std::int64_t depth, std::int64_t stride, BFloat16* out) {
  const BFloat16* in =
      static_cast<const BFloat16*>(args.in) + first / args.rows * args.sample_stride;
  const std::int64_t stored = stored_length(args.run_length, in), runs = args.runs;
  const std::int64_t* const offsets = args.run_offset;
  const RunCopy copy = RunCopy::make(args.run_length);
  std::int64_t pixel = first % args.rows;
  for (std::int64_t i = 0; i < count; ++i, out += stride) {
    const BFloat16* row = in + args.row_offset[pixel];
    std::memset(static_cast<void*>(out + depth - kTileSteps), 0, kTileBytes);
    for (std::int64_t r = 0; r < runs; ++r) copy.run(row + offsets[r], out + r * stored);
    if (++pixel == args.rows) pixel = 0, in += args.sample_stride;
  }
}

template <class Out>
MP_INLINE void contract_gathered(const ContractArgs& args, Out* out) {
  auto* const gathered = static_cast<BFloat16*>(args.workspace);
  const std::int64_t stored = args.runs * stored_length(args.run_length, gathered);
  const std::int64_t depth = (stored + kTileSteps - 1) / kTileSteps * kTileSteps;
  const std::int64_t stride = marketplace::cpu::gathered_stride(depth), origin = 0;
  const std::int64_t most = args.workspace_bytes / (stride * std::int64_t{sizeof(BFloat16)});
  const std::int64_t total = args.samples * args.rows;
  for (std::int64_t first = 0; first < total; first += most) {
    const std::int64_t count = total - first < most ? total - first : most;
    gather_rows(args, first, count, depth, stride, gathered);
    const TileRows rows{1, count, count, count, stride, false};
    contract_tile_rows(args, {gathered, rows, 1, 0, &origin, &origin, 1, depth, 0, 0},
                       out + first * args.out_row_stride);
  }
}

// Where the rows of all samples are at one distance, they are one segment.
MP_INLINE TileSource source_in_place(const ContractArgs& args) {
  TileSource from{static_cast<const BFloat16*>(args.in),
                  args.tiles,
                  args.samples,
                  args.sample_stride,
                  args.row_offset,
                  args.run_offset,
                  args.runs,
                  args.run_length,
                  0,
                  0};
  TileRows& rows = from.rows;
  if (args.rows == 1) rows.step = args.sample_stride;
  if (rows.segments == 1 && rows.line == rows.positions &&
      args.sample_stride == rows.positions * rows.step) {
    rows.positions *= args.samples;
    rows.line = rows.pitch = rows.positions;
    from.samples = 1;
  }
  return from;
}

template <class Out>
MP_INLINE void contract_tiles_as(const ContractArgs& args) {
  if (args.samples == 0) return;
  Out* out = static_cast<Out*>(args.out);
  if (args.tiles.gathered)
    contract_gathered(args, out);
  else
    contract_tile_rows(args, source_in_place(args), out);
  release_tiles();
}

static void contract_tiles(const ContractArgs& args) {
  if (args.float_out)
    contract_tiles_as<float>(args);
  else
    contract_tiles_as<BFloat16>(args);
}

}  // namespace
