#include "gpu/kernels/cross_entropy.h"
#include "gpu/kernels/element.h"

namespace marketplace::gpu {
namespace {

// One warp per row of logits.
__global__ void cross_entropy_kernel(CrossEntropyArgs args) {
  const std::int64_t row = thread_index() / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if (row >= args.rows * args.samples) return;  // whole warps
  const float* x = args.logits + row * args.classes;
  const std::int32_t label = args.labels[row % args.samples];
  float largest = x[0];  // maximum
  for (std::int64_t c = lane; c < args.classes; c += kWarpSize)
    largest = x[c] > largest ? x[c] : largest;
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(largest, mask);
    largest = other > largest ? other : largest;
  }
  ExpSums sums;  // sum
  for (std::int64_t c = lane; c < args.classes; c += kWarpSize) sums.add(x[c], largest);
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    sums.below += shuffle_xor(sums.below, mask);
    sums.largest += shuffle_xor(sums.largest, mask);
  }
  if (lane != 0) return;
  const bool skipped = args.ignoring && label == args.ignored;
  args.losses[row] = skipped ? 0.0f : sums.loss(largest, x[label]);
}

__global__ void sum_losses_kernel(SumLossesArgs args) {
  const std::int64_t index = thread_index();
  const std::int64_t row = index % args.rows;
  const std::int64_t block = args.first / kLossBlock + index / args.rows;
  const std::int64_t start = block * kLossBlock, last = args.first + args.samples;
  if (start >= last) return;
  const std::int64_t begin = start < args.first ? args.first : start;
  const std::int64_t end = start + kLossBlock < last ? start + kLossBlock : last;
  double& partial = args.partial[block * args.path_count + args.paths[row]];
  double sum = begin == start ? 0.0 : partial;  // or an earlier chunk began the block
  for (std::int64_t s = begin; s < end; ++s)
    sum += args.losses[row * args.samples + s - args.first];
  partial = sum;
}

__global__ void mean_losses_kernel(const double* partial, std::int64_t blocks, std::int64_t paths,
                                   const double* counted, float* losses) {
  const std::int64_t path = thread_index();
  if (path >= paths) return;
  double sum = 0;
  for (std::int64_t b = 0; b < blocks; ++b) sum += partial[b * paths + path];
  losses[path] = static_cast<float>(sum / *counted);
}

}  // namespace

void cross_entropy_gpu(const CrossEntropyArgs& args, const DeviceInfo& device,
                       const Stream& stream) {
  launch(cross_entropy_kernel, blocks_for(args.rows * args.samples * device.warp_size),
         Block{kBlockThreads}, 0, stream, args);
}

void sum_losses_gpu(const SumLossesArgs& args, const Stream& stream) {
  const std::int64_t blocks =
      (args.first + args.samples + kLossBlock - 1) / kLossBlock - args.first / kLossBlock;
  launch(sum_losses_kernel, blocks_for(args.rows * blocks), Block{kBlockThreads}, 0, stream, args);
}

void mean_losses_gpu(const double* partial, std::int64_t blocks, std::int64_t paths,
                     const double* counted, float* losses, const Stream& stream) {
  launch(mean_losses_kernel, blocks_for(paths), Block{kBlockThreads}, 0, stream, partial, blocks,
         paths, counted, losses);
}

}  // namespace marketplace::gpu
