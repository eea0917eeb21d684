// AMD: CUDA's names mapped to HIP's. Warps ("wavefronts") of 64 lanes on GCN and CDNA, 32 on RDNA.
#pragma once

#include <hip/hip_runtime.h>

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>

#include "gpu/vendors/hip_names.h"

// HIP's second bound counts warps of a SIMD instead of blocks; left to the compiler, nothing
// spills.
#define MP_LAUNCH_BOUNDS(threads, blocks) __launch_bounds__(threads)
#define MP_UNROLL _Pragma("unroll 4")

namespace marketplace::gpu {

inline constexpr const char* kVendor = "hip";
inline constexpr const char* kArchitectures = MARKETPLACE_HIP_ARCHITECTURES;  // "gfx942/gfx1100"
// Known where device code is compiled for a chip; host code must ask the device (DeviceInfo).
#if defined(__GFX9__)
inline constexpr int kWarpSize = 64;
#else
inline constexpr int kWarpSize = 32;
#endif
inline constexpr std::int64_t kMostThreads = UINT32_MAX;
inline constexpr int kCopyStages = 2;
// MFMA multiplies it at twice the rate of FMA on gfx90a, at the same on gfx942.
#if defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__) || \
    defined(__gfx950__)
#define MP_MATRIX_MFMA 1
inline constexpr bool kHasFloatTiles = true;
#else
inline constexpr bool kHasFloatTiles = false;
#endif
inline constexpr bool kHasTf32 = false;
// Of one block, on every chip we name.
inline constexpr std::int64_t kMostSharedBytes = 64 * 1024;

template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl(value, lane, kWarpSize);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor(value, mask, kWarpSize);
}
template <class T>
__device__ __forceinline__ T shuffle_down(T value, int offset) {
  return __shfl_down(value, static_cast<unsigned>(offset), kWarpSize);
}
__device__ __forceinline__ bool any_lane(bool predicate) {
  return __any(predicate) != 0;
}
__device__ __forceinline__ bool all_lanes(bool predicate) {
  return __all(predicate) != 0;
}
// Lanes run in lockstep; what is needed is that the compiler moves no memory access across.
__device__ __forceinline__ void sync_warp() {
  __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
  __builtin_amdgcn_wave_barrier();
}

__device__ __forceinline__ std::byte* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char marketplace_dynamic_shared[];
  return reinterpret_cast<std::byte*>(marketplace_dynamic_shared);
}

// 16 bytes from global to shared memory, zeros when not `valid`; both 16-byte aligned. Through
// registers, which nobody waits for before end().
struct Copy16 {
  uint4 value_;
  __device__ __forceinline__ void begin(void*, const void* global, bool valid) {
    value_ = make_uint4(0, 0, 0, 0);
    if (valid) value_ = *static_cast<const uint4*>(global);
  }
  __device__ __forceinline__ void begin_reused(void* shared, const void* global, bool valid) {
    begin(shared, global, valid);
  }
  __device__ __forceinline__ void end(void* shared) const { *static_cast<uint4*>(shared) = value_; }
};
// Else the compiler puts loads and stores of what was loaded side by side, where they wait.
__device__ __forceinline__ void keep_order() {
  asm volatile("" : : : "memory");
}
__device__ __forceinline__ void keep_order(float& value) {
#if defined(MP_MATRIX_MFMA)
  asm volatile("" : "+a"(value) : : "memory");  // where MFMA keeps its sums
#else
  asm volatile("" : "+v"(value) : : "memory");
#endif
}
__device__ __forceinline__ void copy_async_commit() {}
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {}

// Every kernel may use all the shared memory there is.
inline cudaError_t allow_dynamic_shared(const void*, std::size_t) {
  return cudaSuccess;
}

template <class... P>
cudaError_t launch_kernel(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                          cudaStream_t stream, std::tuple<P...>& arguments) {
  return std::apply(
      [&](P&... values) {
        void* pointers[] = {static_cast<void*>(&values)..., nullptr};
        return hipLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers,
                               shared_bytes, stream);
      },
      arguments);
}

inline std::string architecture_name(const cudaDeviceProp& device) {
  return device.gcnArchName;
}
inline std::string needed() {
  return "a chip that there is code for (" + std::string(kArchitectures) + ")";
}
// Features behind the chip's name ("gfx942:sramecc+:xnack-") do not matter to code compiled
// without.
inline bool runs_kernels(const cudaDeviceProp& device) {
  const std::string name = device.gcnArchName;
  std::istringstream architectures(kArchitectures);
  for (std::string compiled; std::getline(architectures, compiled, '/');)
    if (compiled == name || compiled == name.substr(0, name.find(':'))) return true;
  return false;
}
inline std::size_t largest_shared_bytes(const cudaDeviceProp& device) {
  return device.sharedMemPerBlock;
}

inline int pointer_device(const void* data) {
  hipPointerAttribute_t found;
  if (hipPointerGetAttributes(&found, data) != hipSuccess) {
    static_cast<void>(hipGetLastError());
    return -1;
  }
#if HIP_VERSION_MAJOR >= 6
  const auto type = found.type;
#else
  const auto type = found.memoryType;
#endif
  return type == hipMemoryTypeDevice || found.isManaged ? found.device : -1;
}

inline const char* kernel_name(const void* kernel, cudaStream_t stream) {
  const char* name = hipKernelNameRefByPtr(kernel, stream);
  return name == nullptr ? "kernel" : name;
}

}  // namespace marketplace::gpu
