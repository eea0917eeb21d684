// Node perturbation on the CPU. Block of samples by block: one forward pass that keeps what went
// into every trained layer, then, stage by stage, the losses of disturbed channels. A channel's
// disturbance is followed alone through the ops that keep channels apart and through the next
// contraction, whose undisturbed result it is added to; only from there on does everything run
// anew.
#pragma once

#include <memory>
#include <vector>

#include "cpu/node/stage.h"
#include "cpu/thread_pool.h"

namespace marketplace::cpu {

class CpuNodeProber : public NodeProber {
 public:
  CpuNodeProber(Backend& backend, const Models& models, const std::vector<std::int64_t>& counts,
                const Shape& input_shape, const KernelTable& kernels,
                std::shared_ptr<ThreadPool> pool);

  double probe(const NodeProbe& probe, const Batch& batch, const Labels& labels,
               std::vector<std::vector<float>>& gradients) override;

 private:
  // What one thread works in.
  struct Workspace {
    Buffer scratch, statistics, words, noisy, out, planes, spread, logits, errors;
  };
  // What one stage keeps of a block of samples.
  struct Kept {
    Buffer in;                    // (block, in) planar: what the contraction reads
    Buffer padded;                // the same with its zeros, for the weights' gradient
    Buffer sum;                   // (block, sum) channels-last, undisturbed
    Buffer panel;                 // errors, as the weights' gradient wants them
    Buffer gradient;              // (rows, O)
    std::vector<float> noise;     // its size, by sample
    std::vector<double> changes;  // (tasks, probes, channels): loss changes summed over samples
  };
  struct Block {
    const Batch* batch = nullptr;
    const Labels* labels = nullptr;
    std::int64_t first = 0, count = 0;
  };

  void reserve(std::int64_t samples);
  const float* load(const Block& block);
  void run_block(const Block& block, std::vector<std::vector<float>>& gradients);
  void run_leader(const Block& block, const float* in, std::int64_t first, std::int64_t count,
                  Workspace& workspace);
  void keep(std::size_t stage, std::int64_t first, std::int64_t count);
  void close_form(const Block& block, std::int64_t sample, const float* logits);
  void disturb(const Block& block, std::size_t stage, std::int64_t task, Workspace& workspace);
  void follow(const Block& block, std::size_t stage, std::int64_t first, std::int64_t count,
              std::int64_t probe, Workspace& workspace);
  void measure(const Block& block, std::size_t stage, std::int64_t first, std::int64_t count,
               std::int64_t channel, Workspace& workspace);
  void gather_gradients(std::int64_t count, std::vector<std::vector<float>>& gradients);
  double loss(const Block& block, std::int64_t sample, const float* logits) const;

  Models models_;
  const KernelTable& kernels_;
  std::shared_ptr<ThreadPool> pool_;
  std::int64_t first_spec_ = 0, classes_ = 0, block_samples_ = 1, in_floats_ = 0;
  Shape chain_shape_;
  std::unique_ptr<Executor> prefix_;  // the specs before the first that is trained
  std::unique_ptr<Slice> entry_slice_;
  std::unique_ptr<Segment> entry_;  // ops before the first contraction
  std::vector<std::unique_ptr<NodeStage>> stages_;
  std::vector<Kept> kept_;
  Buffer input_;
  std::vector<double> losses_;  // of the block's samples
  float scale_ = 0;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

}  // namespace marketplace::cpu
