// A stand-in for the host side of a vendor's runtime, as far as the plugin calls it: the plugin
// itself, built by the vendor's compiler for a chip, runs where there is no such chip. What kernels
// do is left to a machine that emulates the chip (gfx.py, ptx.py). Everything is done at once
// and in order, but what a stream records: that is kept and done at each launch of the graph.
// Whether work waits for what it must is the business of tests/simt.
#include "runtime.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace standin {
namespace {

using Work = std::function<cudaError_t()>;

// Memory of the device, or of the host where it can be reached from there.
struct Allocation {
  std::size_t bytes;
  int device;  // -1: of the host
};

Machine machine = {};
std::string chip_name;
int lanes_of_warp = 32;
std::map<const void*, Kernel> kernels;
std::map<const char*, Allocation> allocations;
std::recursive_mutex mutex;
thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

// One kernel's prepared launch, shared by the graphs that hold it.
struct Launch {
  explicit Launch(int number) : number(number) {}
  ~Launch() { machine.release(number); }
  Launch(const Launch&) = delete;
  int number;
};

const std::pair<const char* const, Allocation>* find_allocation(const void* data) {
  auto found = allocations.upper_bound(static_cast<const char*>(data));
  if (found == allocations.begin()) return nullptr;
  --found;
  return static_cast<const char*>(data) < found->first + found->second.bytes ? &*found : nullptr;
}

cudaError_t allocate(void** data, std::size_t bytes, int device) {
  const std::lock_guard lock(mutex);
  const bool fails = controls().failing_allocation > 0 && --controls().failing_allocation == 0;
  *data = fails ? nullptr : std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*data == nullptr) return report(cudaErrorMemoryAllocation);
  std::memset(*data, 0xFF, bytes);  // NaN: who reads what nobody wrote is found out
  allocations[static_cast<char*>(*data)] = {bytes, device};
  ++controls().live_blocks;
  return cudaSuccess;
}

cudaError_t release(void* data) {
  const std::lock_guard lock(mutex);
  if (allocations.erase(static_cast<char*>(data)) > 0) --controls().live_blocks;
  std::free(data);
  return cudaSuccess;
}

}  // namespace

const std::string& chip() {
  return chip_name;
}
int warp_size() {
  return lanes_of_warp;
}

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

void add_kernel(const void* function, Kernel kernel) {
  const std::lock_guard lock(mutex);
  kernels[function] = std::move(kernel);
}

Kernel* find_kernel(const void* function) {
  const std::lock_guard lock(mutex);
  const auto found = kernels.find(function);
  return found == kernels.end() ? nullptr : &found->second;
}

int device_of(const void* data) {
  const std::lock_guard lock(mutex);
  const auto* found = find_allocation(data);
  return found == nullptr ? -1 : found->second.device;
}

Controls& controls() {
  static Controls shared;
  return shared;
}

}  // namespace standin

struct STANDIN_STREAM {
  int device;
  cudaGraph_t recording;
};
struct STANDIN_GRAPH {
  std::vector<standin::Work> work;
};
struct STANDIN_EVENT {
  cudaStream_t recorded_on;
};

namespace standin {
namespace {

// Streams that wait for an event of a recording stream record into the same graph until it ends.
std::vector<cudaStream_t> joined;

// The numbers 0, 1 and 2 name streams that a device has anyhow, and that record nothing.
cudaStream_t created(cudaStream_t stream) {
  return reinterpret_cast<std::uintptr_t>(stream) <= 2 ? nullptr : stream;
}

// The machine may wait for Python, whose lock another thread may have that waits for ours: nothing
// is run under it.
cudaError_t enqueue(cudaStream_t stream, Work work) {
  {
    const std::lock_guard lock(mutex);
    if (created(stream) != nullptr && stream->recording != nullptr) {
      stream->recording->work.push_back(std::move(work));
      return cudaSuccess;
    }
  }
  return report(work());
}

}  // namespace
}  // namespace standin

using namespace standin;

