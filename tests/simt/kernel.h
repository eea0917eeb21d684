// Runs a grid: every thread a fiber, one block after the other, blocks and threads in an order
// drawn from the seed. Threads are left at barriers and warp-wide operations only, so between two
// of them one thread may run far ahead of another: what needs a barrier and has none shows.
#pragma once

#include <cstddef>
#include <functional>
#include <source_location>
#include <string>

#include "random.h"
#include "types.h"

namespace simt {

inline constexpr int kWarpSize = MARKETPLACE_SIMT;
static_assert(kWarpSize == 32 || kWarpSize == 64);

using Where = std::source_location;

struct Launch {
  const void* kernel = nullptr;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  std::function<void()> body;  // one thread
};

// Runs all blocks; returns what went wrong, empty when nothing did.
std::string run_grid(const Launch& launch, Random& random);

// The rest is for code inside a kernel.

// Ends the launch: "message (block 3, thread 7)". The stacks of its threads are forgotten.
[[noreturn]] void kernel_failure(const char* message);

// The same from within a collective's finish().
void collective_failure(const char* message);

// Waits for all threads of the block; the sum of their values.
int block_barrier(int value, const Where& where);

// Waits for all lanes of the warp, then runs finish(slots) once, with what every lane handed in.
void warp_collective(void* slot, void (*finish)(void* const* slots), const Where& where);

std::byte* dynamic_shared_memory();

// Asynchronous copies of 16 bytes: done at some time between the call and the wait.
void check_copy(const void* shared, const void* global);  // 16-byte aligned
void start_copy(void* shared, const void* global, bool valid);
void commit_copies();
void wait_copies(std::size_t pending_groups);

}  // namespace simt

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
