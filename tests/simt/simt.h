// The CPU as a device, for tests: what csrc/gpu/vendors/vendor.h asks of a vendor. Device code is
// compiled as plain C++ with MARKETPLACE_SIMT set to the number of lanes of a warp, 32 or 64.
#pragma once

#include <cstddef>
#include <string>
#include <tuple>
#include <utility>

#include "api.h"
#include "device.h"

namespace simt {
std::string kernel_name(const void* kernel);
}

namespace marketplace::gpu {

inline constexpr const char* kVendor = "cuda";
using simt::kWarpSize;
inline constexpr bool kHasAsyncCopy = kWarpSize == 32;
inline constexpr std::int64_t kMostThreads = kHasAsyncCopy ? INT64_MAX : UINT32_MAX;
inline constexpr int kCopyStages = kHasAsyncCopy ? 3 : 2;
inline constexpr bool kHasFloatTiles = kWarpSize == 64;  // as where warps are as wide
inline constexpr bool kHasTf32 = true;
inline constexpr std::int64_t kMostSharedBytes = (kWarpSize == 64 ? 64 : 227) * 1024;

template <class T>
T shuffle(T value, int lane, const simt::Where& where = simt::Where::current()) {
  return simt::shuffle(value, lane, where);
}
template <class T>
T shuffle_xor(T value, int mask, const simt::Where& where = simt::Where::current()) {
  return simt::shuffle(value, simt::lane() ^ mask, where);
}
template <class T>
T shuffle_down(T value, int offset, const simt::Where& where = simt::Where::current()) {
  const int source = simt::lane() + offset;
  return simt::shuffle(value, source < kWarpSize ? source : simt::lane(), where);
}
inline bool any_lane(bool predicate, const simt::Where& where = simt::Where::current()) {
  return simt::vote(predicate, where) > 0;
}
inline bool all_lanes(bool predicate, const simt::Where& where = simt::Where::current()) {
  return simt::vote(predicate, where) == kWarpSize;
}
inline void sync_warp(const simt::Where& where = simt::Where::current()) {
  simt::vote(true, where);
}

inline std::byte* dynamic_shared() {
  return simt::dynamic_shared_memory();
}

struct Copy16 {
  alignas(16) std::byte value_[16];
  void begin(void* shared, const void* global, bool valid) {
    if constexpr (kHasAsyncCopy) return simt::start_copy(shared, global, valid);
    simt::check_copy(shared, global);
    if (valid)
      std::memcpy(value_, global, 16);
    else
      std::memset(value_, 0, 16);
  }
  void begin_reused(void* shared, const void* global, bool valid) { begin(shared, global, valid); }
  void end(void* shared) const {
    if constexpr (!kHasAsyncCopy) std::memcpy(shared, value_, 16);
  }
};
inline void keep_order() {}
inline void keep_order(float&) {}
inline void copy_async_commit() {
  simt::commit_copies();
}
template <int kPending>
void copy_async_wait() {
  simt::wait_copies(kPending);
}

inline cudaError_t allow_dynamic_shared(const void* kernel, std::size_t bytes) {
  return simt::allow_shared(kernel, bytes);
}

template <class... P>
cudaError_t launch_kernel(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t stream, std::tuple<P...>& arguments) {
  return simt::launch({reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                       [kernel, arguments] { std::apply(kernel, arguments); }},
                      stream);
}

inline int pointer_device(const void* data) {
  cudaPointerAttributes found;
  if (cudaPointerGetAttributes(&found, data) != cudaSuccess) return -1;
  return found.type == cudaMemoryTypeDevice ? found.device : -1;
}

inline std::string kernel_name(const void* kernel, cudaStream_t) {
  return simt::kernel_name(kernel);
}

inline std::string architecture_name(const cudaDeviceProp& device) {
  return "warps of " + std::to_string(device.warpSize);
}
inline std::string needed() {
  return "compute capability 8.0 or more";
}
inline bool runs_kernels(const cudaDeviceProp& device) {
  return device.major >= 8;
}
inline std::size_t largest_shared_bytes(const cudaDeviceProp& device) {
  return device.sharedMemPerBlockOptin;
}

}  // namespace marketplace::gpu
