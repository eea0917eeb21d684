// contract.h's sums on matrix units, for bfloat16: blocks of two tiles of rows by two of columns.
// Tiles load their rows where they lie in the image, or from a copy (see TileRows). k ascends
// whichever way, so a result does not depend on it.
#pragma once

#include "cpu/kernels/contract.h"
#include "cpu/kernels/tiles.h"

namespace {

using marketplace::cpu::TilePiece;
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
  std::int64_t segment_rows;

  void cut() {
    parts = (rows.positions + kTileHeight - 1) / kTileHeight;
    height = parts == 1 ? rows.positions : kTileHeight;
    segment_rows = rows.positions / rows.pitch * rows.line + rows.positions % rows.pitch;
  }
  std::int64_t tiles() const { return samples * rows.segments * parts; }
};

// One tile: where its first position lies, which column of its line that is, and the first row of
// the product that is among its positions, or behind them.
struct TilePlace {
  const BFloat16* in;
  std::int64_t column, row;
};

// All tiles, one after another. Divisions would take longer than many a tile's products.
class TileWalk {
 public:
  explicit TileWalk(const TileSource& from) : from_(from) {}

  MP_INLINE_MEMBER TilePlace next() {
    const TileRows& rows = from_.rows;
    // a segment's last tile begins early enough to be whole: some rows are computed twice
    const std::int64_t over = position_ + from_.height - rows.positions;
    if (over > 0) move(-over);
    const TilePlace place{start_ + position_ * rows.step, column_,
                          row_ + (column_ < rows.line ? column_ : rows.line)};
    move(from_.height);
    if (position_ >= rows.positions) next_segment();
    return place;
  }

 private:
  MP_INLINE_MEMBER void move(std::int64_t positions) {
    const TileRows& rows = from_.rows;
    position_ += positions;
    column_ += positions;
    for (; column_ >= rows.pitch; column_ -= rows.pitch) row_ += rows.line;
    for (; column_ < 0; column_ += rows.pitch) row_ -= rows.line;
  }

  MP_INLINE_MEMBER void next_segment() {
    position_ = column_ = 0;
    first_row_ += from_.segment_rows;
    row_ = first_row_;
    if (++segment_ == from_.rows.segments) {
      segment_ = 0;
      sample_ += from_.sample_stride;
    }
    start_ = sample_ + from_.row_offset[segment_ * from_.segment_rows];
  }

  const TileSource& from_;
  const BFloat16* sample_ = from_.in;
  const BFloat16* start_ = sample_ + from_.row_offset[0];
  std::int64_t segment_ = 0, first_row_ = 0;          // of the product, where the segment begins
  std::int64_t position_ = 0, column_ = 0, row_ = 0;  // row_: where the line begins
};

// The bias of one panel block's columns and where their results go.
template <class Out, int Vectors>
struct TileColumns {
  Vec bias[Vectors], floor;
  int columns;
  Out* out;
  std::int64_t out_row_stride;
};

template <class Out, int Vectors>
MP_INLINE void store_values(Out* out, const Vec (&values)[Vectors], int columns) {
  for (int j = 0; j < Vectors - 1; ++j) store_floats(out + j * kVectorFloats, values[j]);
  constexpr int kBefore = (Vectors - 1) * kVectorFloats;
  store_partial(out + kBefore, values[Vectors - 1], columns - kBefore);
}
#if defined(__AVX512BF16__)
MP_INLINE void store_values(BFloat16* out, const Vec (&values)[2], int columns) {
  const auto lanes = static_cast<__mmask32>((std::uint64_t{1} << columns) - 1);
  _mm512_mask_storeu_epi16(out, lanes,
                           (__m512i)_mm512_cvtne2ps_pbh((__m512)values[1], (__m512)values[0]));
}
#endif

// The sums of up to two tiles on their way out, a few rows at a time: between the products of the
// tiles that follow, whose units would wait otherwise.
template <class Out, int Vectors>
class Leaving {
 public:
  static constexpr std::int64_t kStride = Vectors * kTileBytes;
  static constexpr int kTileFloats = kTileHeight * Vectors * kVectorFloats;
  static constexpr int kFloats = 2 * kTileFloats;

  // sums: (kFloats,), apart from the rest, which so stays in registers
  Leaving(const TileSource& from, const TileColumns<Out, Vectors>& to, float* sums)
      : from_(from), to_(to), sums_(sums) {}

  template <int Tiles>
  MP_INLINE_MEMBER void take(const TilePlace* places) {
    store_tile<kSums>(sums_, kStride);
    if constexpr (Vectors == 2) store_tile<kSums + 1>(sums_ + kVectorFloats, kStride);
    if constexpr (Tiles == 2) store_tile<kSums + 2>(sums_ + kTileFloats, kStride);
    if constexpr (Tiles == 2 && Vectors == 2)
      store_tile<kSums + 3>(sums_ + kTileFloats + kVectorFloats, kStride);
    if constexpr (Tiles == 2) second_ = places[1];
    tiles_ = Tiles;
    begin(places[0], sums_);
  }

