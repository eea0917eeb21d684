#include <cmath>

#include "gpu/kernels/coefficients.h"
#include "gpu/kernels/element.h"
#include "gpu/kernels/lanes.h"

namespace marketplace::gpu {
namespace {

constexpr int kStaged = 1024;  // numbers of a sum in shared memory at once
static_assert(kStaged % kSumLanes == 0);

__device__ bool is_sound(const PublishArgs& args) {
  bool sound = true;
  for (int block = 0; block < kCheckBlocks && args.checks_values; ++block)
    if (args.report->not_finite[block] != kNowhere) sound = false;
  if (args.checks_labels && (args.report->bad_sample != kNowhere || args.report->counted == 0))
    sound = false;
  return sound;
}

__global__ void publish_losses_kernel(PublishArgs args) {
  const std::int64_t path = thread_index();
  if (path < args.count) args.out[path] = args.losses[path];
  if (path == args.count) args.out[path] = is_sound(args) ? 0.0f : INFINITY;
}

// The sum of value(loss) over the entries from `first` to `end`; the first 32 threads have it.
template <class Value>
__device__ double sum_of(const ScoreArgs& args, std::int32_t first, std::int32_t end,
                         double* staged, Value value) {
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  double sum = 0;
  for (; first < end; first += kStaged) {
    const std::int32_t count = end - first < kStaged ? end - first : kStaged;
    for (std::int32_t i = thread; i < count; i += kBlockThreads)
      staged[i] = value(static_cast<double>(args.losses[args.entries[first + i]]));
    __syncthreads();
    for (std::int32_t i = thread; i < count && thread < kSumLanes; i += kSumLanes) sum += staged[i];
    __syncthreads();
  }
  return total_of_lanes(sum);
}

// One block per group: mean and sample standard deviation.
__global__ void moments_kernel(ScoreArgs args) {
  __shared__ double staged[kStaged];
  __shared__ double shared_mean;
  const std::int32_t first = args.group_first[blockIdx.x], end = args.group_first[blockIdx.x + 1];
  const double count = end - first;
  // mean
  const double sum = sum_of(args, first, end, staged, [](double loss) { return loss; });
  if (threadIdx.x == 0) shared_mean = sum / count;
  __syncthreads();
  const double mean = shared_mean;
  // deviation
  const double squares = sum_of(args, first, end, staged,
                                [mean](double loss) { return (loss - mean) * (loss - mean); });
  if (threadIdx.x != 0) return;
  args.moments[2 * blockIdx.x] = mean;
  args.moments[2 * blockIdx.x + 1] = end - first > 1 ? sqrt(squares / (count - 1)) : 0.0;
}

// How an entry's loss compares with those of its group.
struct Place {
  std::int32_t below = 0, equal = 0;  // how many are lower, how many the same, itself included
  std::int32_t stable = 0;            // where a stable sort would put it
};

__device__ Place place_of(const ScoreArgs& args, std::int64_t entry, std::int32_t first,
                          std::int32_t end) {
  const float mine = args.losses[args.entries[entry]];
  Place place;
  for (std::int32_t other = first; other < end; ++other) {
    const float loss = args.losses[args.entries[other]];
    if (loss < mine) ++place.below;
    if (loss == mine) ++place.equal;
    if (loss == mine && other < entry) ++place.stable;
  }
  place.stable += place.below;
  return place;
}

// The losses in the middle of every group.
__global__ void middles_kernel(ScoreArgs args) {
  const std::int64_t entry = thread_index();
  if (entry >= args.entry_count) return;
  const std::int32_t group = args.group_of[entry];
  const std::int32_t first = args.group_first[group], end = args.group_first[group + 1];
  const std::int32_t stable = place_of(args, entry, first, end).stable, count = end - first;
  const double loss = args.losses[args.entries[entry]];
  if (stable == (count - 1) / 2) args.moments[2 * group] = loss;
  if (stable == count / 2) args.moments[2 * group + 1] = loss;
}

__device__ std::int32_t lower_entry(const ScoreArgs& args, std::int32_t a, std::int32_t b) {
  const float mine = args.losses[args.entries[a]], other = args.losses[args.entries[b]];
  return other < mine || (other == mine && b < a) ? b : a;
}

// One block per group: the entry of the lowest loss, the first of several.
__global__ void lowest_kernel(ScoreArgs args) {
  __shared__ std::int32_t lowest[kBlockThreads];
  const auto thread = static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t first = args.group_first[blockIdx.x], end = args.group_first[blockIdx.x + 1];
  std::int32_t mine = first;
  for (std::int32_t entry = first + thread; entry < end; entry += kBlockThreads)
    mine = lower_entry(args, mine, entry);
  lowest[thread] = mine;
  __syncthreads();
  for (std::int32_t half = kBlockThreads / 2; half > 0; half /= 2) {
    if (thread < half) lowest[thread] = lower_entry(args, lowest[thread], lowest[thread + half]);
    __syncthreads();
  }
  if (thread == 0) args.moments[2 * blockIdx.x] = lowest[0];
}

__device__ double z_score(double loss, const double* moments) {
  const double mean = moments[0], deviation = moments[1];
  return deviation > 0 ? -(loss - mean) / deviation : 0.0;
}

__device__ double sign_score(double loss, const double* middles) {
  const double median = (middles[0] + middles[1]) / 2;
  return static_cast<double>(static_cast<int>(loss < median) - static_cast<int>(loss > median));
}

__device__ double rank_score(const ScoreArgs& args, std::int64_t entry, std::int32_t group) {
  const std::int32_t first = args.group_first[group], end = args.group_first[group + 1];
  const Place place = place_of(args, entry, first, end);
  const std::int32_t last = end - first - 1;
  const double twice =
      static_cast<double>(last) -
      static_cast<double>(2 * static_cast<std::int64_t>(place.below) + place.equal - 1);
  return twice / (2 * static_cast<double>(last > 1 ? last : 1));
}

__global__ void scores_kernel(ScoreArgs args) {
  const std::int64_t entry = thread_index();
  if (entry >= args.entry_count) return;
  const std::int32_t group = args.group_of[entry];
  const double* moments = args.moments + 2 * group;
  const double loss = args.losses[args.entries[entry]];
  double score = 0;
  switch (args.shaping) {
    case Shaping::z: score = z_score(loss, moments); break;
    case Shaping::rank: score = rank_score(args, entry, group); break;
    case Shaping::sign: score = sign_score(loss, moments); break;
    case Shaping::best: score = static_cast<double>(entry) == moments[0] ? 1.0 : 0.0; break;
  }
  args.scores[entry] = score;
}

// 32 threads per coefficient.
__global__ void coefficients_kernel(ScoreArgs args) {
  const std::int64_t index = thread_index() / kSumLanes;
  const bool there = index < args.coefficient_count;
  const std::int32_t end = there ? args.term_first[index + 1] : 0;
  double sum = 0;
  for (std::int32_t t = there ? args.term_first[index] + sum_lane() : 0; t < end; t += kSumLanes)
    sum += args.scores[args.terms[t]];
  sum = total_of_lanes(sum);
  if (there && sum_lane() == 0) args.coefficients[index] = static_cast<float>(sum);
}

// One block: losses are few.
__global__ void verdict_kernel(ScoreArgs args) {
  int unsound = 0;
  for (std::int64_t i = threadIdx.x; i < args.loss_count; i += kBlockThreads)
    if (!is_finite(args.losses[i])) unsound = 1;
  unsound = __syncthreads_or(unsound);  // for any thread of the block
  int degenerate = 0;
  for (std::int64_t group = 0; group < args.group_count; ++group) {
    int differs = 0;
    for (std::int32_t entry = args.group_first[group] + static_cast<std::int32_t>(threadIdx.x);
         entry < args.group_first[group + 1]; entry += kBlockThreads)
      if (args.scores[entry] != 0) differs = 1;
    if (__syncthreads_or(differs) == 0 && args.must_differ[group] != 0) degenerate = 1;
  }
  if (threadIdx.x == 0) *args.verdict = {unsound == 0 ? 1 : 0, degenerate};
}

}  // namespace

void publish_losses_gpu(const PublishArgs& args, const Stream& stream) {
  launch(publish_losses_kernel, blocks_for(args.count + 1), Block{kBlockThreads}, 0, stream, args);
}

void score_losses_gpu(const ScoreArgs& args, const Stream& stream) {
  const Block block{kBlockThreads};
  const Grid entries = blocks_for(args.entry_count);
  if (args.shaping == Shaping::z)
    launch(moments_kernel, Grid{args.group_count}, block, 0, stream, args);
  if (args.shaping == Shaping::sign) launch(middles_kernel, entries, block, 0, stream, args);
  if (args.shaping == Shaping::best)
    launch(lowest_kernel, Grid{args.group_count}, block, 0, stream, args);
  launch(scores_kernel, entries, block, 0, stream, args);
  launch(coefficients_kernel, blocks_for(args.coefficient_count * kSumLanes), block, 0, stream,
         args);
  launch(verdict_kernel, Grid{1}, block, 0, stream, args);
}

}  // namespace marketplace::gpu
