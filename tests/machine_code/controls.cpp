// Another library on the same devices, and what tests ask of the stand-in, by the names of the
// emulated plugin (tests/simt/exports.cpp), for ctypes: who opens the plugin finds them.
#include "runtime.h"

namespace {

// Makes a device the current one, as callers do whose calls name none.
class Current {
 public:
  explicit Current(int device) {
    static_cast<void>(cudaGetDevice(&before_));
    static_cast<void>(cudaSetDevice(device));
  }
  ~Current() { static_cast<void>(cudaSetDevice(before_)); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
};

}  // namespace

extern "C" {

void simt_fail_allocation(int n) {
  standin::controls().failing_allocation = n;
}
std::int64_t simt_live_blocks() {
  return standin::controls().live_blocks;
}
std::int64_t simt_host_copied_bytes() {
  return standin::controls().host_copied_bytes;
}

void* simt_allocate(int device, std::size_t bytes) {
  void* data = nullptr;
  const Current current(device);
  return cudaMalloc(&data, bytes) == cudaSuccess ? data : nullptr;
}
int simt_free(void* data) {
  return cudaFree(data);
}

cudaStream_t simt_create_stream(int device) {
  const Current current(device);
  cudaStream_t stream = nullptr;
  static_cast<void>(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}
int simt_destroy_stream(cudaStream_t stream) {
  return cudaStreamDestroy(stream);
}
int simt_synchronize(int, cudaStream_t stream) {
  return cudaStreamSynchronize(stream);
}

int simt_copy(int device, void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const Current current(device);
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}
// What is in a stream was done when it was put there.
int simt_order(int, cudaStream_t, cudaStream_t) {
  return cudaSuccess;
}

}  // extern "C"
