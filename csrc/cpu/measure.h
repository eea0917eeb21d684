// What this machine's kernels reach on data in cache: the yardstick of the benchmarks.
#pragma once

#include "core/dtype.h"
#include "cpu/kernels/table.h"
#include "cpu/thread_pool.h"

namespace marketplace::cpu {

// Floating point operations a second of the contraction kernel, all threads of the pool together.
double measure_peak(const KernelTable& kernels, DType dtype, ThreadPool& pool, double seconds);

// Deltas a second of one thread.
double measure_random(const KernelTable& kernels, double seconds);

}  // namespace marketplace::cpu
