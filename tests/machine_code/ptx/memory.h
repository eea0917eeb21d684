// Where a lane's addresses lie, checked as the hardware and a sanitizer would.
#pragma once

#include <cstdint>

#include "warp.h"

namespace ptx {

// Shared memory begins here, so that a null address is none.
inline constexpr std::uint32_t kSharedBegin = 1024;
inline constexpr std::uint32_t kMostShared = 256 * 1024;

// The address of an operand in its state space.
inline std::uint64_t address_of(Warp& warp, const Instruction& instruction, int operand, int lane) {
  const std::uint64_t number = static_cast<std::uint64_t>(instruction.number);
  if (instruction.offsets[operand] < 0) return number;
  if (instruction.widths[operand] == 8)
    return warp.lanes<std::uint64_t>(instruction, operand)[lane] + number;
  return static_cast<std::uint32_t>(warp.lanes<std::uint32_t>(instruction, operand)[lane] + number);
}

// The memory behind an address, `bytes` of it, which must be aligned to their number.
std::byte* find_shared(const Warp& warp, const Instruction& instruction, int lane,
                       std::uint64_t address, std::uint32_t bytes);
std::byte* find_global(const Warp& warp, const Instruction& instruction, int lane,
                       std::uint64_t address, std::uint32_t bytes);
std::byte* find_parameter(const Warp& warp, const Instruction& instruction, int lane,
                          std::uint64_t address, std::uint32_t bytes);

// Fails where another thread did or does the like at once, see races.cpp.
void watch_shared(const Warp& warp, const Instruction& instruction, int lane, std::uint64_t address,
                  std::uint32_t bytes, bool writes);

// Gives the bounds of the allocation that holds an address; 0 where there is none.
using FindAllocation = int (*)(std::uint64_t address, std::uint64_t* low, std::uint64_t* high);
void use_allocations(FindAllocation find);

// What the accesses of a warp's lanes cost, `active` of them, `bytes` each.
void count_shared(const Instruction& instruction, const std::uint64_t (&addresses)[kLanes],
                  std::uint32_t active, int bytes);
void count_global(const Instruction& instruction, const std::uint64_t (&addresses)[kLanes],
                  std::uint32_t active, int bytes);

}  // namespace ptx
