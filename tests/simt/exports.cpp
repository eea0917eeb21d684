// The shim's controls for Python's ctypes, in the emulated plugin.
#include "api.h"
#include "control.h"

#define SIMT_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Makes a device the current one, as callers do whose calls name none.
class Current {
 public:
  explicit Current(int device) {
    cudaGetDevice(&before_);
    cudaSetDevice(device);
  }
  ~Current() { cudaSetDevice(before_); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
};

}  // namespace

SIMT_EXPORT void simt_fail_allocation(int n) {
  simt::fail_allocation(n);
}
SIMT_EXPORT void simt_fail_launch(int n) {
  simt::fail_launch(n);
}
SIMT_EXPORT void simt_fail_copy(int n) {
  simt::fail_copy(n);
}
SIMT_EXPORT std::int64_t simt_launches() {
  return simt::counts().launches;
}
SIMT_EXPORT std::int64_t simt_live_blocks() {
  return simt::counts().live_blocks;
}
SIMT_EXPORT std::int64_t simt_live_handles() {
  return simt::counts().live_handles;
}

// What another library would do on the same device: memory, streams and copies of its own.
SIMT_EXPORT void* simt_allocate(int device, std::size_t bytes) {
  void* data = nullptr;
  const Current current(device);
  return cudaMalloc(&data, bytes) == cudaSuccess ? data : nullptr;
}
SIMT_EXPORT int simt_free(void* data) {
  return cudaFree(data);
}
SIMT_EXPORT cudaStream_t simt_create_stream(int device) {
  const Current current(device);
  cudaStream_t stream = nullptr;
  return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess ? stream
                                                                                  : nullptr;
}
SIMT_EXPORT int simt_destroy_stream(cudaStream_t stream) {
  return cudaStreamDestroy(stream);
}
SIMT_EXPORT int simt_synchronize(int device, cudaStream_t stream) {
  const Current current(device);
  return cudaStreamSynchronize(stream);
}
// `stream` is a handle, 0, 1 and 2 included. Host memory is read when the stream comes to it,
// written before it returns.
SIMT_EXPORT int simt_copy(int device, void* to, const void* from, std::size_t bytes,
                          cudaStream_t stream) {
  const Current current(device);
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}
// Later work in `after` follows what is in `before`.
SIMT_EXPORT int simt_order(int device, cudaStream_t before, cudaStream_t after) {
  const Current current(device);
  cudaEvent_t event = nullptr;
  int error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaEventRecord(event, before);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(after, event, 0);
  return error == cudaSuccess ? cudaEventDestroy(event) : error;
}
// Everything waits until somebody waits for it, or is done early or late as the seed wants it.
SIMT_EXPORT void simt_defer(bool deferred) {
  simt::set_schedule(deferred ? simt::Schedule::deferred : simt::Schedule::random);
}
SIMT_EXPORT std::int64_t simt_host_copied_bytes() {
  return simt::counts().bytes_to_devices + simt::counts().bytes_to_host;
}
