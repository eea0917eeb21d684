// Every sample on a path of its own: level by level, the samples of one vendor side by side, so
// that a vendor's weights are packed once and met by whole tiles, as in plain inference.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/executor.h"
#include "cpu/losses.h"

namespace marketplace::cpu {

class PathRun {
 public:
  PathRun(CpuExecutor& executor, const std::vector<VendorWeights>& weights, const Batch& batch,
          const std::int32_t* paths, const SampleResults& results)
      : executor_(executor), weights_(weights), batch_(batch), paths_(paths), results_(results) {}

  void run() {
    for (std::size_t level = 0; level < depth(); ++level) {
      group(level);
      prepare(level, work_.largest);
      const auto count = static_cast<std::int64_t>(work_.tiles.size());
      executor_.pool_->run(count, [this, level](std::int64_t index, int thread) {
        const Tile& tile = work_.tiles[index];
        run_tile(level, tile, work_.samples.data() + tile.first, *executor_.workspaces_[thread]);
      });
    }
  }

 private:
  using Workspace = CpuExecutor::Workspace;

  using Tile = CpuExecutor::PathTiles::Tile;

  std::size_t depth() const { return executor_.programs_.size(); }
  const Program& program(std::size_t level) const { return executor_.programs_[level]; }
  std::int64_t in_bytes(std::size_t level) const {
    return program(level).input_size * executor_.element_bytes_;
  }

  // Counting sort by vendor.
  void group(std::size_t level) {
    const std::int64_t most = executor_.level_tile(level, batch_.size);
    const auto vendor = [&](std::int64_t b) { return paths_[b * depth() + level]; };
    std::vector<std::int64_t>& begin = work_.begin;
    begin.assign(weights_[level].count + 1, 0);
    for (std::int64_t b = 0; b < batch_.size; ++b) ++begin[vendor(b) + 1];
    for (std::size_t v = 1; v < begin.size(); ++v) begin[v] += begin[v - 1];
    work_.tiles.clear();
    work_.largest = 0;
    for (std::int64_t v = 0; v < weights_[level].count; ++v)
      for (std::int64_t first = begin[v]; first < begin[v + 1]; first += most)
        work_.tiles.push_back({v, first, std::min(most, begin[v + 1] - first)});
    for (const Tile& tile : work_.tiles) work_.largest = std::max(work_.largest, tile.count);
    work_.samples.resize(batch_.size);
    for (std::int64_t b = 0; b < batch_.size; ++b) work_.samples[begin[vendor(b)]++] = b;
  }

  void prepare(std::size_t level, std::int64_t tile) const {
    const Program& program = executor_.programs_[level];
    for (auto& workspace : executor_.workspaces_) {
      workspace->input.reserve(tile * in_bytes(level));
      workspace->scratch.reserve(program.scratch_bytes(tile, executor_.element_bytes_));
      workspace->statistics.reserve(2 * program.largest_channels * 4);
      workspace->activations[level].reserve(tile * executor_.output_bytes(level));
      if (!executor_.on_demand_[level]) continue;
      workspace->panels[level].reserve(program.packed_bytes);
      workspace->staging.reserve(program.staging_floats * 4);
    }
    if (level + 1 < depth())
      executor_.path_results_[level % 2].reserve(batch_.size * executor_.output_bytes(level));
  }

  void run_tile(std::size_t level, const Tile& tile, const std::int64_t* samples,
                Workspace& workspace) const {
    gather(level, samples, tile.count, workspace.input.get());
    RunArgs args;
    args.samples = tile.count;
    args.in = workspace.input.get();
    args.out = workspace.activations[level].get();
    args.inference = true;
    executor_.run_vendor(workspace, level, weights_, tile.vendor, args);
    if (level + 1 < depth())
      scatter(executor_.path_results_[level % 2].get(), executor_.output_bytes(level), samples,
              tile.count, args.out);
    else
      finish(samples, tile.count, args.out);
  }

  void gather(std::size_t level, const std::int64_t* samples, std::int64_t count,
              std::byte* out) const {
    const std::int64_t bytes = in_bytes(level);
    for (std::int64_t i = 0; i < count; ++i, out += bytes) {
      if (level == 0)
        executor_.load_samples(batch_, samples[i], 1, out);
      else
        std::memcpy(out, executor_.path_results_[(level - 1) % 2].get() + samples[i] * bytes,
                    bytes);
    }
  }

  static void scatter(std::byte* out, std::int64_t bytes, const std::int64_t* samples,
                      std::int64_t count, const std::byte* in) {
    for (std::int64_t i = 0; i < count; ++i)
      std::memcpy(out + samples[i] * bytes, in + i * bytes, bytes);
  }

  // The last level's outputs, (count, classes) float32.
  void finish(const std::int64_t* samples, std::int64_t count, const std::byte* in) const {
    const std::int64_t classes = executor_.programs_.back().output_size;
    if (results_.out)
      scatter(reinterpret_cast<std::byte*>(results_.out), classes * 4, samples, count, in);
    if (!results_.losses) return;
    const Labels& labels = *results_.labels;
    const auto* logits = reinterpret_cast<const float*>(in);
    for (std::int64_t i = 0; i < count; ++i)
      for_each_loss(executor_.kernels_, logits + i * classes, classes, 1, classes,
                    labels.data + samples[i], labels, [&](std::int64_t, double loss) {
                      results_.losses[samples[i]] = static_cast<float>(loss);
                    });
  }

  CpuExecutor& executor_;
  CpuExecutor::PathTiles& work_ = executor_.path_tiles_;  // of the level that runs
  const std::vector<VendorWeights>& weights_;
  const Batch& batch_;
  const std::int32_t* paths_;
  const SampleResults& results_;
};

void CpuExecutor::forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                                const std::int32_t* paths, const SampleResults& results) {
  prepare_panels(weights, nullptr);
  PathRun(*this, weights, batch, paths, results).run();
}

}  // namespace marketplace::cpu
