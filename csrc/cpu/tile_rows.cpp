#include "cpu/tile_rows.h"

#include <algorithm>

namespace marketplace::cpu {
namespace {

// A row costs about as much to gather as to multiply with so many columns: a load and a store for
// every step, beside products at the unit's measured rate.
constexpr std::int64_t kColumnsLikeGathering = 48;

// Gathered rows stay in a core's first-level cache, if not even a pair of tiles is larger.
constexpr std::int64_t kGatheredBytes = 32 << 10, kFewestGathered = 2 * kMatrixRows;

std::int64_t row_count(const Contraction& c) {
  return static_cast<std::int64_t>(c.row_offset.size());
}

// Rows that are multiplied for one sample, those that are dropped or computed twice included.
std::int64_t multiplied_rows(const TileRows& rows) {
  return rows.segments * round_up(rows.positions, kMatrixRows);
}

// Each line on its own, or all in one go where they lie a whole number of steps apart.
TileRows in_place(const Contraction& c) {
  const std::int64_t line = c.line, step = c.line_step;
  const std::int64_t lines = row_count(c) / line;
  const TileRows apart{lines, line, line, line, step, false};
  if (lines == 1 || step == 0) return apart;
  const std::int64_t distance = c.row_offset[line] - c.row_offset[0], pitch = distance / step;
  if (distance % step != 0 || pitch < line) return apart;
  const TileRows together{1, (lines - 1) * pitch + line, line, pitch, step, false};
  return multiplied_rows(together) < multiplied_rows(apart) ? together : apart;
}

// Runs side by side as a panel has them, cut into steps.
std::vector<TilePiece> cut_runs(const Contraction& c) {
  std::vector<TilePiece> pieces;
  std::int64_t at = 0;  // in the gathered row
  for (const std::int64_t run : c.run_offset) {
    for (std::int64_t k = 0; k < c.run_length;) {
      const std::int64_t lane = (at + k) % kMatrixSteps;
      const std::int64_t count = std::min(c.run_length - k, kMatrixSteps - lane);
      const auto lanes = static_cast<std::uint32_t>(((std::uint64_t{1} << count) - 1) << lane);
      if (lane == 0 && !pieces.empty()) pieces.back().last = true;
      pieces.push_back({run + k - lane, lanes, false});
      k += count;
    }
    at += round_up(c.run_length, 2);
  }
  pieces.back().last = true;
  return pieces;
}

// Scratch for as many gathered rows as are multiplied in one go.
std::int64_t gathered_bytes(const Contraction& c) {
  const auto runs = static_cast<std::int64_t>(c.run_offset.size());
  const std::int64_t depth = round_up(runs * round_up(c.run_length, 2), kMatrixSteps);
  const std::int64_t row_bytes = gathered_stride(depth) * size_bytes(DType::bfloat16);
  const std::int64_t fitting = kGatheredBytes / row_bytes / kFewestGathered * kFewestGathered;
  return std::max(fitting, kFewestGathered) * row_bytes;
}

}  // namespace

void place_rows(Contraction& c) {
  c.tiles = in_place(c);
  const std::int64_t wasted = multiplied_rows(c.tiles) - row_count(c);
  // a single row meets those of other samples
  const bool wasteful =
      row_count(c) > 1 && wasted * c.columns > row_count(c) * kColumnsLikeGathering;
  c.tiles.gathered = c.run_length % kMatrixSteps != 0 || wasteful;
  if (!c.tiles.gathered) return;
  c.pieces = cut_runs(c);
  c.workspace_bytes = gathered_bytes(c);
}

}  // namespace marketplace::cpu
