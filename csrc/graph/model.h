// One spec's graph with the values of its parameters (float32, on the host) and of its buffers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

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

  std::int64_t parameter_count() const { return static_cast<std::int64_t>(values_.size()); }
  std::uint32_t counter_end() const { return counter_end_; }
  std::int64_t offset(int id) const { return offsets_[id]; }  // into values() or buffers()
  std::int64_t size(int id) const { return element_count(graph_.parameters[id].shape); }
  std::uint32_t counter(int id) const { return counters_[id]; }  // first random counter word

  // To be written through before the next call of any other member: see version().
  float* values() { return ++version_, values_.data(); }
  const float* values() const { return values_.data(); }
  // A parameter's or a buffer's values, row-major.
  float* data(int id) { return ++version_, const_cast<float*>(std::as_const(*this).data(id)); }
  const float* data(int id) const;
  // Changes whenever values may have: devices keep copies.
  std::uint64_t version() const { return version_; }

  // running = (1 - momentum) running + momentum batch, the variance unbiased, as in PyTorch.
  void absorb(const BatchStatistics& statistics);

 private:
  Graph graph_;
  std::vector<int> sorted_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::uint32_t> counters_;
  std::uint32_t counter_end_ = 0;
  std::vector<float> values_, buffers_;
  std::uint64_t version_ = 1;
};

}  // namespace marketplace
