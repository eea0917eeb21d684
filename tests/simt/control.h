// What tests decide about the emulated machine, and what they may ask it.
#pragma once

#include <cstdint>
#include <string>

namespace simt {

enum class Schedule {
  random,    // work is done early or late, in any order that streams and events permit
  deferred,  // nothing is done before somebody waits
  eager      // everything is done at once
};

struct Machine {
  std::uint64_t seed = 0;  // of every order that is left open
  int devices = 1;         // 1 to 4
  int capability = 9;      // of compute, the first number
  bool peer_access = true;
  bool memory_pools = true;
  std::int64_t memory_bytes = std::int64_t{1} << 32;  // of each device
  Schedule schedule = Schedule::random;
};

// Starts over with another machine, or the same after a failure. Throws std::logic_error when
// anything of the last one is still alive: memory, streams, events, graphs, pools.
void reset(const Machine& machine);

// The n-th allocation (of device or pinned memory), launch or copy from now on fails; 1 is the
// next, 0 none.
void fail_allocation(int n);
void fail_launch(int n);
void fail_copy(int n);

// The machine is lost: every call from now on reports this launch failure.
void lose_device(const std::string& reason);

// From now on.
void set_schedule(Schedule schedule);

struct Counts {
  std::int64_t launches = 0, graph_launches = 0;  // since reset
  std::int64_t copies = 0, allocations = 0;       // since reset
  std::int64_t pageable_copies = 0;               // since reset, from or to ordinary host memory
  std::int64_t staged_copies = 0;                 // since reset, between devices by way of the host
  std::int64_t bytes_to_devices = 0, bytes_to_host = 0, bytes_among_devices = 0;  // since reset
  std::int64_t live_handles = 0;                 // streams, events, graphs, pools
  std::int64_t live_bytes = 0, live_blocks = 0;  // device and pinned memory
};
Counts counts();

}  // namespace simt
