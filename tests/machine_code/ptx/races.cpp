// Accesses to shared memory that no barrier keeps apart (MARKETPLACE_MACHINE_RACES).
//
// Of every byte it is kept which thread wrote and read it last, and when: between which barriers of
// the block, and after how many of the warp alone. Lanes of a warp are threads like others.
#include <cstdlib>

#include "memory.h"

namespace ptx {
namespace {

constexpr std::uint16_t kLanesOfWarp = 0x8000;  // + the warp
constexpr std::uint16_t kAnyone = 0xFFFF;

struct Touch {
  std::uint32_t interval;
  std::uint16_t thread;  // or one of the above
  std::uint16_t turn;
};

struct Byte {
  Touch written, read;
};

bool watching() {
  static const bool asked = std::getenv("MARKETPLACE_MACHINE_RACES") != nullptr;
  return asked;
}

int warp_of(const Touch& touch) {
  if (touch.thread == kAnyone) return -1;
  return touch.thread & kLanesOfWarp ? touch.thread & ~kLanesOfWarp : touch.thread / kLanes;
}

// Whether nothing keeps what was done apart from what a thread does now.
bool at_once(const Touch& touch, const Warp& warp, std::uint16_t thread) {
  if (touch.interval != warp.block->interval || touch.thread == thread) return false;
  return warp_of(touch) != warp.index || touch.turn == warp.turn;
}

void add_reader(Touch& read, const Warp& warp, std::uint16_t thread) {
  if (read.interval != warp.block->interval)
    read.thread = thread;
  else if (read.thread != thread)
    read.thread = warp_of(read) == warp.index
                      ? static_cast<std::uint16_t>(kLanesOfWarp | warp.index)
                      : kAnyone;
  read.interval = warp.block->interval;
  read.turn = warp.turn;
}

std::string other(const Touch& touch) {
  if (touch.thread == kAnyone) return "threads of several warps";
  if (touch.thread & kLanesOfWarp) return "lanes of warp " + std::to_string(warp_of(touch));
  return "thread " + std::to_string(touch.thread);
}

}  // namespace

void watch_shared(const Warp& warp, const Instruction& instruction, int lane, std::uint64_t address,
                  std::uint32_t bytes, bool writes) {
  if (!watching()) return;
  static std::vector<Byte> touched(kSharedBegin + kMostShared);
  const auto thread = static_cast<std::uint16_t>(warp.index * kLanes + lane);
  for (Byte* byte = &touched[address]; byte != &touched[address] + bytes; ++byte) {
    if (at_once(byte->written, warp, thread))
      fail(warp, instruction, lane,
           "a race with " + other(byte->written) + ", which wrote to " + std::to_string(address));
    if (writes && at_once(byte->read, warp, thread))
      fail(warp, instruction, lane,
           "a race with " + other(byte->read) + ", which read from " + std::to_string(address));
    if (writes)
      byte->written = {warp.block->interval, thread, warp.turn};
    else
      add_reader(byte->read, warp, thread);
  }
}

}  // namespace ptx
