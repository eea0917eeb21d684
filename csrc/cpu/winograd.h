// Which convolutions run by minimal filtering (kernels/winograd.h), and what that needs.
#pragma once

#include "cpu/program.h"

namespace marketplace::cpu {

// Outputs along one side of a tile, or 0 where the direct way is better. Follows from the
// layer's shapes, the compute type and the vector's width alone, so a network's bits do not depend
// on its batch, plan or threads. in, out: (C, H, W).
int winograd_outputs(const Op& op, const Shape& in, const Shape& out, DType dtype,
                     const KernelTable& kernels);

// The part of a step's arguments that is known before it runs.
WinogradArgs winograd_args(const Op& op, const Shape& in, const Shape& out, int outputs,
                           DType dtype, const KernelTable& kernels);

std::int64_t winograd_panel_bytes(const WinogradArgs& args, DType dtype,
                                  const KernelTable& kernels);

// Scratch of one call beside its input and result, however many samples it has.
std::int64_t winograd_workspace_bytes(const WinogradArgs& args, DType dtype,
                                      const KernelTable& kernels);

}  // namespace marketplace::cpu
