#include <string>

#include "core/error.h"
#include "gpu/kernels/element.h"
#include "gpu/kernels/incoming.h"

namespace marketplace::gpu {
namespace {

__device__ __forceinline__ std::int64_t earlier(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

__global__ void check_values_kernel(const float* values, std::int64_t count,
                                    IncomingReport* report) {
  __shared__ std::int64_t shared[kBlockThreads];
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kBlockThreads;
  std::int64_t first = kNowhere;
  for (std::int64_t i = thread_index(); i < count && first == kNowhere; i += step)
    if (!is_finite(values[i])) first = i;
  shared[threadIdx.x] = first;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int t = 1; t < kBlockThreads; ++t) first = earlier(first, shared[t]);
  report->not_finite[blockIdx.x] = first;
}

// One block: labels are few.
template <class T>
__global__ void load_labels_kernel(const LoadLabelsArgs args) {
  __shared__ std::int64_t bad[kBlockThreads], counted[kBlockThreads];
  const T* in = static_cast<const T*>(args.in);
  std::int64_t first = kNowhere, count = 0;
  for (std::int64_t b = threadIdx.x; b < args.batch; b += kBlockThreads) {
    const auto label = static_cast<std::int64_t>(in[b]);  // too large a uint64 turns negative
    const bool ignored = args.ignoring && label == args.ignored;
    const bool known = label >= 0 && label < args.classes;
    if (!ignored) ++count;
    if (!ignored && !known) first = earlier(first, b);
    args.out[b] = ignored || known ? static_cast<std::int32_t>(label) : 0;
  }
  bad[threadIdx.x] = first;
  counted[threadIdx.x] = count;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int t = 1; t < kBlockThreads; ++t) {
    first = earlier(first, bad[t]);
    count += counted[t];
  }
  *args.counted = static_cast<double>(count);
  args.report->counted = count;
  args.report->bad_sample = first;
  args.report->bad_label = first == kNowhere ? 0 : static_cast<std::int64_t>(in[first]);
}

template <class Signed, class Unsigned>
void load_labels(const LoadLabelsArgs& args, const Stream& stream) {
  launch(args.is_signed ? load_labels_kernel<Signed> : load_labels_kernel<Unsigned>, Grid{1},
         Block{kBlockThreads}, 0, stream, args);
}

}  // namespace

void check_values_gpu(const float* values, std::int64_t count, IncomingReport* report,
                      const Stream& stream) {
  launch(check_values_kernel, Grid{kCheckBlocks}, Block{kBlockThreads}, 0, stream, values, count,
         report);
}

void load_labels_gpu(const LoadLabelsArgs& args, const Stream& stream) {
  switch (args.bytes) {
    case 1: return load_labels<std::int8_t, std::uint8_t>(args, stream);
    case 2: return load_labels<std::int16_t, std::uint16_t>(args, stream);
    case 4: return load_labels<std::int32_t, std::uint32_t>(args, stream);
    case 8: return load_labels<std::int64_t, std::uint64_t>(args, stream);
    default: fail("labels", "integers of 1, 2, 4 or 8 bytes", std::to_string(args.bytes));
  }
}

}  // namespace marketplace::gpu
