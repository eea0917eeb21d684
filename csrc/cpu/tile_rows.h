// How the rows of a product meet matrix units (kernels/contract_tiles.h), and what that needs.
#pragma once

#include "cpu/program.h"

namespace marketplace::cpu {

// Chooses by the layer's shapes alone, and sets `tiles`, `pieces` and `workspace_bytes`, which does
// not depend on the samples. step: elements between the rows of a line of `line` rows.
void place_rows(Contraction& c, std::int64_t line, std::int64_t step);

}  // namespace marketplace::cpu
