// ld, st.
#include "memory.h"

#include <cstring>

namespace ptx {
namespace {

FindAllocation find_allocation = nullptr;

std::string described(const char* space, std::uint64_t address, std::uint32_t bytes) {
  char text[64];
  std::snprintf(text, sizeof(text), "%s address %#llx of %u bytes", space,
                static_cast<unsigned long long>(address), bytes);
  return text;
}

void check_aligned(const Warp& warp, const Instruction& instruction, int lane, const char* space,
                   std::uint64_t address, std::uint32_t bytes) {
  if (address % bytes != 0)
    fail(warp, instruction, lane, described(space, address, bytes) + ": not aligned");
}

using Find = std::byte* (*)(const Warp&, const Instruction&, int, std::uint64_t, std::uint32_t);
enum class Space { kParameter, kShared, kGlobal };

template <Space kSpace>
constexpr Find kFind = kSpace == Space::kShared   ? find_shared
                       : kSpace == Space::kGlobal ? find_global
                                                  : find_parameter;

// Finds the memory of every active lane.
template <Space kSpace, bool kWrites>
void find_all(Warp& warp, const Instruction& instruction, std::byte* (&memory)[kLanes]) {
  std::uint64_t addresses[kLanes];
  const std::uint32_t bytes = static_cast<std::uint32_t>(instruction.size * instruction.count);
  each_lane(warp.active, [&](int lane) {
    addresses[lane] = address_of(warp, instruction, 0, lane);
    memory[lane] = kFind<kSpace>(warp, instruction, lane, addresses[lane], bytes);
    if constexpr (kSpace == Space::kShared)
      watch_shared(warp, instruction, lane, addresses[lane], bytes, kWrites);
  });
  if constexpr (kSpace == Space::kShared) count_shared(instruction, addresses, warp.active, bytes);
  if constexpr (kSpace == Space::kGlobal) count_global(instruction, addresses, warp.active, bytes);
}

template <class T>
void load_elements(Warp& warp, const Instruction& instruction, std::byte* const (&memory)[kLanes]) {
  for (int i = 0; i < instruction.count; ++i) {
    T* to = warp.lanes<T>(instruction, 1 + i);
    each_lane(warp.active, [=, &memory](int lane) {
      std::memcpy(to + lane, memory[lane] + i * sizeof(T), sizeof(T));
    });
  }
}

template <class T>
void store_elements(Warp& warp, const Instruction& instruction,
                    std::byte* const (&memory)[kLanes]) {
  for (int i = 0; i < instruction.count; ++i) {
    const T* from = warp.lanes<T>(instruction, 1 + i);
    each_lane(warp.active, [=, &memory](int lane) {
      std::memcpy(memory[lane] + i * sizeof(T), from + lane, sizeof(T));
    });
  }
}

// Into registers wider than the elements.
void load_extended(Warp& warp, const Instruction& instruction, std::byte* const (&memory)[kLanes]) {
  for (int i = 0; i < instruction.count; ++i)
    each_lane(warp.active, [&](int lane) {
      std::uint64_t value = 0;
      const int size = instruction.size, width = instruction.widths[1 + i];
      std::memcpy(&value, memory[lane] + i * size, size);
      if (instruction.is_signed && value >> (8 * size - 1) & 1)
        value |= ~std::uint64_t{0} << (8 * size);
      std::memcpy(warp.frame + instruction.offsets[1 + i] + lane * width, &value, width);
    });
}

// From registers wider than the elements.
void store_truncated(Warp& warp, const Instruction& instruction,
                     std::byte* const (&memory)[kLanes]) {
  for (int i = 0; i < instruction.count; ++i)
    each_lane(warp.active, [&](int lane) {
      const int size = instruction.size, width = instruction.widths[1 + i];
      std::memcpy(memory[lane] + i * size, warp.frame + instruction.offsets[1 + i] + lane * width,
                  size);
    });
}

template <Space kSpace>
void load(Warp& warp, const Instruction& instruction) {
  std::byte* memory[kLanes];
  find_all<kSpace, false>(warp, instruction, memory);
  if (instruction.size != instruction.widths[1]) return load_extended(warp, instruction, memory);
  if (instruction.size == 2) return load_elements<std::uint16_t>(warp, instruction, memory);
  if (instruction.size == 4) return load_elements<std::uint32_t>(warp, instruction, memory);
  load_elements<std::uint64_t>(warp, instruction, memory);
}

template <Space kSpace>
void store(Warp& warp, const Instruction& instruction) {
  std::byte* memory[kLanes];
  find_all<kSpace, true>(warp, instruction, memory);
  if (instruction.size != instruction.widths[1]) return store_truncated(warp, instruction, memory);
  if (instruction.size == 2) return store_elements<std::uint16_t>(warp, instruction, memory);
  if (instruction.size == 4) return store_elements<std::uint32_t>(warp, instruction, memory);
  store_elements<std::uint64_t>(warp, instruction, memory);
}

}  // namespace

void use_allocations(FindAllocation find) {
  find_allocation = find;
}

std::byte* find_shared(const Warp& warp, const Instruction& instruction, int lane,
                       std::uint64_t address, std::uint32_t bytes) {
  check_aligned(warp, instruction, lane, "shared", address, bytes);
  if (address < kSharedBegin || address + bytes > warp.block->shared_end)
    fail(warp, instruction, lane, described("shared", address, bytes) + ": out of bounds");
  return warp.block->shared + address;
}

// Looks into the allocation that the instruction used last in this launch first: none goes
// meanwhile.
std::byte* find_global(const Warp& warp, const Instruction& instruction, int lane,
                       std::uint64_t address, std::uint32_t bytes) {
  check_aligned(warp, instruction, lane, "global", address, bytes);
  const bool known = instruction.launch == warp.block->launch;
  if (!known || address < instruction.low || address + bytes > instruction.high) {
    if (!find_allocation(address, &instruction.low, &instruction.high) ||
        address + bytes > instruction.high)
      fail(warp, instruction, lane, described("global", address, bytes) + ": in no allocation");
    instruction.launch = warp.block->launch;
  }
  return reinterpret_cast<std::byte*>(address);
}

std::byte* find_parameter(const Warp& warp, const Instruction& instruction, int lane,
                          std::uint64_t address, std::uint32_t bytes) {
  check_aligned(warp, instruction, lane, "parameter", address, bytes);
  if (address + bytes > warp.block->parameter_bytes)
    fail(warp, instruction, lane, described("parameter", address, bytes) + ": out of bounds");
  return const_cast<std::byte*>(warp.block->parameters) + address;
}

void add_memory(Operations& operations) {
  operations["ld.param"] = load<Space::kParameter>;
  operations["ld.shared"] = load<Space::kShared>;
  operations["st.shared"] = store<Space::kShared>;
  operations["ld.global"] = load<Space::kGlobal>;
  operations["st.global"] = store<Space::kGlobal>;
}

}  // namespace ptx
