// A warp of 32 lanes and what an instruction of PTX does to it.
//
// Registers are arrays of 32 values in the warp's frame, predicates are masks of 32 bits.
// Immediates and special registers lie there too, so that every operand is an offset into the
// frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptx {

inline constexpr int kLanes = 32;
inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFFu;
inline constexpr int kMostOperands = 14;

struct Warp;
struct Instruction;
using Operation = void (*)(Warp&, const Instruction&);
using Operations = std::map<std::string, Operation>;

// As ptx_encode.py writes it.
struct Encoded {
  std::int64_t number;  // an address's offset, the groups that may be pending
  std::int32_t operation;
  std::int32_t guard;    // a predicate's offset; -1: none
  std::int32_t negated;  // whether the guard must be false
  std::int32_t line;
  std::int32_t target;       // of a branch
  std::int32_t size, count;  // of what is loaded or stored: bytes of an element, elements
  std::int32_t is_signed;    // whether what is loaded is extended by its sign
  std::int32_t offsets[kMostOperands];  // -1: none
  std::int32_t widths[kMostOperands];   // bytes of a lane's value
};

// What an instruction's accesses to a memory cost: wavefronts of shared, sectors of global memory.
struct Cost {
  std::uint64_t accesses, passes, least;
};

struct Instruction : Encoded {
  Operation run;
  // the memory that this instruction used last, see find_memory
  mutable std::uint64_t low, high, launch;
  mutable Cost shared, global;
};

// Of a kernel, over all its launches.
struct Counts {
  std::uint64_t launches, instructions;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::byte> constants;  // the beginning of every frame
  std::size_t frame_bytes;
  Counts counts;
};

// One asynchronous copy into shared memory that a lane has begun.
struct Copy {
  std::int64_t group;
  std::uint32_t shared;
  std::uint64_t global;
  std::uint32_t bytes;  // the rest of the 16 is zeros
  const Instruction* instruction;
};

struct Block {
  Kernel* kernel;
  int index, blocks, threads;
  std::byte* shared;
  std::uint32_t shared_end;
  const std::byte* parameters;
  std::size_t parameter_bytes;
  std::uint64_t launch;
  std::uint32_t interval;  // between barriers, another one in every block
  bool any;                // what lanes said at the barrier that warps are coming to
};

struct Warp {
  Block* block;
  std::byte* frame;
  int index;
  std::uint32_t live;           // lanes that have not come to their end
  std::uint32_t running;        // lanes that are here together
  std::uint32_t active;         // those of them that do this instruction
  int at;                       // the next instruction
  int waiting_at[kLanes];       // of the other lanes
  std::uint16_t turn;           // barriers of this warp alone that it has passed
  bool stopped;                 // at a barrier or at the end
  const Instruction* asking;    // the barrier at which it waits to be told of all lanes
  std::int64_t groups[kLanes];  // of copies, that a lane has committed
  std::deque<Copy> copies[kLanes];

  template <class T>
  T* lanes(const Instruction& instruction, int operand) {
    return reinterpret_cast<T*>(frame + instruction.offsets[operand]);
  }
  std::uint32_t& predicate(const Instruction& instruction, int operand) {
    return *lanes<std::uint32_t>(instruction, operand);
  }
};

// Lets the lanes at the lowest place run: what lies behind a branch is laid out after it, so that
// lanes that went apart meet where they should.
void choose_lanes(Warp& warp);

// The error of a lane, -1: of all. `what` is said after kernel, line, block, warp and lane.
[[noreturn]] void fail(const Warp& warp, const Instruction& instruction, int lane,
                       const std::string& what);

template <class F>
inline void each_lane(std::uint32_t mask, F&& body) {
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) body(lane);
    return;
  }
  for (; mask != 0; mask &= mask - 1) body(__builtin_ctz(mask));
}

inline void set_predicate(Warp& warp, std::uint32_t& predicate, std::uint32_t bits) {
  predicate = (predicate & ~warp.active) | (bits & warp.active);
}

void add_arithmetic(Operations& operations);
void add_comparisons(Operations& operations);
void add_bits(Operations& operations);
void add_conversions(Operations& operations);
void add_memory(Operations& operations);
void add_copies(Operations& operations);
void add_matrices(Operations& operations);
void add_control(Operations& operations);

}  // namespace ptx
