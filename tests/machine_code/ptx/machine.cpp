// Blocks one after another, their warps in turn from barrier to barrier; what ptx.py calls.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "memory.h"

namespace ptx {
namespace {

constexpr std::uint64_t kLongest =
    200'000'000;  // instructions of one warp: more is a loop without end

std::string error;
std::uint64_t launches = 0;
std::uint32_t intervals = 0;

struct Table {
  std::vector<std::string> names;
  Operations operations;
};

const Table& table() {
  static const Table made = [] {
    Table table;
    for (const auto add : {add_arithmetic, add_comparisons, add_bits, add_conversions, add_memory,
                           add_copies, add_matrices, add_control})
      add(table.operations);
    for (const auto& [name, operation] : table.operations) table.names.push_back(name);
    return table;
  }();
  return made;
}

// The special registers' places in a frame; -1: not used.
struct Specials {
  std::int32_t tid, ctaid, ntid, nctaid, laneid;
};

struct Loaded : Kernel {
  Specials specials;
  std::uint32_t shared_bytes;  // those with names; dynamic ones come behind
  std::size_t parameter_bytes;
};

void fill(Warp& warp, std::int32_t offset, std::uint32_t first, std::uint32_t step) {
  if (offset < 0) return;
  auto* values = reinterpret_cast<std::uint32_t*>(warp.frame + offset);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) values[lane] = first + lane * step;
}

void begin(Warp& warp, Block& block, const Specials& specials, int index) {
  const int first = index * kLanes, lanes = std::min(kLanes, block.threads - first);
  warp.block = &block;
  warp.index = index;
  warp.live = warp.running = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
  warp.at = 0;
  warp.turn = 0;
  warp.asking = nullptr;
  std::fill_n(warp.groups, kLanes, 0);
  for (auto& copies : warp.copies) copies.clear();
  fill(warp, specials.tid, first, 1);
  fill(warp, specials.laneid, 0, 1);
  fill(warp, specials.ctaid, block.index, 0);
  fill(warp, specials.ntid, block.threads, 0);
  fill(warp, specials.nctaid, block.blocks, 0);
}

// Tells a warp that asks at a barrier what the lanes of all warps said there.
void answer(Warp& warp, bool any) {
  if (warp.asking == nullptr) return;
  warp.active = warp.live;
  set_predicate(warp, warp.predicate(*warp.asking, 0), any ? kAllLanes : 0);
  warp.asking = nullptr;
}

// Runs to the next barrier or to the end.
void advance(Warp& warp) {
  const Instruction* code = warp.block->kernel->code.data();
  std::uint64_t done = 0;
  for (warp.stopped = false; !warp.stopped; ++done) {
    const Instruction& instruction = code[warp.at++];
    warp.active = warp.running;
    if (instruction.guard >= 0) {
      const auto guard = *reinterpret_cast<const std::uint32_t*>(warp.frame + instruction.guard);
      warp.active &= instruction.negated ? ~guard : guard;
    }
    instruction.run(warp, instruction);
    if (done == kLongest) fail(warp, instruction, -1, "a loop without end");
  }
  warp.block->kernel->counts.instructions += done;
}

void run_block(Block& block, std::vector<Warp>& warps, const Specials& specials) {
  // what a block finds in shared memory is what another one left
  std::memset(block.shared, 0xFF, block.shared_end);
  block.any = false;
  for (std::size_t i = 0; i < warps.size(); ++i)
    begin(warps[i], block, specials, static_cast<int>(i));
  for (bool some = true; some;) {
    some = false;
    block.interval = ++intervals;
    const bool any = std::exchange(block.any, false);
    for (Warp& warp : warps) {
      if (warp.live == 0) continue;
      answer(warp, any);
      advance(warp);
      some = some || warp.live != 0;
    }
  }
}

// Frames of a launch's warps, in memory that the next launch uses again.
std::vector<Warp> make_warps(const Loaded& kernel, int threads) {
  static std::vector<std::byte> memory;
  std::vector<Warp> warps((threads + kLanes - 1) / kLanes);
  const std::size_t needed = warps.size() * kernel.frame_bytes + 64;
  if (memory.size() < needed) memory.resize(needed);
  std::byte* frame =
      memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
  for (Warp& warp : warps) {
    warp.frame = frame;
    std::memcpy(frame, kernel.constants.data(), kernel.constants.size());
    frame += kernel.frame_bytes;
  }
  return warps;
}

std::vector<Instruction> decode(const Encoded* code, std::size_t count) {
  std::vector<Instruction> decoded(count);
  for (std::size_t i = 0; i < count; ++i) {
    static_cast<Encoded&>(decoded[i]) = code[i];
    decoded[i].run = table().operations.at(table().names[code[i].operation]);
    decoded[i].launch = 0;
    decoded[i].shared = decoded[i].global = {};
  }
  return decoded;
}

}  // namespace

