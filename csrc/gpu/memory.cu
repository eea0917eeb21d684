#include <algorithm>
#include <string>

#include "core/error.h"
#include "gpu/kernels/contract.h"
#include "gpu/kernels/cross_entropy.h"
#include "gpu/kernels/norm.h"
#include "gpu/memory.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kAlign = 256;
constexpr std::int64_t kFullTiles = 512;         // samples that keep a large device busy
constexpr std::int64_t kResultBytes = 64 << 20;  // results on their way to the host at once

bool joins_batch(const std::vector<Program>& programs, const Demand& demand) {
  if (demand.inference) return false;
  for (const Program& program : programs)
    if (program.whole_batch) return true;
  return false;
}

std::int64_t row_bytes(const std::vector<Program>& programs, std::size_t level, DType dtype) {
  const bool last = level + 1 == programs.size();
  return programs[level].output_size * (last ? 4 : size_bytes(dtype));
}

// Bytes that depend on the rows of a level.
std::int64_t level_bytes(const std::vector<Program>& programs, const Cut& cut, std::size_t level,
                         DType dtype) {
  const std::int64_t parents = level == 0 ? 1 : cut.rows[level - 1];
  return cut.rows[level] * cut.samples * row_bytes(programs, level, dtype) +
         place_slots(programs[level], dtype, cut.rows[level], parents, cut.samples).bytes;
}

// Halves what takes most; false when nothing is left to halve.
bool halve(const std::vector<Program>& programs, const Demand& demand, DType dtype, Cut& cut) {
  const bool whole = joins_batch(programs, demand);
  if (!whole && cut.samples > kFullTiles) {
    cut.samples = (cut.samples + 1) / 2;
    return true;
  }
  std::size_t heaviest = cut.rows.size();
  std::int64_t most = 0;
  for (std::size_t i = 0; i < cut.rows.size(); ++i) {
    const std::int64_t bytes = level_bytes(programs, cut, i, dtype);
    if (cut.rows[i] > 1 && bytes > most) heaviest = i, most = bytes;
  }
  if (heaviest < cut.rows.size()) {
    cut.rows[heaviest] = (cut.rows[heaviest] + 1) / 2;
    return true;
  }
  if (whole || cut.samples == 1) return false;
  cut.samples = (cut.samples + 1) / 2;
  return true;
}

void plan_statistics(const std::vector<Program>& programs, const Demand& demand, const Cut& cut,
                     Extent& extent, ArenaPlan& plan) {
  std::int64_t statistics = 0, partial = 0;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    if (!programs[i].whole_batch || demand.inference) continue;
    const std::int64_t channels = cut.rows[i] * programs[i].largest_channels;
    statistics = std::max(statistics, 2 * channels * 4);
    for (const Step& step : programs[i].steps)
      if (step.kind == StepKind::batch_norm)
        partial = std::max(partial, channels * 8 * batch_norm_splits(cut.samples, step.rows));
  }
  plan.statistics = extent.add(statistics);
  plan.partial_sums = extent.add(partial);
}

void plan_levels(const std::vector<Program>& programs, const Demand& demand, const Cut& cut,
                 DType dtype, Extent& extent, ArenaPlan& plan) {
  std::int64_t scratch = 0, parents = demand.inputs;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const bool stored = i + 1 < programs.size() || !fuses_loss(programs[i], demand);
    plan.packed.push_back(extent.add(demand.vendors[i] * programs[i].packed_bytes));
    plan.output.push_back(
        extent.add(stored ? cut.rows[i] * cut.samples * row_bytes(programs, i, dtype) : 0));
    plan.places.push_back(place_slots(programs[i], dtype, cut.rows[i], parents, cut.samples));
    scratch = std::max(scratch, plan.places.back().bytes);
    parents = cut.rows[i];
  }
  plan.scratch = extent.add(scratch);
}

}  // namespace

std::int64_t Extent::add(std::int64_t bytes) {
  const std::int64_t at = bytes_;
  bytes_ += (bytes + kAlign - 1) / kAlign * kAlign;
  return at;
}

bool fuses_loss(const Program& last, const Demand& demand) {
  return demand.losses && last.linear_head && last.output_size <= kMostFusedClasses;
}

ArenaPlan plan_arena(const std::vector<Program>& programs, const Demand& demand, const Cut& cut,
                     DType dtype) {
  ArenaPlan plan;
  Extent extent;
  plan.upload = extent.add(demand.upload_bytes);
  plan.results = extent.add(demand.result_bytes);
  plan.input = extent.add(demand.inputs * cut.samples * programs[0].input_size * size_bytes(dtype));
  plan_levels(programs, demand, cut, dtype, extent, plan);
  plan_statistics(programs, demand, cut, extent, plan);
  if (demand.losses) {
    const std::int64_t blocks = (demand.batch + kLossBlock - 1) / kLossBlock;
    plan.sample_losses = extent.add(cut.rows.back() * cut.samples * 4);
    plan.partial_losses = extent.add(demand.paths() * blocks * 8);
  }
  plan.bytes = extent.bytes();
  return plan;
}

Cut choose_cut(const std::vector<Program>& programs, const Demand& demand, DType dtype,
               std::int64_t budget) {
  Cut cut{demand.batch, demand.rows};
  const std::int64_t path_bytes = cut.samples * row_bytes(programs, programs.size() - 1, dtype);
  if (!demand.losses)
    cut.rows.back() = std::clamp<std::int64_t>(kResultBytes / path_bytes, 1, cut.rows.back());
  for (;;) {
    const std::int64_t bytes = plan_arena(programs, demand, cut, dtype).bytes;
    if (bytes <= budget) return cut;
    if (!halve(programs, demand, dtype, cut))
      fail(ErrorKind::memory, "device memory",
           std::to_string(bytes) + " bytes for " + std::to_string(cut.samples) +
               (cut.samples == 1 ? " sample" : " samples") + " of one path at a time",
           std::to_string(budget) + " bytes that may be used");
  }
}

}  // namespace marketplace::gpu