extern "C" {

// -- what a machine calls
// ---------------------------------------------------------------------------

void standin_use(const Machine* used, const char* name, int lanes) {
  machine = *used;
  chip_name = name;
  lanes_of_warp = lanes;
}

// Gives the bounds of what was allocated around an address; 0 where there is nothing.
int standin_find_allocation(std::uint64_t address, std::uint64_t* low, std::uint64_t* high) {
  const std::lock_guard lock(mutex);
  const auto* found = find_allocation(reinterpret_cast<const void*>(address));
  if (found == nullptr) return 0;
  *low = reinterpret_cast<std::uint64_t>(found->first);
  *high = *low + found->second.bytes;
  return 1;
}

// -- kernels
// ---------------------------------------------------------------------------------------

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             std::size_t shared_bytes, cudaStream_t stream) {
  const Kernel* kernel = find_kernel(function);
  if (kernel == nullptr || kernel->code == nullptr) return report(cudaErrorInvalidDeviceFunction);
  if (grid.y != 1 || grid.z != 1 || block.y != 1 || block.z != 1)
    return report(cudaErrorInvalidValue);
  if (shared_bytes > kernel->most_dynamic_bytes) return report(cudaErrorInvalidValue);
  const int number = machine.prepare(kernel->code, kernel->code_bytes, kernel->name.c_str(), grid.x,
                                     block.x, shared_bytes, arguments);
  if (number < 0) return report(cudaErrorInvalidConfiguration);
  const auto launch = std::make_shared<Launch>(number);
  return enqueue(stream, [launch] {
    return machine.run(launch->number) == 0 ? cudaSuccess : cudaErrorLaunchFailure;
  });
}

// -- devices
// ---------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  const char* asked = std::getenv("MARKETPLACE_STANDIN_DEVICES");
  *count = machine.run == nullptr ? 0 : asked == nullptr ? 1 : std::atoi(asked);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  current_device = device;
  return cudaSuccess;
}
// A chip with memory pools.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* possible, int, int) {
  *possible = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? STANDIN_OUT_OF_MEMORY : "error";
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the stand-in";
}

// -- memory
// ----------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  return allocate(data, bytes, current_device);
}
cudaError_t cudaFree(void* data) {
  return release(data);
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t) {
  return cudaFree(data);
}
cudaError_t cudaMallocFromPoolAsync(void** data, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
  return cudaMalloc(data, bytes);
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = reinterpret_cast<cudaMemPool_t>(new char);
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete reinterpret_cast<char*>(pool);
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc*, std::size_t) {
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) {
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  return allocate(data, bytes, -1);
}
cudaError_t cudaFreeHost(void* data) {
  return release(data);
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  *free_bytes = *total_bytes = kDeviceBytes;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return enqueue(stream, [=] {
    std::memcpy(to, from, bytes);
    if ((device_of(to) < 0) != (device_of(from) < 0)) controls().host_copied_bytes += bytes;
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t bytes,
                                cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] {
    std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

// -- streams, events, graphs
// -----------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new STANDIN_STREAM{current_device, nullptr};
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(mutex);
  const cudaStream_t other = event->recorded_on;
  if (created(stream) == nullptr || other == nullptr || other->recording == nullptr)
    return cudaSuccess;
  if (stream->recording == nullptr) joined.push_back(stream);
  stream->recording = other->recording;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new STANDIN_EVENT{nullptr};
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->recorded_on = created(stream);
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->recording = new STANDIN_GRAPH;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(mutex);
  *graph = std::exchange(stream->recording, nullptr);
  for (const cudaStream_t other : joined)
    if (other->recording == *graph) other->recording = nullptr;
  joined.clear();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new STANDIN_GRAPH(*graph));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const Work& work : reinterpret_cast<STANDIN_GRAPH*>(executable)->work)
    if (const cudaError_t error = enqueue(stream, work); error != cudaSuccess) return error;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<STANDIN_GRAPH*>(executable);
  return cudaSuccess;
}

}  // extern "C"
