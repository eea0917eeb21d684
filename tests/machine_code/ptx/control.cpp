// Branches, barriers, and what the lanes of a warp tell each other.
#include "operations.h"

namespace ptx {
namespace {

// A label: lanes that wait here or before join.
void meet(Warp& warp, const Instruction&) {
  if (warp.running == warp.live) return;
  --warp.at;
  choose_lanes(warp);
}

void branch(Warp& warp, const Instruction& instruction) {
  if (warp.active == 0) return;
  const std::uint32_t others = warp.running & ~warp.active;
  if (others == 0) {
    warp.at = instruction.target;
    return;
  }
  each_lane(warp.active, [&](int lane) { warp.waiting_at[lane] = instruction.target; });
  warp.running = others;
  choose_lanes(warp);
}

void finish(Warp& warp, const Instruction&) {
  warp.live &= ~warp.active;
  warp.running &= ~warp.active;
  if (warp.live == 0) {
    warp.stopped = true;
    return;
  }
  if (warp.running == 0) choose_lanes(warp);
}

void wait_for_block(Warp& warp, const Instruction& instruction) {
  if (warp.active != warp.live)
    fail(warp, instruction, -1, "a barrier that not all lanes have come to");
  warp.stopped = true;
}

// A barrier behind which all know whether any lane of the block said yes.
void ask_block(Warp& warp, const Instruction& instruction) {
  wait_for_block(warp, instruction);
  warp.block->any |= (warp.predicate(instruction, 1) & warp.active) != 0;
  warp.asking = &instruction;
}

// The lanes that take part, the same for all of them; each must be here.
void check_members(Warp& warp, const Instruction& instruction, int operand) {
  const std::uint32_t* members = warp.lanes<std::uint32_t>(instruction, operand);
  each_lane(warp.active, [&](int lane) {
    if ((members[lane] & ~warp.active) != 0)
      fail(warp, instruction, lane, "lanes of the mask are not here");
    if (!(members[lane] >> lane & 1))
      fail(warp, instruction, lane, "a lane that the mask does not name");
  });
}

void wait_for_warp(Warp& warp, const Instruction& instruction) {
  check_members(warp, instruction, 0);
  ++warp.turn;
}

// What the modes make of a lane, an offset or mask b, and the bounds of the lane's segment.
struct Segment {
  int lane, b, low, high, mask;
};

template <class Source>
Operation shuffle(Source) {
  return [](Warp& warp, const Instruction& instruction) {
    check_members(warp, instruction, 5);
    const std::uint32_t *a = warp.lanes<std::uint32_t>(instruction, 2),
                        *b = warp.lanes<std::uint32_t>(instruction, 3),
                        *c = warp.lanes<std::uint32_t>(instruction, 4);
    std::uint32_t given[kLanes] = {}, found = 0;
    each_lane(warp.active, [&](int lane) {
      const int clamp = c[lane] & 31, mask = c[lane] >> 8 & 31;
      const Segment segment = {lane, static_cast<int>(b[lane] & 31), lane & mask,
                               (lane & mask) | (clamp & ~mask), mask};
      const auto [source, inside] = Source{}(segment);
      if (inside && !(warp.active >> source & 1))
        fail(warp, instruction, lane, "asks a lane that is not here");
      given[lane] = a[inside ? source : lane];
      found |= static_cast<std::uint32_t>(inside) << lane;
    });
    std::uint32_t* to = warp.lanes<std::uint32_t>(instruction, 0);
    each_lane(warp.active, [&](int lane) { to[lane] = given[lane]; });
    if (instruction.offsets[1] >= 0) set_predicate(warp, warp.predicate(instruction, 1), found);
  };
}

struct Source {
  int lane;
  bool inside;
};

void add_shuffles(Operations& operations) {
  operations["shfl.sync.up.b32"] =
      shuffle([](const Segment& s) { return Source{s.lane - s.b, s.lane - s.b >= s.high}; });
  operations["shfl.sync.down.b32"] =
      shuffle([](const Segment& s) { return Source{s.lane + s.b, s.lane + s.b <= s.high}; });
  operations["shfl.sync.bfly.b32"] =
      shuffle([](const Segment& s) { return Source{s.lane ^ s.b, (s.lane ^ s.b) <= s.high}; });
  operations["shfl.sync.idx.b32"] = shuffle([](const Segment& s) {
    const int source = s.low | (s.b & ~s.mask);
    return Source{source, source <= s.high};
  });
}

template <class F>
Operation vote(F) {
  return [](Warp& warp, const Instruction& instruction) {
    check_members(warp, instruction, 2);
    const std::uint32_t yes = warp.predicate(instruction, 1) & warp.active;
    set_predicate(warp, warp.predicate(instruction, 0), F{}(yes, warp.active) ? kAllLanes : 0);
  };
}

void ballot(Warp& warp, const Instruction& instruction) {
  check_members(warp, instruction, 2);
  const std::uint32_t yes = warp.predicate(instruction, 1) & warp.active;
  std::uint32_t* to = warp.lanes<std::uint32_t>(instruction, 0);
  each_lane(warp.active, [=](int lane) { to[lane] = yes; });
}

}  // namespace

void choose_lanes(Warp& warp) {
  each_lane(warp.running, [&](int lane) { warp.waiting_at[lane] = warp.at; });
  int lowest = std::numeric_limits<int>::max();
  each_lane(warp.live, [&](int lane) { lowest = std::min(lowest, warp.waiting_at[lane]); });
  warp.running = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    if ((warp.live >> lane & 1) && warp.waiting_at[lane] == lowest) warp.running |= 1u << lane;
  warp.at = lowest;
  if (warp.block->kernel->code[lowest].run == meet) ++warp.at;
}

void add_control(Operations& operations) {
  operations["label"] = meet;
  operations["bra"] = branch;
  operations["ret"] = finish;
  operations["bar.sync"] = wait_for_block;
  operations["bar.red.or.pred"] = ask_block;
  operations["bar.warp.sync"] = wait_for_warp;
  add_shuffles(operations);
  operations["vote.sync.any.pred"] =
      vote([](std::uint32_t yes, std::uint32_t) { return yes != 0; });
  operations["vote.sync.all.pred"] =
      vote([](std::uint32_t yes, std::uint32_t all) { return yes == all; });
  operations["vote.sync.ballot.b32"] = ballot;
}

}  // namespace ptx
