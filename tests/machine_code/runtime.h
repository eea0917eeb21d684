// What the parts of the stand-in for a vendor's runtime share. runtime.cpp is what the vendors have
// in common, in CUDA's spelling; runtime_cuda.cpp and runtime_hip.cpp are what they have not.
#pragma once

#if defined(__HIP_PLATFORM_AMD__)
#include <hip/hip_runtime_api.h>

#include "gpu/vendors/hip_names.h"
#define cudaDeviceAttr hipDeviceAttribute_t
#define cudaErrorInvalidConfiguration hipErrorInvalidConfiguration
#define cudaErrorInvalidDeviceFunction hipErrorInvalidDeviceFunction
#define cudaErrorLaunchFailure hipErrorLaunchFailure
#define cudaErrorUnknown hipErrorUnknown
#define cudaLaunchKernel hipLaunchKernel
#define cudaMemPoolAttr hipMemPoolAttr
#define cudaStreamCaptureMode hipStreamCaptureMode
#define STANDIN_EVENT ihipEvent_t
#define STANDIN_GRAPH ihipGraph
#define STANDIN_OUT_OF_MEMORY "hipErrorOutOfMemory"
#define STANDIN_STREAM ihipStream_t
#else
#include <cuda_runtime_api.h>
#define STANDIN_EVENT CUevent_st
#define STANDIN_GRAPH CUgraph_st
#define STANDIN_OUT_OF_MEMORY "cudaErrorMemoryAllocation"
#define STANDIN_STREAM CUstream_st
#endif

#include <cstddef>
#include <cstdint>
#include <string>

namespace standin {

inline constexpr std::size_t kDeviceBytes = std::size_t{1} << 30;
// Few: a grid that fills the device is soon done.
inline constexpr int kMultiprocessors = 2;

struct Kernel {
  const char* code;  // AMD: an ELF file; NVIDIA: PTX
  std::size_t code_bytes;
  std::string name;
  std::size_t most_dynamic_bytes;  // of shared memory
};

// prepare: keeps the values of a kernel's arguments and gives a number for the launch, negative
// where the kernel cannot be run. run: does it; 0 where all went well. release: forgets it.
struct Machine {
  int (*prepare)(const char* code, std::size_t code_bytes, const char* kernel, unsigned blocks,
                 unsigned threads, std::size_t shared_bytes, void** arguments);
  int (*run)(int launch);
  void (*release)(int launch);
};

const std::string& chip();  // "gfx1100", "sm_80"
int warp_size();
cudaError_t report(cudaError_t error);

void add_kernel(const void* function, Kernel kernel);
Kernel* find_kernel(const void* function);

// The device in whose memory an address lies; -1: none's.
int device_of(const void* data);

// What tests ask for and look at, see controls.cpp.
struct Controls {
  int failing_allocation = 0;  // the how manieth from now; 0: none
  std::int64_t host_copied_bytes = 0;
  std::int64_t live_blocks = 0;
};
Controls& controls();

}  // namespace standin