  // Adds the bias, clamps, rounds; positions between two lines are dropped.
  MP_INLINE_MEMBER void finish(std::int64_t rows) {
    for (; rows > 0 && left_ > 0; --rows) {
      if (column_ < from_.rows.line) {
        Vec values[Vectors];
        for (int j = 0; j < Vectors; ++j)
          values[j] = max(load(next_ + j * kVectorFloats) + to_.bias[j], to_.floor);
        store_values(out_, values, to_.columns);
        out_ += to_.out_row_stride;
      }
      if (++column_ == from_.rows.pitch) column_ = 0;
      next_ += Vectors * kVectorFloats;
      if (--left_ == 0 && --tiles_ > 0) begin(second_, sums_ + kTileFloats);
    }
  }
  MP_INLINE_MEMBER void finish() { finish(2 * kTileHeight); }

 private:
  MP_INLINE_MEMBER void begin(const TilePlace& place, const float* sums) {
    next_ = sums;
    out_ = to_.out + place.row * to_.out_row_stride;
    column_ = place.column;
    left_ = from_.height;
  }

  const TileSource& from_;
  const TileColumns<Out, Vectors>& to_;
  float* const sums_;
  TilePlace second_{};
  int tiles_ = 0;
  const float* next_ = nullptr;
  Out* out_ = nullptr;
  std::int64_t column_ = 0, left_ = 0;  // of the current row; rows of its tile
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

// The next tiles; meanwhile the sums before them leave.
template <int Tiles, class Out, int Vectors>
MP_INLINE void contract_tiles_block(const TileSource& from, const BFloat16* panel, TileWalk& walk,
                                    Leaving<Out, Vectors>& leaving) {
  constexpr std::int64_t kRowsAtOnce = 4;
  TilePlace places[Tiles];
  for (int i = 0; i < Tiles; ++i) places[i] = walk.next();
  zero_tile<kSums>(), zero_tile<kSums + 1>(), zero_tile<kSums + 2>(), zero_tile<kSums + 3>();
  const std::int64_t row_bytes = from.rows.step * static_cast<std::int64_t>(sizeof(BFloat16));
  for (std::int64_t r = 0; r < from.runs; ++r) {
    const BFloat16* rows[Tiles];
    for (int i = 0; i < Tiles; ++i) rows[i] = places[i].in + from.run_offset[r];
    for (std::int64_t k = 0; k < from.run_length; k += kTileSteps) {
      multiply_step<Tiles, Vectors>(rows, row_bytes, panel);
      for (int i = 0; i < Tiles; ++i) rows[i] += kTileSteps;
      panel += Vectors * kTilePanel;
      leaving.finish(kRowsAtOnce);
    }
  }
  leaving.finish();
  leaving.template take<Tiles>(places);
}

template <class Out, int Vectors>
static void contract_tiles_columns(const ContractArgs& args, const TileSource& from,
                                   const BFloat16* panel, std::int64_t column, int columns,
                                   Out* out) {
  TileColumns<Out, Vectors> to;
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
  alignas(kTileBytes) float sums[Leaving<Out, Vectors>::kFloats];
  Leaving<Out, Vectors> leaving(from, to, sums);
  TileWalk walk(from);
  std::int64_t left = from.tiles();
  for (; left >= 2; left -= 2) contract_tiles_block<2>(from, panel, walk, leaving);
  if (left > 0) contract_tiles_block<1>(from, panel, walk, leaving);
  leaving.finish();
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

#if defined(__AVX512BW__)
typedef __m512i Step;
MP_INLINE void add_piece(const TilePiece& piece, const BFloat16* row, Step& step) {
  step = _mm512_mask_loadu_epi16(step, piece.lanes, row + piece.offset);
}
#else
struct Step {
  BFloat16 elements[kTileSteps];
};
MP_INLINE void add_piece(const TilePiece& piece, const BFloat16* row, Step& step) {
  for (int lane = 0; lane < kTileSteps; ++lane)
    if (piece.lanes >> lane & 1) step.elements[lane] = row[piece.offset + lane];
}
#endif

MP_INLINE void gather_row(const ContractArgs& args, const BFloat16* row, BFloat16* out) {
  Step step{};
  for (std::int64_t i = 0; i < args.piece_count; ++i) {
    add_piece(args.pieces[i], row, step);
    if (!args.pieces[i].last) continue;
    std::memcpy(static_cast<void*>(out), &step, kTileBytes);
    out += kTileSteps;
    step = Step{};
  }
}

// Rows [first, first + count) of all samples'.
MP_INLINE void gather_rows(const ContractArgs& args, std::int64_t first, std::int64_t count,
                           std::int64_t stride, BFloat16* out) {
  const BFloat16* in =
      static_cast<const BFloat16*>(args.in) + first / args.rows * args.sample_stride;
  std::int64_t pixel = first % args.rows;
  for (std::int64_t i = 0; i < count; ++i, out += stride) {
    gather_row(args, in + args.row_offset[pixel], out);
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
    gather_rows(args, first, count, stride, gathered);
    const TileRows rows{1, count, count, count, stride, false};
    contract_tile_rows(args, {gathered, rows, 1, 0, &origin, &origin, 1, depth, 0, 0, 0},
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
