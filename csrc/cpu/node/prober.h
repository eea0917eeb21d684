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

  double probe(const NodeProbe& probe, const Batch& batch, const Labels& labels, bool add,
               Directions& gradients) override;

 private:
  // What one thread works in, for one tile of samples.
  struct Workspace {
    Buffer scratch, statistics;  // of programs
    Buffer words, noisy;         // random signs, and disturbed sums channels-last
    Buffer out, planes;          // what they turn into, and its changes channel by channel
    Buffer spread, logits;       // of one disturbed channel: the next sums, and the answers
    Buffer changes;              // (tile, channels) of the loss
    Buffer errors;               // (tile, sum) channels-last
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

  struct Tile {
    const Block& block;
    std::int64_t task, first, count;  // samples of the block
    Workspace& workspace;
  };

  void reserve(std::int64_t samples);
  const float* load(const Block& block);
  Tile tile_of(const Block& block, std::int64_t task, int thread) const;
  void run_block(const Block& block);
  void run_leader(const Tile& tile, const float* in);
  void keep(std::size_t stage, const Tile& tile);
  void close_form(const Tile& tile, std::int64_t b);
  void disturb(std::size_t stage, const Tile& tile);
  void draw_signs(std::size_t stage, const Tile& tile);
  void add_noise(std::size_t stage, std::int64_t probe, const Tile& tile);
  void follow(std::size_t stage, std::int64_t probe, const Tile& tile);
  void measure(std::size_t stage, std::int64_t channel, const Tile& tile);
  void gather_gradients(std::int64_t count);
  void hand_over(float share, bool add, Directions& gradients) const;
  static const std::int32_t* first_label(const Tile& tile);
  static ProbeSigns signs_of(const NodeStage& stage, std::int64_t probe, std::int64_t b,
                             const Tile& tile);

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
  std::vector<double> losses_;                 // of the block's samples
  std::vector<std::vector<float>> gradients_;  // per spec, summed over samples
  float scale_ = 0;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

}  // namespace marketplace::cpu
