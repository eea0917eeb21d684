#include "cpu/measure.h"

#include <chrono>
#include <numeric>
#include <vector>

#include "cpu/isa.h"
#include "cpu/workspace.h"

namespace marketplace::cpu {
namespace {

// Rows overlap as a convolution's windows do; the panel lies in the second-level cache.
constexpr std::int64_t kRows = 48, kRowStep = 32, kDepth = 512;

// Repeats work until the time is up; returns how often a second.
template <class Work>
double rate(double seconds, Work work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  std::int64_t count = 0;
  double passed = 0;
  do {
    for (int i = 0; i < 64; ++i) work();
    count += 64;
    passed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (passed < seconds);
  return static_cast<double>(count) / passed;
}

double one_thread_peak(const TypedKernels& typed, std::int64_t columns, double seconds) {
  Buffer in, panel, out;
  const std::int64_t bytes = kDepth * std::max(kRows, columns) * 4;
  std::vector<float> ones(kDepth * std::max(kRows, columns), 1.0f);
  typed.from_float(ones.data(), in.reserve(bytes), kRows * kDepth);
  typed.from_float(ones.data(), panel.reserve(bytes), kDepth * columns);
  std::vector<std::int64_t> rows(kRows);
  for (std::int64_t r = 0; r < kRows; ++r) rows[r] = r * kRowStep;
  const std::int64_t run = 0;
  ContractArgs args{};
  args.in = in.get();
  args.samples = 1;
  args.row_offset = rows.data();
  args.rows = kRows;
  args.tiles = {1, kRows, kRows, kRows, kRowStep, false};
  args.run_offset = &run;
  args.runs = 1;
  args.run_length = kDepth;
  args.panel = panel.get();
  args.columns = columns;
  args.out = out.reserve(kRows * columns * 4);
  args.out_row_stride = columns;
  const auto flops = static_cast<double>(2 * kRows * kDepth * columns);
  return flops * rate(seconds, [&] { typed.contract(args); });
}

}  // namespace

double measure_peak(const KernelTable& kernels, DType dtype, ThreadPool& pool, double seconds) {
  const TypedKernels& typed = typed_kernels(kernels, dtype);
  const std::int64_t columns = kernels.vector_floats * kernels.tile_vectors;
  std::vector<double> peaks(pool.threads());
  pool.run(pool.threads(), [&](std::int64_t index, int) {
    peaks[index] = one_thread_peak(typed, columns, seconds);
  });
  return std::accumulate(peaks.begin(), peaks.end(), 0.0);
}

double measure_random(const KernelTable& kernels, double seconds) {
  constexpr std::int64_t kCount = 4096;
  std::vector<float> base(kCount, 0.0f), out(kCount);
  return static_cast<double>(kCount) *
         rate(seconds, [&] { kernels.perturb(42, 0, 0.1f, base.data(), out.data(), kCount); });
}

}  // namespace marketplace::cpu
