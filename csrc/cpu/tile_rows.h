// How the rows of a product meet matrix units (kernels/contract_tiles.h), and what that needs.
#pragma once

#include "cpu/program.h"

namespace marketplace::cpu {

// Follows from the layer's shapes alone. step: elements between rows of a line of `line` rows.
TileRows tile_rows(const Contraction& c, std::int64_t line, std::int64_t step);

// Scratch that gathered rows need, however many samples there are; 0 where they stay.
std::int64_t tile_workspace_bytes(const Contraction& c);

}  // namespace marketplace::cpu
