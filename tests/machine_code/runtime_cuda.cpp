// The stand-in for NVIDIA's runtime, libcudart: what AMD's has not, or has otherwise.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace {

constexpr std::uint16_t kPtx = 1;
constexpr std::uint64_t kCompressed = 0x2000;
constexpr std::size_t kDynamicUnasked = 48 * 1024;  // of shared memory; more must be asked for

template <class T>
T read(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// The text of the PTX in a bundle: a head with its own size and that of what follows; then for each
// part its kind, the size of its head and its own.
standin::Kernel find_ptx(const char* bundle) {
  const char* at = bundle + read<std::uint16_t>(bundle + 6);
  const char* const end = at + read<std::uint64_t>(bundle + 8);
  while (at < end) {
    const std::size_t head = read<std::uint32_t>(at + 4), bytes = read<std::uint64_t>(at + 8);
    const bool compressed = (read<std::uint64_t>(at + 40) & kCompressed) != 0;
    if (read<std::uint16_t>(at) == kPtx && !compressed)
      return {at + head, strnlen(at + head, bytes), {}, kDynamicUnasked};
    at += head + bytes;
  }
  return {nullptr, 0, {}, 0};
}

}  // namespace

extern "C" {

// -- what the compiler's registration calls
// --------------------------------------------------------

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(static_cast<char*>(wrapper) + 8);  // behind magic and version
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void** binary, const char* function, char*, const char* name, int,
                            uint3*, uint3*, dim3*, dim3*, int*) {
  standin::Kernel kernel = find_ptx(static_cast<const char*>(*binary));
  kernel.name = name;
  standin::add_kernel(function, std::move(kernel));
}

// behind <<< >>>, which nobody uses
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) {
  return cudaErrorUnknown;
}
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) {
  return cudaErrorUnknown;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) {
  return cudaErrorUnknown;
}

// -- kernels
// ---------------------------------------------------------------------------------------

cudaError_t cudaFuncGetName(const char** name, const void* function) {
  const standin::Kernel* kernel = standin::find_kernel(function);
  if (kernel == nullptr) return standin::report(cudaErrorInvalidDeviceFunction);
  *name = kernel->name.c_str();
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  standin::Kernel* kernel = standin::find_kernel(function);
  if (kernel == nullptr) return standin::report(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
    return standin::report(cudaErrorInvalidValue);
  kernel->most_dynamic_bytes = static_cast<std::size_t>(value);
  return cudaSuccess;
}

// -- devices and memory
// ----------------------------------------------------------------------------

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, ("emulated " + standin::chip()).c_str());
  const int capability = std::atoi(standin::chip().c_str() + 3);  // behind "sm_"
  properties->major = capability / 10;
  properties->minor = capability % 10;
  properties->warpSize = standin::warp_size();
  properties->multiProcessorCount = standin::kMultiprocessors;
  properties->sharedMemPerBlock = kDynamicUnasked;
  properties->sharedMemPerBlockOptin = (capability < 90 ? 163 : 227) * 1024;
  properties->totalGlobalMem = standin::kDeviceBytes;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* data) {
  *found = {};
  found->device = standin::device_of(data);
  found->type = found->device >= 0 ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}

}  // extern "C"
