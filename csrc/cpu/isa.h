// Which kernels this build has and which one this machine runs.
#pragma once

#include <string>
#include <vector>

#include "core/dtype.h"
#include "cpu/kernels/table.h"

namespace marketplace::cpu {

std::vector<std::string> compiled_isas();

// The best table that the machine can run, or the one that MARKETPLACE_ISA names; throws when that
// one is unknown or cannot run here.
const KernelTable& active_kernels();

// The kernels whose activations are of this type; nothing else is computed on a CPU.
const TypedKernels& typed_kernels(const KernelTable& kernels, DType dtype);

}  // namespace marketplace::cpu
