// The stand-in for AMD's runtime, libamdhip64: what NVIDIA's has not, or has otherwise.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace {

// The part of a bundle of code objects that is for the chip: magic, count, then for each its
// offset, its size, the length of its target's name, and the name.
standin::Kernel find_code_object(const char* bundle) {
  constexpr char kMagic[] = "__CLANG_OFFLOAD_BUNDLE__";
  if (std::memcmp(bundle, kMagic, sizeof(kMagic) - 1) != 0) return {nullptr, 0, {}, 0};
  const char* at = bundle + sizeof(kMagic) - 1;
  const auto number = [&at] {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof(value));
    at += sizeof(value);
    return value;
  };
  for (std::uint64_t left = number(); left > 0; --left) {
    const std::uint64_t offset = number(), bytes = number(), length = number();
    const std::string target(at, length), chip = standin::chip();
    at += length;
    if (target.size() > chip.size() && target.find("-" + chip) != std::string::npos)
      return {bundle + offset, bytes, {}, SIZE_MAX};
  }
  return {nullptr, 0, {}, 0};
}

}  // namespace

extern "C" {

// -- what the compiler's registration calls
// --------------------------------------------------------

void** __hipRegisterFatBinary(const void* wrapper) {
  auto* fields = static_cast<void**>(const_cast<void*>(wrapper));
  return fields + 1;  // behind magic and version
}
void __hipUnregisterFatBinary(void**) {}

void __hipRegisterFunction(void** binary, const void* function, char*, const char* name, unsigned,
                           void*, void*, void*, void*, int*) {
  standin::Kernel kernel = find_code_object(static_cast<const char*>(*binary));
  kernel.name = name;
  standin::add_kernel(function, std::move(kernel));
}
void __hipRegisterVar(void**, void*, char*, const char*, int, std::size_t, int, int) {
  std::abort();
}

// behind <<< >>>, which nobody uses
hipError_t __hipPopCallConfiguration(dim3*, dim3*, std::size_t*, hipStream_t*) {
  return hipErrorUnknown;
}

// -- kernels
// ---------------------------------------------------------------------------------------

const char* hipKernelNameRefByPtr(const void* function, hipStream_t) {
  const standin::Kernel* kernel = standin::find_kernel(function);
  return kernel == nullptr ? nullptr : kernel->name.c_str();
}

// -- devices and memory
// ----------------------------------------------------------------------------

hipError_t hipGetDeviceProperties(hipDeviceProp_t* properties, int) {
  *properties = {};
  std::strcpy(properties->name, ("emulated " + standin::chip()).c_str());
  std::strcpy(properties->gcnArchName, standin::chip().c_str());
  properties->warpSize = standin::warp_size();
  properties->multiProcessorCount = standin::kMultiprocessors;
  properties->sharedMemPerBlock = 64 * 1024;
  properties->totalGlobalMem = standin::kDeviceBytes;
  return hipSuccess;
}

hipError_t hipPointerGetAttributes(hipPointerAttribute_t* found, const void* data) {
  *found = {};
  found->device = standin::device_of(data);
  if (found->device < 0) return standin::report(hipErrorInvalidValue);
  found->memoryType = hipMemoryTypeDevice;
  return hipSuccess;
}

}  // extern "C"
