// NVIDIA: warps of 32 lanes, asynchronous copies into shared memory (sm_80 and later).
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>

// Threads of a block, and how many blocks a multiprocessor should have registers for.
#define MP_LAUNCH_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define MP_UNROLL _Pragma("unroll 4")

namespace marketplace::gpu {

inline constexpr const char* kVendor = "cuda";
inline constexpr const char* kArchitectures = MARKETPLACE_CUDA_ARCHITECTURES;  // "80/90"
inline constexpr int kWarpSize = 32;
inline constexpr std::int64_t kMostThreads = INT64_MAX;  // of 2^31 - 1 blocks
inline constexpr int kCopyStages = 3;
inline constexpr bool kHasFloatTiles = false;
inline constexpr bool kHasTf32 = true;
// Of one block, on the chip that has most; DeviceInfo says what this one has.
inline constexpr std::int64_t kMostSharedBytes = 227 * 1024;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

#if defined(__CUDACC__)  // sources without kernels are compiled as plain C++
template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
// The last lanes, which have nobody `offset` above them, get their own value back.
template <class T>
__device__ __forceinline__ T shuffle_down(T value, int offset) {
  return __shfl_down_sync(kAllLanes, value, static_cast<unsigned>(offset));
}
__device__ __forceinline__ bool any_lane(bool predicate) {
  return __any_sync(kAllLanes, predicate) != 0;
}
__device__ __forceinline__ bool all_lanes(bool predicate) {
  return __all_sync(kAllLanes, predicate) != 0;
}
__device__ __forceinline__ void sync_warp() {
  __syncwarp();
}

__device__ __forceinline__ std::byte* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char marketplace_dynamic_shared[];
  return reinterpret_cast<std::byte*>(marketplace_dynamic_shared);
}

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// 16 bytes from global to shared memory, zeros when not `valid` (`global` is then not read, but
// must be a legal address); both 16-byte aligned. On its way from begin() on, without the thread;
// complete for this thread after end() and copy_async_wait.
struct Copy16 {
  __device__ __forceinline__ void begin(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
  }
  // The same where other copies of the block bring these bytes again: by way of the cache that a
  // multiprocessor has for itself.
  __device__ __forceinline__ void begin_reused(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
  }
  __device__ __forceinline__ void end(void*) const {}
};
__device__ __forceinline__ void keep_order() {}
__device__ __forceinline__ void keep_order(float&) {}  // not needed, and in the scheduler's way
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most `kPending` of the groups committed by this thread are still under way.
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
#endif

// A block has 48 KiB unless more is asked for, its kernel's static shared memory included.
inline cudaError_t allow_dynamic_shared(const void* kernel, std::size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

template <class... P>
cudaError_t launch_kernel(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t stream, std::tuple<P...>& arguments) {
  return std::apply(
      [&](P&... values) {
        void* pointers[] = {static_cast<void*>(&values)..., nullptr};
        return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers,
                                shared_bytes, stream);
      },
      arguments);
}

inline std::string architecture_name(const cudaDeviceProp& device) {
  return "sm_" + std::to_string(device.major * 10 + device.minor);
}
// Matrix units for bfloat16 and tf32, asynchronous copies.
inline constexpr int kLeastCapability = 80;
inline std::string needed() {
  return "compute capability 8.0 or more, and code for it (" + std::string(kArchitectures) + ")";
}
// A chip runs what was compiled for it or for an earlier one of its generation; and there is PTX of
// the last architecture, which the driver compiles for later chips.
inline bool runs_kernels(const cudaDeviceProp& device) {
  const int capability = device.major * 10 + device.minor;
  std::istringstream architectures(kArchitectures);
  int compiled = 0;
  bool found = false;
  for (std::string name; std::getline(architectures, name, '/');) {
    compiled = std::atoi(name.c_str());
    const bool own = name.find_first_not_of("0123456789") != std::string::npos;  // "90a"
    found = found || compiled == capability ||
            (!own && compiled / 10 == device.major && compiled < capability);
  }
  return capability >= kLeastCapability && (found || capability >= compiled);
}
inline std::size_t largest_shared_bytes(const cudaDeviceProp& device) {
  return device.sharedMemPerBlockOptin;
}

inline int pointer_device(const void* data) {
  cudaPointerAttributes found;
  if (cudaPointerGetAttributes(&found, data) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return -1;
  }
  const bool there = found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged;
  return there ? found.device : -1;
}

inline const char* kernel_name([[maybe_unused]] const void* kernel, cudaStream_t) {
#if CUDART_VERSION >= 12030
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) == cudaSuccess) return name;
#endif
  return "kernel";
}

}  // namespace marketplace::gpu
