// How the rows of a product meet matrix units (kernels/contract_tiles.h), and what that needs.
#pragma once

#include "cpu/program.h"

namespace marketplace::cpu {

// Chooses by the layer's shapes alone, and sets `tiles`, `pieces` and `workspace_bytes`, which does
// not depend on the samples.
void place_rows(Contraction& c);

}  // namespace marketplace::cpu