void fail(const Warp& warp, const Instruction& instruction, int lane, const std::string& what) {
  std::string text = warp.block->kernel->name + ": line " + std::to_string(instruction.line) +
                     ", block " + std::to_string(warp.block->index) + ", warp " +
                     std::to_string(warp.index);
  if (lane >= 0) text += ", lane " + std::to_string(lane);
  throw std::runtime_error(text + ": " + what);
}

}  // namespace ptx

extern "C" {

void ptx_use_allocations(ptx::FindAllocation find) {
  ptx::use_allocations(find);
}

// The number of an operation; negative: there is none of this name.
int ptx_operation(const char* name) {
  const auto& names = ptx::table().names;
  const auto found = std::lower_bound(names.begin(), names.end(), name);
  return found == names.end() || *found != name ? -1 : static_cast<int>(found - names.begin());
}

ptx::Loaded* ptx_load(const char* name, const ptx::Encoded* code, std::size_t count,
                      const std::byte* constants, std::size_t constant_bytes,
                      std::size_t frame_bytes, const ptx::Specials* specials,
                      std::uint32_t shared_bytes, std::size_t parameter_bytes) {
  auto* kernel = new ptx::Loaded{};
  kernel->name = name;
  kernel->code = ptx::decode(code, count);
  kernel->constants.assign(constants, constants + constant_bytes);
  kernel->frame_bytes = (frame_bytes + 63) / 64 * 64;
  kernel->specials = *specials;
  kernel->shared_bytes = shared_bytes;
  kernel->parameter_bytes = parameter_bytes;
  return kernel;
}

// 0 where all went well, else ptx_error says what did not.
int ptx_run(ptx::Loaded* kernel, int blocks, int threads, std::uint32_t dynamic_bytes,
            const std::byte* parameters) try {
  ++kernel->counts.launches;
  const std::uint32_t end = ptx::kSharedBegin + kernel->shared_bytes + dynamic_bytes;
  static std::vector<std::byte> shared(ptx::kSharedBegin + ptx::kMostShared + 64);
  std::byte* const begin =
      shared.data() + (64 - reinterpret_cast<std::uintptr_t>(shared.data()) % 64) % 64;
  std::vector<ptx::Warp> warps = ptx::make_warps(*kernel, threads);
  ++ptx::launches;
  for (int index = 0; index < blocks; ++index) {
    ptx::Block block = {kernel,        index, blocks,     threads,
                        begin,         end,   parameters, kernel->parameter_bytes,
                        ptx::launches, 0,     false};
    ptx::run_block(block, warps, kernel->specials);
  }
  return 0;
} catch (const std::exception& thrown) {
  ptx::error = thrown.what();
  return 1;
}

const char* ptx_error() {
  return ptx::error.c_str();
}

const ptx::Counts* ptx_counts(const ptx::Loaded* kernel) {
  return &kernel->counts;
}

// What an instruction's accesses to shared and to global memory cost.
void ptx_costs(const ptx::Loaded* kernel, std::size_t index, ptx::Cost* costs) {
  costs[0] = kernel->code[index].shared;
  costs[1] = kernel->code[index].global;
}

}  // extern "C"
