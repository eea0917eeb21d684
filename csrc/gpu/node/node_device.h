// Node perturbation of some samples on one device: their losses, and the sums over them that
// gradients are made of.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "gpu/device_executor.h"
#include "gpu/kernels/node.h"
#include "gpu/node/arena.h"
#include "gpu/team.h"

namespace marketplace::gpu {

struct NodeCall {
  const NodeProbe* probe = nullptr;
  const Batch* batch = nullptr;
  const Labels* labels = nullptr;      // on the host
  std::int64_t piece = 1, pieces = 1;  // samples of a piece, pieces of the batch
  std::int64_t first = 0, count = 0;   // this device's samples
  std::vector<const float*> bases;     // per spec, on this device
};

class NodeDevice {
 public:
  // On one device of a team, which keeps the weights. prefix: the specs before the first that is
  // trained, lowered; null where there are none.
  NodeDevice(std::shared_ptr<const NodeMarket> market, std::shared_ptr<const Lowered> prefix,
             std::shared_ptr<Team> team, std::size_t index);

  // Takes the memory that a call needs; every device of a team before any starts.
  void make_room(const NodeCall& call);
  // Puts a call's work on the stream.
  void start(const NodeCall& call);
  // Waits for it; losses (count,).
  void finish(const NodeCall& call, float* losses);

  const Stream& stream() const { return stream_; }
  // (pieces, NodeMarket::gradient_floats) and (pieces, NodeMarket::change_doubles).
  float* gradients() const { return gradients_.get<float>(); }
  double* changes() const { return changes_.get<double>(); }

 private:
  // What the kernels' arguments follow from.
  struct Recorded {
    std::vector<std::int64_t> numbers;
    std::vector<const void*> pointers;
    bool operator==(const Recorded&) const = default;
  };
  struct Stage {
    std::optional<DeviceSegment> sum, rest, spread, tail;
  };

  void grow(DeviceMemory& memory, std::int64_t bytes);
  void upload(const NodeCall& call);
  void bring_samples(const NodeCall& call);
  void run_prefix(const NodeCall& call);
  Recorded recorded(const NodeCall& call) const;
  void run(const NodeCall& call) const;
  void pack(const NodeCall& call) const;
  void move_parameters(std::size_t stage) const;
  void run_leader(const NodeCall& call, const TileRange& range) const;
  void enter(const TileRange& range, std::int64_t first) const;
  void disturb(std::size_t stage, const NodeCall& call, const TileRange& range) const;
  void follow_probes(std::size_t stage, std::int64_t first, const TileRange& range) const;
  void measure(std::size_t stage, const NodeCall& call, const TileRange& range) const;
  void collect(std::size_t stage, std::int64_t first, const NodeCall& call,
               const TileRange& range) const;
  LayerShape shape_of(std::size_t stage, const TileRange& range) const;
  void add_gradient(std::size_t stage, const TileRange& range) const;
  const std::uint64_t* key(std::size_t stage) const;
  ProbeSigns signs(std::size_t stage, std::int64_t probe) const;
  CrossEntropyArgs losses_of(const NodeCall& call, const TileRange& range, std::int64_t rows,
                             const float* logits, float* losses) const;

  template <class T>
  T* at(std::int64_t offset) const {
    return reinterpret_cast<T*>(arena_memory_.get<std::byte>() + offset);
  }
  float* floats(std::int64_t offset) const { return at<float>(offset); }

  std::shared_ptr<const NodeMarket> market_;
  std::shared_ptr<const Lowered> prefix_lowered_;
  std::shared_ptr<Team> team_;
  std::shared_ptr<Device> device_;
  const Stream& vectors_;  // of the team
  Stream stream_;
  std::unique_ptr<DeviceExecutor> prefix_;
  std::optional<DeviceSegment> entry_;
  std::vector<Stage> stages_;
  NodeArena arena_;
  DeviceMemory arena_memory_, gradients_, changes_, report_;
  DeviceMemory zeros_;  // a row for every channel of every probe: all read the first
  PinnedMemory staging_, fetched_;
  Recorded last_;
  Graph graph_;
  std::int64_t runs_ = 0;  // of calls like the last one
};

}  // namespace marketplace::gpu
