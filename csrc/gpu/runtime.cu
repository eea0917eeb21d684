#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "core/error.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {
namespace {

// The process that this library was loaded into: a runtime does not survive a fork.
const pid_t loaded_by = getpid();

}  // namespace

void check(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // so that nobody takes it for their own call's
  if (getpid() != loaded_by)
    fail(ErrorKind::runtime, std::string(what),
         "a process that was not forked from one with GPUs in use (start it by 'spawn', or say "
         "device='cpu')",
         std::string("a forked one: ") + cudaGetErrorName(error));
  const ErrorKind kind =
      error == cudaErrorMemoryAllocation ? ErrorKind::memory : ErrorKind::runtime;
  fail(kind, std::string(what), "success",
       std::string(cudaGetErrorName(error)) + " (" + cudaGetErrorString(error) + ")");
}

std::string readable_kernel_name(const void* kernel, cudaStream_t stream) {
  const std::string symbol = kernel_name(kernel, stream);
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? name.get() : symbol;
}

void check_launch(cudaError_t error, const void* kernel, cudaStream_t stream) {
  if (error != cudaSuccess) check(error, readable_kernel_name(kernel, stream));
}

DeviceGuard::DeviceGuard(int device) : device_(device) {
  check(cudaGetDevice(&previous_), "cudaGetDevice");
  if (previous_ != device) check(cudaSetDevice(device), "cudaSetDevice");
}
DeviceGuard::~DeviceGuard() {
  if (previous_ != device_) static_cast<void>(cudaSetDevice(previous_));
}

int device_count() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "devices");
  if (count == 0) fail(ErrorKind::runtime, "devices", "at least one", "none");
  return count;
}

DeviceInfo device_info(int device) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  DeviceInfo info;
  info.name = properties.name;
  info.architecture = architecture_name(properties);
  if (!runs_kernels(properties)) info.problem = "expected " + needed();
  info.warp_size = properties.warpSize;
  info.multiprocessor_count = properties.multiProcessorCount;
  info.shared_bytes = static_cast<std::int64_t>(largest_shared_bytes(properties));
  info.total_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  return info;
}

std::int64_t free_bytes(int device) {
  const DeviceGuard guard(device);
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<std::int64_t>(free);
}

bool enable_peer_access(int device, int peer) {
  int possible = 0;
  check(cudaDeviceCanAccessPeer(&possible, device, peer), "cudaDeviceCanAccessPeer");
  if (possible == 0) return false;
  const DeviceGuard guard(device);
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
  static_cast<void>(cudaGetLastError());
  // or the device has too many peers already
  return error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled;
}

namespace {

Handle<cudaEvent_t, cudaEventDestroy> make_event(int device, bool timed) {
  const DeviceGuard guard(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
  return {event, device};
}

}  // namespace

Event::Event(int device, bool timed) : handle_(make_event(device, timed)) {}

void Event::record(const Stream& stream) {
  check(cudaEventRecord(get(), stream.get()), "cudaEventRecord");
}
void Event::synchronize() const {
  check(cudaEventSynchronize(get()), "cudaEventSynchronize");
}
float Event::milliseconds_since(const Event& start) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, start.get(), get()), "cudaEventElapsedTime");
  return milliseconds;
}

Stream::Stream(int device) : device_(device) {
  const DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  handle_ = {stream, device};
}

Stream Stream::borrow(cudaStream_t stream, int device) {
  Stream borrowed;
  borrowed.stream_ = stream;
  borrowed.borrowed_ = true;
  borrowed.device_ = device;
  return borrowed;
}

void Stream::wait(const Event& event) const {
  check(cudaStreamWaitEvent(get(), event.get(), 0), "cudaStreamWaitEvent");
}
void Stream::synchronize() const {
  check(cudaStreamSynchronize(get()), "cudaStreamSynchronize");
}
void Stream::finish() const noexcept {
  if (cudaStreamSynchronize(get()) != cudaSuccess) static_cast<void>(cudaGetLastError());
}

