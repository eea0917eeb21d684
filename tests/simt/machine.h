// The emulated machine behind api.h: devices, their memory, and the work that waits to be done.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "api.h"
#include "control.h"

namespace simt {

inline constexpr int kMaxDevices = 4;

// Whose memory a piece of work may touch: a copy that of the devices it names; a kernel its own
// device's, and what peers allocated outside of pools where access to them has been enabled.
struct Access {
  unsigned devices = 0;  // one bit each
  int kernel_device = -1;
};

// One piece of work; done after everything that names it in `next`.
struct Operation {
  std::function<void()> run;
  Access access;
  std::vector<std::shared_ptr<Operation>> next;
  int unmet = 0;
  bool done = false;
};
using Work = std::shared_ptr<Operation>;

struct GraphNode {
  std::function<void()> run;
  Access access;
  std::vector<std::size_t> after;
};

// A graph being recorded.
struct Capture {
  std::vector<GraphNode> nodes;
  bool invalid = false;
  bool open = true;
};

struct Graph {
  std::vector<GraphNode> nodes;
};

struct Stream {
  int device = 0;
  Work tail;
  std::shared_ptr<Capture> capture;
  bool began_capture = false;
  std::vector<std::size_t> capture_tail;
};

struct Event {
  int device = 0;
  bool timed = false;
  Work work;
  std::shared_ptr<double> time;
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> nodes;
};

struct MemoryPool {
  int device = 0;
  unsigned peers = 0;  // that reach it, one bit each
};

struct Allocation {
  char* data = nullptr;
  std::size_t bytes = 0;
  int device = -1;  // -1: pinned host memory
  bool pooled = false;
  bool live = true;      // reached by its stream
  bool freed = false;    // its end is on the way
  bool visible = false;  // not poisoned
  unsigned peers = 0;    // that reached its pool when it was allocated
};

// MARKETPLACE_SIMT_SEED, _DEVICES, _PEERS, _POOLS, _MEMORY: for programs that cannot call reset().
Machine machine_of_environment();

class State {
 public:
  State() { start(machine_of_environment()); }
  void start(const Machine& next);
  // Adds work behind `stream` and `others`.
  Work add(Stream& stream, std::function<void()> run, Access access,
           const std::vector<Work>& others = {});
  Work add(const std::vector<Work>& after, std::function<void()> run, Access access);
  // Adds work to the stream, or to the graph that it records.
  void put(Stream& stream, std::function<void()> run, Access access);
  void progress();  // what a device may do while the host goes on
  void run_until(const Work& work);
  void run_all();

  Stream* find(cudaStream_t stream);
  cudaError_t begin_allocation(std::size_t bytes, int device);
  Allocation& allocate(std::size_t bytes, int device, bool pooled, bool live);
  void release(Allocation* allocation);
  // The allocation that holds [data, data + bytes), or null.
  Allocation* find(const void* data, std::size_t bytes);
  void hide_all();
  std::size_t used_bytes(int device) const;

  template <class T>
  T* adopt(T* handle) {
    handles.insert(handle);
    if constexpr (std::is_same_v<T, Stream>) streams.insert(handle);
    return handle;
  }
  template <class T>
  cudaError_t destroy(T* handle) {
    if (handles.erase(handle) == 0) return cudaErrorInvalidResourceHandle;
    if constexpr (std::is_same_v<T, Stream>) streams.erase(handle);
    delete handle;
    return cudaSuccess;
  }
  bool knows(const void* handle) const { return handles.count(handle) > 0; }

  std::recursive_mutex mutex;
  Machine machine;
  Random random;
  Counts counts;
  std::string lost;  // why every call fails
  int allocation_to_fail = 0, launch_to_fail = 0, copy_to_fail = 0;
  std::array<std::array<bool, kMaxDevices>, kMaxDevices> peers = {};
  std::array<Stream, kMaxDevices> default_streams;  // handles 0 and 1
  std::array<Stream, kMaxDevices> thread_streams;   // handle 2; one thread's, all threads'
  std::map<std::pair<const void*, int>, std::size_t> shared_limits;  // of a kernel on a device
  std::set<const void*> handles;
  std::set<Stream*> streams;
  std::map<std::uintptr_t, Allocation> memory;
  double clock = 0;

 private:
  void run_one();
  void show(const Access& access);
  std::vector<Work> ready_;
};

State& state();
int current_device();

// Remembers an error for cudaGetLastError.
cudaError_t report(cudaError_t error);
std::string kernel_name(const void* kernel);
// Counts down to the failure that a test asked for.
bool fails_now(int& countdown);

// One call of the API: under the lock, refused on a lost machine; afterwards the host sees no
// device memory.
template <class F>
cudaError_t call(F&& body) {
  State& now = state();
  const std::lock_guard lock(now.mutex);
  if (!now.lost.empty()) return report(cudaErrorLaunchFailure);
  const cudaError_t error = body(now);
  now.hide_all();
  return report(now.lost.empty() ? error : cudaErrorLaunchFailure);
}

// A call that must also clean up a lost machine.
template <class F>
cudaError_t call_always(F&& body) {
  State& now = state();
  const std::lock_guard lock(now.mutex);
  const cudaError_t error = body(now);
  now.hide_all();
  return report(error);
}

}  // namespace simt
