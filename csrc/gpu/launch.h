// The one way to start a kernel: checked, named in its error, the same on every vendor.
//   launch(fill_kernel<float>, Grid{blocks}, Block{256}, shared_bytes, stream, out, count, value);
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>

#include "core/error.h"
#include "gpu/runtime.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

// One dimension each: kernels unflatten, so no extent meets the limits of the others (65,535).
struct Grid {
  std::int64_t x = 1;
};
struct Block {
  unsigned x = 1;
};

// Of all parameters together, on every chip and driver.
constexpr std::size_t kMostArgumentBytes = 4096;

// Arguments are converted to the kernel's parameter types and copied here and now; what pointers
// point to must live until the stream has come that far. An empty grid starts nothing.
template <class... P, class... A>
void launch(void (*kernel)(P...), Grid grid, Block block, std::int64_t shared_bytes,
            const Stream& stream, const A&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument for each kernel parameter");
  static_assert((!std::is_reference_v<P> && ...), "launch: kernel parameters are values");
  static_assert((sizeof(P) + ... + 0) <= kMostArgumentBytes, "launch: too many arguments");
  if (grid.x == 0) return;
  const void* symbol = reinterpret_cast<const void*>(kernel);
  const std::int64_t most = std::min<std::int64_t>(INT32_MAX, kMostThreads / block.x);
  if (grid.x < 0 || grid.x > most)
    fail(readable_kernel_name(symbol, stream.get()), "at most " + std::to_string(most) + " blocks",
         std::to_string(grid.x));
  const DeviceGuard guard(stream.device());  // a stream takes kernels on its own device alone
  const auto bytes = static_cast<std::size_t>(shared_bytes);
  cudaError_t error = bytes == 0 ? cudaSuccess : allow_dynamic_shared(symbol, bytes);
  if (error == cudaSuccess) {
    std::tuple<P...> values(static_cast<P>(arguments)...);
    error = launch_kernel(kernel, dim3(static_cast<unsigned>(grid.x)), dim3(block.x), bytes,
                          stream.get(), values);
  }
  check_launch(error, symbol, stream.get());
}

}  // namespace marketplace::gpu