// Relaxed: a kernel's code may be loaded when it is first launched, which is while it is recorded.
void Graph::begin(const Stream& stream) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed),
        "cudaStreamBeginCapture");
}

void Graph::abandon(const Stream& stream) noexcept {
  cudaGraph_t graph = nullptr;
  static_cast<void>(cudaStreamEndCapture(stream.get(), &graph));
  if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  static_cast<void>(cudaGetLastError());
}

Graph Graph::end(const Stream& stream) {
  cudaGraph_t captured = nullptr;
  check(cudaStreamEndCapture(stream.get(), &captured), "cudaStreamEndCapture");
  const Handle<cudaGraph_t, cudaGraphDestroy> graph(captured, stream.device());
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiateWithFlags(&executable, graph.get(), 0), "cudaGraphInstantiate");
  Graph result;
  result.handle_ = {executable, stream.device()};
  return result;
}

void Graph::launch(const Stream& stream) const {
  const DeviceGuard guard(stream.device());
  check(cudaGraphLaunch(handle_.get(), stream.get()), "cudaGraphLaunch");
}

// What a pool's blocks share: they may outlive the pool.
struct DeviceMemory::State {
  int device = 0;
  std::int64_t max_bytes = 0;
  std::int64_t used_bytes = 0;
  std::int64_t peak_bytes = 0;
  std::mutex mutex;
  Handle<cudaMemPool_t, cudaMemPoolDestroy> pool;

  bool pooled() const { return pool.get() != nullptr; }
  cudaError_t allocate(void** data, std::int64_t bytes, const Stream& stream) const {
    const auto size = static_cast<std::size_t>(bytes);
    if (pooled()) return cudaMallocFromPoolAsync(data, size, pool.get(), stream.get());
    return cudaMalloc(data, size);
  }
  // Errors of a lost device: nobody is left to tell.
  void free(void* data, cudaStream_t stream) const {
    if (pooled()) {
      static_cast<void>(cudaFreeAsync(data, stream));
    } else {
      static_cast<void>(cudaStreamSynchronize(stream));
      static_cast<void>(cudaFree(data));
    }
  }
};

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  pool_->free(data_, stream_);
  const std::lock_guard lock(pool_->mutex);
  pool_->used_bytes -= bytes_;
}

void DeviceMemory::swap(DeviceMemory& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(stream_, other.stream_);
}

namespace {

// Some virtual GPUs have none, nor had AMD's before ROCm 6.2.
bool has_pools(int device) {
  int supported = 0;
  check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device),
        "cudaDeviceGetAttribute");
  return supported != 0;
}

Handle<cudaMemPool_t, cudaMemPoolDestroy> make_pool(int device) {
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
  Handle<cudaMemPool_t, cudaMemPoolDestroy> made(pool, device);
  std::uint64_t keep = UINT64_MAX;  // until trim(): steps allocate the same again and again
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "cudaMemPoolSetAttribute");
  return made;
}

}  // namespace

Pool::Pool(int device, std::int64_t max_bytes) : state_(std::make_shared<DeviceMemory::State>()) {
  if (max_bytes < 0) fail("max_memory_bytes", "at least 0", std::to_string(max_bytes));
  const DeviceGuard guard(device);
  state_->device = device;
  state_->max_bytes = max_bytes;
  if (has_pools(device)) state_->pool = make_pool(device);
}

