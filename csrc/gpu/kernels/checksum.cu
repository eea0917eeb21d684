#include "gpu/kernels/checksum.h"
#include "gpu/kernels/element.h"

namespace marketplace::gpu {
namespace {

__global__ void checksum_kernel(const float* values, std::int64_t count, std::uint64_t* sums) {
  __shared__ std::uint64_t shared[kBlockThreads];
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kBlockThreads;
  std::uint64_t sum = 0;
  for (std::int64_t i = thread_index(); i < count; i += step) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, values + i, sizeof bits);
    sum += bits * (2 * static_cast<std::uint64_t>(i) + 1);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int t = 1; t < kBlockThreads; ++t) sum += shared[t];
  sums[blockIdx.x] = sum;
}

}  // namespace

void checksum_gpu(const float* values, std::int64_t count, std::uint64_t* sums,
                  const Stream& stream) {
  launch(checksum_kernel, Grid{kChecksumBlocks}, Block{kBlockThreads}, 0, stream, values, count,
         sums);
}

}  // namespace marketplace::gpu
