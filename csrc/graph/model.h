// One spec's graph with the values of its parameters (float32, devices may keep the newest) and of
// its buffers (on the host).
#pragma once

#include <cstdint>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/vector.h"
#include "graph/graph.h"

namespace marketplace {

// Batch statistics of one batch_norm node, as the leader saw them.
struct BatchStatistics {
  int node = -1;
  std::int64_t count = 0;             // values per channel
  std::vector<float> mean, variance;  // (C,), variance with divisor `count`
};

class Model {
 public:
  explicit Model(Graph graph);

  const Graph& graph() const { return graph_; }
  // Ids in the order of their keys: the order of random counters and of flat vectors.
  const std::vector<int>& sorted_ids() const { return sorted_; }
  int find(const std::string& key) const;  // throws for an unknown key

  std::int64_t parameter_count() const { return weights_.size(); }
  std::uint32_t counter_end() const { return counter_end_; }
  // Into the parameters' or the buffers' values.
  std::int64_t offset(int id) const { return offsets_[id]; }
  std::int64_t size(int id) const { return element_count(graph_.parameters[id].shape); }
  std::uint32_t counter(int id) const { return counters_[id]; }  // first random counter word

  // All parameters' values, flat.
  Vector& weights() { return weights_; }
  const Vector& weights() const { return weights_; }
  // The same on the host; to be written through before the next call of any other member.
  float* values() { return weights_.data(); }
  const float* values() const { return weights_.data(); }
  // A parameter's or a buffer's values, row-major.
  float* data(int id);
  const float* data(int id) const;

  // For threads: held shared while values are used, alone while they change. The members above and
  // below do not lock it themselves.
  std::shared_mutex& access() const { return access_; }

  // running = (1 - momentum) running + momentum batch, the variance unbiased, as in PyTorch.
  void absorb(const BatchStatistics& statistics);

 private:
  Graph graph_;
  std::vector<int> sorted_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::uint32_t> counters_;
  std::uint32_t counter_end_ = 0;
  Vector weights_;
  std::vector<float> buffers_;
  mutable std::shared_mutex access_;
};

}  // namespace marketplace
