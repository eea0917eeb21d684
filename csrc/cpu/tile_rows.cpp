#include "cpu/tile_rows.h"

#include <algorithm>

namespace marketplace::cpu {
namespace {

// A row costs as much to gather as to multiply with so many columns (measured).
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
TileRows in_place(const Contraction& c, std::int64_t line, std::int64_t step) {
  const std::int64_t lines = row_count(c) / line;
  const TileRows apart{lines, line, line, line, step, false};
  if (lines == 1 || step == 0) return apart;
  const std::int64_t distance = c.row_offset[line] - c.row_offset[0], pitch = distance / step;
  if (distance % step != 0 || pitch < line) return apart;
  const TileRows together{1, (lines - 1) * pitch + line, line, pitch, step, false};
  return multiplied_rows(together) < multiplied_rows(apart) ? together : apart;
}

}  // namespace

TileRows tile_rows(const Contraction& c, std::int64_t line, std::int64_t step) {
  TileRows rows = in_place(c, line, step);
  const std::int64_t wasted = multiplied_rows(rows) - row_count(c);
  // a single row meets those of other samples
  const bool wasteful =
      row_count(c) > 1 && wasted * c.columns > row_count(c) * kColumnsLikeGathering;
  rows.gathered = c.run_length % kMatrixSteps != 0 || wasteful;
  return rows;
}

std::int64_t tile_workspace_bytes(const Contraction& c) {
  if (!c.tiles.gathered) return 0;
  const std::int64_t row_bytes = gathered_stride(c.panel_depth) * size_bytes(DType::bfloat16);
  const std::int64_t fitting = kGatheredBytes / row_bytes / kFewestGathered * kFewestGathered;
  return std::max(fitting, kFewestGathered) * row_bytes;
}

}  // namespace marketplace::cpu
