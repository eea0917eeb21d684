#include "machine.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

// Where access is not granted, a touch is an AddressSanitizer error.
void set_visible([[maybe_unused]] const Allocation& allocation, [[maybe_unused]] bool visible) {
#if defined(__SANITIZE_ADDRESS__)
  if (visible)
    __asan_unpoison_memory_region(allocation.data, allocation.bytes);
  else
    __asan_poison_memory_region(allocation.data, allocation.bytes);
#endif
}

}  // namespace

State& state() {
  static State* const state = new State;  // handles in static objects may outlive everything
  return *state;
}

int current_device() {
  return device_of_thread;
}

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

// With a sanitizer by its symbolizer: kernels are mostly local symbols, which dladdr does not know.
std::string kernel_name([[maybe_unused]] const void* kernel) {
#if defined(__SANITIZE_ADDRESS__)
  char name[512] = "";
  // the address after the first byte: a program counter is taken for a return address
  __sanitizer_symbolize_pc(const_cast<char*>(static_cast<const char*>(kernel)) + 1, "%f", name,
                           sizeof name);
  return name;
#else
  return "kernel";
#endif
}

bool fails_now(int& countdown) {
  return countdown > 0 && --countdown == 0;
}

Machine machine_of_environment() {
  const auto number = [](const char* name, std::int64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : static_cast<std::int64_t>(std::stoll(text));
  };
  Machine machine;
  machine.seed = static_cast<std::uint64_t>(number("MARKETPLACE_SIMT_SEED", 0));
  machine.devices = static_cast<int>(number("MARKETPLACE_SIMT_DEVICES", machine.devices));
  machine.peer_access = number("MARKETPLACE_SIMT_PEERS", 1) != 0;
  machine.memory_pools = number("MARKETPLACE_SIMT_POOLS", 1) != 0;
  machine.memory_bytes = number("MARKETPLACE_SIMT_MEMORY", machine.memory_bytes);
  return machine;
}

void State::start(const Machine& next) {
  if (next.devices < 1 || next.devices > kMaxDevices)
    throw std::invalid_argument("simt: 1 to 4 devices");
  lost = {};
  ready_.clear();  // what a lost machine had still to do, with memory that is gone
  machine = next;
  random = Random(next.seed);
  counts = {};
  allocation_to_fail = launch_to_fail = copy_to_fail = 0;
  peers = {};
  default_streams = {};
  thread_streams = {};
  for (int i = 0; i < kMaxDevices; ++i) default_streams[i].device = thread_streams[i].device = i;
  shared_limits.clear();
}

Work State::add(const std::vector<Work>& after, std::function<void()> run, Access access) {
  auto work = std::make_shared<Operation>();
  work->run = std::move(run);
  work->access = access;
  for (const Work& earlier : after) {
    if (earlier == nullptr || earlier->done) continue;
    earlier->next.push_back(work);
    ++work->unmet;
  }
  if (work->unmet == 0) ready_.push_back(work);
  return work;
}

Work State::add(Stream& stream, std::function<void()> run, Access access,
                const std::vector<Work>& others) {
  std::vector<Work> after = others;
  after.push_back(stream.tail);
  stream.tail = add(after, std::move(run), access);
  return stream.tail;
}

void State::progress() {
  if (machine.schedule == Schedule::eager) run_all();
  if (machine.schedule != Schedule::random || random.below(4) != 0) return;
  for (std::size_t steps = random.below(8); steps > 0 && !ready_.empty() && lost.empty(); --steps)
    run_one();
}

void State::run_until(const Work& work) {
  while (work != nullptr && !work->done && lost.empty()) run_one();
}

void State::run_all() {
  while (!ready_.empty() && lost.empty()) run_one();
}

void State::run_one() {
  const Work work = random.take(ready_);
  show(work->access);
  if (work->run) work->run();
  work->run = nullptr;
  work->done = true;
  clock += 1;
  for (const Work& later : work->next)
    if (--later->unmet == 0) ready_.push_back(later);
  work->next.clear();
}

void State::show(const Access& access) {
  for (auto& [address, block] : memory) {
    if (block.device < 0) continue;
    const bool peer =
        access.kernel_device >= 0 && !block.pooled && peers[access.kernel_device][block.device];
    const bool visible = block.live && (peer || (access.devices >> block.device & 1) != 0);
    if (visible != block.visible) set_visible(block, visible);
    block.visible = visible;
  }
}

void State::hide_all() {
  show({});
}

Stream* State::find(cudaStream_t stream) {
  const auto number = reinterpret_cast<std::uintptr_t>(stream);
  if (number <= 1) return &default_streams[current_device()];
  if (number == 2) return &thread_streams[current_device()];
  return knows(stream) ? stream : nullptr;
}

std::size_t State::used_bytes(int device) const {
  std::size_t bytes = 0;
  for (const auto& [address, block] : memory)
    if (block.device == device && !block.freed) bytes += block.bytes;
  return bytes;
}

cudaError_t State::begin_allocation(std::size_t bytes, int device) {
  if (bytes == 0) return cudaErrorInvalidValue;
  if (fails_now(allocation_to_fail)) return cudaErrorMemoryAllocation;
  const auto total = static_cast<std::size_t>(machine.memory_bytes);
  if (device >= 0 && bytes > total - used_bytes(device)) return cudaErrorMemoryAllocation;
  return cudaSuccess;
}

