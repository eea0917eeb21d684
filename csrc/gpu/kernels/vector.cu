#include "gpu/kernels/element.h"
#include "gpu/kernels/lanes.h"
#include "gpu/kernels/vector.h"

namespace marketplace::gpu {
namespace {

__global__ void add_scaled_kernel(float* target, const float* values, const float* scale,
                                  std::int64_t count, const Verdict* verdict) {
  const std::int64_t i = thread_index();
  if (i < count && !held_back(verdict)) target[i] = target[i] + scale[0] * values[i];
}

__global__ void decay_add_kernel(float* target, const float* decay, const float* values,
                                 std::int64_t count, const Verdict* verdict) {
  const std::int64_t i = thread_index();
  if (i < count && !held_back(verdict)) target[i] = decay[0] * target[i] + values[i];
}

__global__ void adam_kernel(float* direction, float* mean, float* square, const AdamStep* step,
                            std::int64_t count, const Verdict* verdict) {
  const std::int64_t i = thread_index();
  if (i >= count || held_back(verdict)) return;
  const float d = direction[i];
  const float m = step->b1 * mean[i] + (1 - step->b1) * d;
  const float s = step->b2 * square[i] + (1 - step->b2) * d * d;
  mean[i] = m;
  square[i] = s;
  direction[i] = m * step->mean_share / (sqrtf(s * step->square_share) + step->epsilon);
}

__global__ void find_not_finite_kernel(const float* values, std::int64_t count, std::int32_t* bad) {
  const std::int64_t i = thread_index();
  if (i < count && !(values[i] - values[i] == 0)) bad[0] = 1;  // whoever writes, writes the same
}

// The values that the index-th sum is of.
struct Piece {
  float* values;
  std::int64_t count;
  int span;
};

// The spans are compared one by one: an index into a kernel's arguments would copy them.
__device__ Piece piece_of(const SpanArgs& args, std::int64_t index) {
  Piece piece = {nullptr, 0, 0};
  if (index >= args.sum_count) return piece;
  for (int k = 0; k < kSpans; ++k) {
    if (index < args.spans[k].first) continue;
    const std::int64_t first = (index - args.spans[k].first) * kValuesPerSum;
    const std::int64_t left = args.spans[k].count - first;
    piece = {args.spans[k].values + first, left < kValuesPerSum ? left : kValuesPerSum, k};
  }
  return piece;
}

constexpr int kAtOnce = 16;  // loads that a lane does not wait for one by one

// One sum per 32 threads.
__global__ void squares_kernel(SpanArgs args) {
  const std::int64_t index = thread_index() / kSumLanes;
  const Piece piece = piece_of(args, index);
  double sum = 0;
  for (std::int64_t first = sum_lane(); first < kValuesPerSum; first += kAtOnce * kSumLanes) {
    float values[kAtOnce];
    for (int k = 0; k < kAtOnce; ++k) {
      const std::int64_t i = first + k * kSumLanes;
      values[k] = i < piece.count ? piece.values[i] : 0.0f;
    }
    for (const float value : values) sum += static_cast<double>(value) * value;
  }
  sum = total_of_lanes(sum);
  if (sum_lane() == 0 && index < args.sum_count) args.sums[index] = sum;
}

// 32 threads per span.
__global__ void total_kernel(SpanArgs args) {
  std::int64_t first = 0, end = 0;
  for (int k = 0; k < kSpans; ++k) {
    if (k != static_cast<int>(blockIdx.x)) continue;
    first = args.spans[k].first;
    end = first + sums_of(args.spans[k].count);
  }
  double total = 0;
  if (threadIdx.x < kSumLanes)
    for (first += sum_lane(); first < end; first += kSumLanes) total += args.sums[first];
  total = total_of_lanes(total);
  if (threadIdx.x == 0) args.squares[blockIdx.x] = total;
}

__device__ double norm_of(const SpanArgs& args, int span) {
  if (args.whole == nullptr) return sqrt(args.squares[span]);
  double square = 0;
  for (std::int64_t k = 0; k < args.whole_count; ++k) square += args.whole[k];
  return sqrt(square);
}

__global__ void normalise_kernel(SpanArgs args) {
  __shared__ float shared_norm;
  const Piece piece = piece_of(args, blockIdx.x);
  if (threadIdx.x == 0) shared_norm = static_cast<float>(norm_of(args, piece.span));
  __syncthreads();
  const float norm = shared_norm;
  for (std::int64_t i = threadIdx.x; i < piece.count; i += kBlockThreads)
    piece.values[i] = norm > 0 ? piece.values[i] / norm : 0.0f;
}

__global__ void clip_kernel(SpanArgs args) {
  __shared__ double shared_norm;
  const Piece piece = piece_of(args, blockIdx.x);
  if (threadIdx.x == 0) shared_norm = norm_of(args, piece.span);
  __syncthreads();
  const double norm = shared_norm;
  if (norm <= args.length || held_back(args.verdict)) return;
  const auto factor = static_cast<float>(args.length / norm);
  for (std::int64_t i = threadIdx.x; i < piece.count; i += kBlockThreads) piece.values[i] *= factor;
}

}  // namespace

void add_scaled_gpu(float* target, const float* values, const float* scale, std::int64_t count,
                    const Verdict* verdict, const Stream& stream) {
  launch(add_scaled_kernel, blocks_for(count), Block{kBlockThreads}, 0, stream, target, values,
         scale, count, verdict);
}

void decay_add_gpu(float* target, const float* decay, const float* values, std::int64_t count,
                   const Verdict* verdict, const Stream& stream) {
  launch(decay_add_kernel, blocks_for(count), Block{kBlockThreads}, 0, stream, target, decay,
         values, count, verdict);
}

void adam_gpu(float* direction, float* mean, float* square, const AdamStep* step,
              std::int64_t count, const Verdict* verdict, const Stream& stream) {
  launch(adam_kernel, blocks_for(count), Block{kBlockThreads}, 0, stream, direction, mean, square,
         step, count, verdict);
}

void find_not_finite_gpu(const float* values, std::int64_t count, std::int32_t* bad,
                         const Stream& stream) {
  launch(find_not_finite_kernel, blocks_for(count), Block{kBlockThreads}, 0, stream, values, count,
         bad);
}

void squares_gpu(const SpanArgs& args, const Stream& stream) {
  // few sums a block: chips with few units for float64 have them on every multiprocessor
  launch(squares_kernel, Grid{(args.sum_count + 1) / 2}, Block{kWidestWarp}, 0, stream, args);
  launch(total_kernel, Grid{args.span_count}, Block{kWidestWarp}, 0, stream, args);
}

void normalise_gpu(const SpanArgs& args, const Stream& stream) {
  launch(normalise_kernel, Grid{args.sum_count}, Block{kBlockThreads}, 0, stream, args);
}

void clip_gpu(const SpanArgs& args, const Stream& stream) {
  launch(clip_kernel, Grid{args.sum_count}, Block{kBlockThreads}, 0, stream, args);
}

}  // namespace marketplace::gpu