DeviceMemory Pool::allocate(std::int64_t bytes, const Stream& stream) {
  if (bytes < 0) fail("device memory", "at least 0 bytes", std::to_string(bytes));
  DeviceMemory block;
  if (bytes == 0) return block;
  const std::lock_guard lock(state_->mutex);
  const std::int64_t used = state_->used_bytes;
  if (state_->max_bytes > 0 && bytes > state_->max_bytes - used)
    fail(
        ErrorKind::memory, "device memory",
        std::to_string(bytes) + " bytes free below the cap of " + std::to_string(state_->max_bytes),
        std::to_string(used) + " bytes in use");
  const DeviceGuard guard(state_->device);
  const cudaError_t error = state_->allocate(&block.data_, bytes, stream);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    block.data_ = nullptr;
    fail(ErrorKind::memory, "device memory", std::to_string(bytes) + " bytes free",
         "out of memory with " + std::to_string(used) + " bytes in use");
  }
  check(error, "device memory");
  block.pool_ = state_;
  block.bytes_ = bytes;
  block.stream_ = stream.get();
  state_->used_bytes = used + bytes;
  state_->peak_bytes = std::max(state_->peak_bytes, state_->used_bytes);
  return block;
}

void Pool::renew(DeviceMemory& block, std::int64_t bytes, const Stream& stream) {
  block = DeviceMemory();
  stream.synchronize();  // only what nobody uses any more can be given back
  trim();
  block = allocate(bytes, stream);
}

bool Pool::open_to(int peer) {
  if (!state_->pooled()) return true;
  cudaMemAccessDesc access = {};
  access.location.type = cudaMemLocationTypeDevice;
  access.location.id = peer;
  access.flags = cudaMemAccessFlagsProtReadWrite;
  const cudaError_t error = cudaMemPoolSetAccess(state_->pool.get(), &access, 1);
  static_cast<void>(cudaGetLastError());
  return error == cudaSuccess;
}

int Pool::device() const {
  return state_->device;
}
std::int64_t Pool::used_bytes() const {
  return state_->used_bytes;
}
std::int64_t Pool::peak_bytes() const {
  return state_->peak_bytes;
}
std::int64_t Pool::max_bytes() const {
  return state_->max_bytes;
}
void Pool::trim() {
  if (state_->pooled()) check(cudaMemPoolTrimTo(state_->pool.get(), 0), "cudaMemPoolTrimTo");
}

namespace {

Handle<void*, cudaFreeHost> make_pinned(std::int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&data, static_cast<std::size_t>(bytes), cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    fail(ErrorKind::memory, "pinned host memory",
         std::to_string(bytes) + " bytes that can be locked in the host's memory", "out of memory");
  }
  check(error, "cudaHostAlloc");
  return {data, 0};
}

void copy(void* to, const void* from, std::int64_t bytes, cudaMemcpyKind kind,
          const Stream& stream) {
  if (bytes == 0) return;
  const DeviceGuard guard(stream.device());
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream.get()),
        "cudaMemcpyAsync");
}

}  // namespace

PinnedMemory::PinnedMemory(std::int64_t bytes) : bytes_(bytes) {
  if (bytes > 0) handle_ = make_pinned(bytes);
}

void copy_to_device(void* to, const void* from, std::int64_t bytes, const Stream& stream) {
  copy(to, from, bytes, cudaMemcpyHostToDevice, stream);
}
void copy_to_device_now(void* to, const void* from, std::int64_t bytes, const Stream& stream) {
  copy_to_device(to, from, bytes, stream);
  stream.synchronize();
}
void copy_to_host(void* to, const void* from, std::int64_t bytes, const Stream& stream) {
  copy(to, from, bytes, cudaMemcpyDeviceToHost, stream);
}
void copy_on_device(void* to, const void* from, std::int64_t bytes, const Stream& stream) {
  copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

void copy_peer(void* to, int to_device, const void* from, int from_device, std::int64_t bytes,
               const Stream& stream) {
  if (bytes == 0) return;
  check(cudaMemcpyPeerAsync(to, to_device, from, from_device, static_cast<std::size_t>(bytes),
                            stream.get()),
        "cudaMemcpyPeerAsync");
}

void fill_bytes(void* to, int value, std::int64_t bytes, const Stream& stream) {
  if (bytes == 0) return;
  const DeviceGuard guard(stream.device());
  check(cudaMemsetAsync(to, value, static_cast<std::size_t>(bytes), stream.get()),
        "cudaMemsetAsync");
}

}  // namespace marketplace::gpu