Allocation& State::allocate(std::size_t bytes, int device, bool pooled, bool live) {
  void* data = nullptr;
  if (posix_memalign(&data, 256, bytes) != 0) throw std::bad_alloc();
  std::memset(data, 0xFF, bytes);  // NaN, should it be read unwritten
  Allocation block = {static_cast<char*>(data), bytes, device, pooled, live, false, true};
  if (device >= 0) {
    block.visible = false;
    set_visible(block, false);
  }
  ++counts.allocations;
  return memory[reinterpret_cast<std::uintptr_t>(data)] = block;
}

void State::release(Allocation* block) {
  set_visible(*block, true);
  char* const data = block->data;
  memory.erase(reinterpret_cast<std::uintptr_t>(data));
  std::free(data);
}

Allocation* State::find(const void* data, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  auto after = memory.upper_bound(address);
  if (after == memory.begin()) return nullptr;
  Allocation& block = std::prev(after)->second;
  const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(block.data);
  if (block.freed || offset > block.bytes || bytes > block.bytes - offset) return nullptr;
  return &block;
}

void reset(const Machine& machine) {
  State& now = state();
  const std::lock_guard lock(now.mutex);
  now.run_all();
  const Counts left = counts();
  if (left.live_handles != 0 || left.live_blocks != 0)
    throw std::logic_error("simt::reset: " + std::to_string(left.live_handles) + " handles and " +
                           std::to_string(left.live_blocks) + " blocks of memory are still alive");
  now.start(machine);
  device_of_thread = 0;
  last_error = cudaSuccess;
}

void fail_allocation(int n) {
  state().allocation_to_fail = n;
}
void fail_launch(int n) {
  state().launch_to_fail = n;
}
void fail_copy(int n) {
  state().copy_to_fail = n;
}
void set_schedule(Schedule schedule) {
  state().machine.schedule = schedule;
}
void lose_device(const std::string& reason) {
  state().lost = reason;
}

Counts counts() {
  State& now = state();
  const std::lock_guard lock(now.mutex);
  Counts result = now.counts;
  result.live_handles = static_cast<std::int64_t>(now.handles.size());
  for (const auto& [address, block] : now.memory) {
    if (block.freed) continue;
    ++result.live_blocks;
    result.live_bytes += static_cast<std::int64_t>(block.bytes);
  }
  return result;
}

}  // namespace simt

using simt::call;
using simt::State;

cudaError_t cudaGetDeviceCount(int* count) {
  return call([&](State& now) {
    *count = now.machine.devices;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDevice(int* device) {
  *device = simt::device_of_thread;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return call([&](State& now) {
    if (device < 0 || device >= now.machine.devices) return cudaErrorInvalidDevice;
    simt::device_of_thread = device;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call([&](State& now) {
    if (device < 0 || device >= now.machine.devices) return cudaErrorInvalidDevice;
    // the limits of an H200 with warps of 32, of an MI300 with warps of 64
    const bool wide = simt::kWarpSize == 64;
    *properties = {"SIMT emulation on the CPU",
                   now.machine.capability,
                   0,
                   simt::kWarpSize,
                   4,
                   wide ? 64 * 1024u : 48 * 1024u,
                   wide ? 64 * 1024u : 227 * 1024u,
                   static_cast<std::size_t>(now.machine.memory_bytes)};
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  return call([&](State& now) {
    if (device < 0 || device >= now.machine.devices) return cudaErrorInvalidDevice;
    *value = now.machine.memory_pools;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int* possible, int device, int peer) {
  return call([&](State& now) {
    const int count = now.machine.devices;
    if (device < 0 || device >= count || peer < 0 || peer >= count) return cudaErrorInvalidDevice;
    *possible = now.machine.peer_access && device != peer;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  return call([&](State& now) {
    const int device = simt::current_device();
    if (peer < 0 || peer >= now.machine.devices || peer == device) return cudaErrorInvalidDevice;
    if (!now.machine.peer_access) return cudaErrorPeerAccessUnsupported;
    if (now.peers[device][peer]) return cudaErrorPeerAccessAlreadyEnabled;
    now.peers[device][peer] = true;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call([](State& now) {
    now.run_all();
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = simt::last_error;
  simt::last_error = cudaSuccess;
  return simt::state().lost.empty() ? error : cudaErrorLaunchFailure;
}
cudaError_t cudaPeekAtLastError() {
  return simt::state().lost.empty() ? simt::last_error : cudaErrorLaunchFailure;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define SIMT_NAME(name) \
  case name: return #name;
    SIMT_NAME(cudaSuccess)
    SIMT_NAME(cudaErrorInvalidValue)
    SIMT_NAME(cudaErrorMemoryAllocation)
    SIMT_NAME(cudaErrorInvalidConfiguration)
    SIMT_NAME(cudaErrorInvalidDevice)
    SIMT_NAME(cudaErrorNoDevice)
    SIMT_NAME(cudaErrorPeerAccessUnsupported)
    SIMT_NAME(cudaErrorInvalidResourceHandle)
    SIMT_NAME(cudaErrorNotReady)
    SIMT_NAME(cudaErrorLaunchOutOfResources)
    SIMT_NAME(cudaErrorPeerAccessAlreadyEnabled)
    SIMT_NAME(cudaErrorLaunchFailure)
    SIMT_NAME(cudaErrorNotSupported)
    SIMT_NAME(cudaErrorStreamCaptureUnsupported)
    SIMT_NAME(cudaErrorStreamCaptureInvalidated)
    SIMT_NAME(cudaErrorStreamCaptureUnmatched)
    SIMT_NAME(cudaErrorStreamCaptureUnjoined)
    SIMT_NAME(cudaErrorStreamCaptureIsolation)
#undef SIMT_NAME
  }
  return "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return simt::state().lost.c_str();
  if (error == cudaErrorMemoryAllocation) return "out of memory";
  return "see the name";
}
