// Move-only handles for what a device owns: streams, events, graphs, memory. Constructors and calls
// throw Error (ErrorKind::memory when memory ran out); destructors never throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

// Throws what the runtime reported for the call or kernel `what`; it is then no longer the last
// error.
void check(cudaError_t error, std::string_view what);
// The same for a kernel that could not be started.
void check_launch(cudaError_t error, const void* kernel, cudaStream_t stream);
// A kernel's name as in its source.
std::string readable_kernel_name(const void* kernel, cudaStream_t stream);

// Makes `device` the current one of this thread until the end of the scope.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  int device_ = 0;
};

struct DeviceInfo {
  std::string name;          // "NVIDIA H200"
  std::string architecture;  // "sm_90", "gfx942:sramecc+:xnack-"
  std::string problem;       // why it cannot run our kernels, empty when it can
  int warp_size = 0;
  int multiprocessor_count = 0;
  std::int64_t shared_bytes = 0;  // most that one block may use
  std::int64_t total_bytes = 0;
};

// Throws with the runtime's reason when there is no usable driver; 0 is never returned.
int device_count();
// Takes nothing of the device: others may have it for themselves.
DeviceInfo device_info(int device);
// Free memory. From here on this process has some of the device's.
std::int64_t free_bytes(int device);

// Lets `device` reach the memory of `peer`, but for that of pools (see Pool::open_to); false when
// it cannot.
bool enable_peer_access(int device, int peer);

// A handle of the runtime and what destroys it, on the device that it belongs to.
template <class T, cudaError_t (*kDestroy)(T)>
class Handle {
 public:
  Handle() = default;
  Handle(T value, int device) : value_(value), device_(device) {}
  Handle(Handle&& other) noexcept { swap(other); }
  Handle& operator=(Handle&& other) noexcept {
    Handle(std::move(other)).swap(*this);
    return *this;
  }
  ~Handle() {
    // nobody is left to tell when this fails: the context may be gone at exit
    if (value_ != nullptr) static_cast<void>(kDestroy(value_));
  }

  T get() const { return value_; }
  int device() const { return device_; }
  void swap(Handle& other) noexcept {
    std::swap(value_, other.value_);
    std::swap(device_, other.device_);
  }

 private:
  T value_ = nullptr;
  int device_ = 0;
};

class Stream;

// A point in a stream's work.
class Event {
 public:
  explicit Event(int device, bool timed = false);
  void record(const Stream& stream);
  void synchronize() const;
  // Milliseconds from `start` to this; both timed and reached.
  float milliseconds_since(const Event& start) const;
  cudaEvent_t get() const { return handle_.get(); }

 private:
  Handle<cudaEvent_t, cudaEventDestroy> handle_;
};

// An own stream, or the caller's (borrowed: never destroyed here). Ordered against nothing but what
// it waits for, the default stream included.
class Stream {
 public:
  explicit Stream(int device);
  static Stream borrow(cudaStream_t stream, int device);

  cudaStream_t get() const { return borrowed_ ? stream_ : handle_.get(); }
  int device() const { return device_; }
  void wait(const Event& event) const;
  void synchronize() const;
  void finish() const noexcept;  // the same for destructors

 private:
  Stream() = default;
  Handle<cudaStream_t, cudaStreamDestroy> handle_;
  cudaStream_t stream_ = nullptr;
  bool borrowed_ = false;
  int device_ = 0;
};

// Work recorded once, launched many times. Between begin and end nothing runs, and neither memory
// may be allocated nor anything synchronised.
class Graph {
 public:
  // Records what `body()` puts on `stream` (and on streams that wait for it and are waited for).
  template <class F>
  static Graph capture(const Stream& stream, F&& body) {
    begin(stream);
    try {
      body();
    } catch (...) {
      abandon(stream);
      throw;
    }
    return end(stream);
  }
  Graph() = default;
  bool empty() const { return handle_.get() == nullptr; }
  void launch(const Stream& stream) const;

 private:
  static void begin(const Stream& stream);
  static void abandon(const Stream& stream) noexcept;
  static Graph end(const Stream& stream);
  Handle<cudaGraphExec_t, cudaGraphExecDestroy> handle_;
};

class Pool;

// A block of device memory, 256-byte aligned. Ordered on the stream it was allocated for: others
// wait for that stream before they use it, and that stream for them before it is destroyed.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    DeviceMemory(std::move(other)).swap(*this);
    return *this;
  }
  ~DeviceMemory();

  template <class T = void>
  T* get() const {
    return static_cast<T*>(data_);
  }
  std::int64_t bytes() const { return bytes_; }
  void swap(DeviceMemory& other) noexcept;

 private:
  friend class Pool;
  struct State;
  std::shared_ptr<State> pool_;
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
  cudaStream_t stream_ = nullptr;
};

// Device memory, never more of it than a cap. It is kept for reuse where the driver has memory
// pools; elsewhere every block is allocated and freed alone, which waits for the stream.
class Pool {
 public:
  // max_bytes 0: as much as the device has.
  Pool(int device, std::int64_t max_bytes);

  // Throws ErrorKind::memory that names the request, what is in use and the cap. The stream must
  // outlive the block. 0 bytes: an empty block.
  DeviceMemory allocate(std::int64_t bytes, const Stream& stream);
  // A larger block instead of another, without holding both at once: what the pool kept of the old
  // one goes back to the device first.
  void renew(DeviceMemory& block, std::int64_t bytes, const Stream& stream);
  // Lets a peer that has access to the device (enable_peer_access) reach the pool's memory too, now
  // and later; false when it cannot. Copies between them are staged by the driver then.
  bool open_to(int peer);
  int device() const;
  std::int64_t used_bytes() const;  // handed out now
  std::int64_t peak_bytes() const;  // most that ever was
  std::int64_t max_bytes() const;   // 0: no cap
  // Gives back to the device what is kept but not handed out.
  void trim();

 private:
  std::shared_ptr<DeviceMemory::State> state_;
};

// Host memory that the device copies from and to without staging.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(std::int64_t bytes);

  template <class T = void>
  T* get() const {
    return static_cast<T*>(handle_.get());
  }
  std::int64_t bytes() const { return bytes_; }
  // Room for so many bytes; where that takes another block, what was there is gone.
  std::byte* reserve(std::int64_t bytes) {
    if (bytes_ < bytes) *this = PinnedMemory(bytes);
    return get<std::byte>();
  }

 private:
  Handle<void*, cudaFreeHost> handle_;
  std::int64_t bytes_ = 0;
};

// All asynchronous on `stream`; host memory is read and written when the stream comes to it. (Where
// it is not pinned this may be at once or not: it depends on the machine.)
void copy_to_device(void* to, const void* from, std::int64_t bytes, const Stream& stream);
void copy_to_host(void* to, const void* from, std::int64_t bytes, const Stream& stream);
void copy_on_device(void* to, const void* from, std::int64_t bytes, const Stream& stream);
// Directly where the pair has peer access, else staged by the driver.
void copy_peer(void* to, int to_device, const void* from, int from_device, std::int64_t bytes,
               const Stream& stream);
// From host memory that need not outlive the call: waits for the stream.
void copy_to_device_now(void* to, const void* from, std::int64_t bytes, const Stream& stream);
void fill_bytes(void* to, int value, std::int64_t bytes, const Stream& stream);

}  // namespace marketplace::gpu
