#include "graph/model.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace marketplace {

Model::Model(Graph graph) : graph_(std::move(graph)) {
  const auto& infos = graph_.parameters;
  sorted_.resize(infos.size());
  std::iota(sorted_.begin(), sorted_.end(), 0);
  std::sort(sorted_.begin(), sorted_.end(),
            [&](int a, int b) { return infos[a].key < infos[b].key; });
  offsets_.resize(infos.size());
  counters_.resize(infos.size());
  std::int64_t values = 0, buffers = 0;
  for (int id : sorted_) {
    const std::int64_t count = size(id);
    offsets_[id] = infos[id].buffer ? buffers : values;
    (infos[id].buffer ? buffers : values) += count;
    counters_[id] = counter_end_;
    if (!infos[id].buffer) counter_end_ += static_cast<std::uint32_t>(count);  // may wrap, legally
  }
  weights_ = Vector(values);
  buffers_.assign(buffers, 0.0f);
}

int Model::find(const std::string& key) const {
  for (int id : sorted_)
    if (graph_.parameters[id].key == key) return id;
  fail("parameter", "a key of the model", "'" + key + "'");
}

float* Model::data(int id) {
  return (graph_.parameters[id].buffer ? buffers_.data() : weights_.data()) + offsets_[id];
}

const float* Model::data(int id) const {
  return (graph_.parameters[id].buffer ? buffers_.data() : weights_.data()) + offsets_[id];
}

void Model::absorb(const BatchStatistics& statistics) {
  const Op& op = graph_.ops.at(statistics.node);
  const auto momentum = static_cast<float>(op.momentum);
  const auto count = static_cast<float>(statistics.count);
  const float unbias = statistics.count > 1 ? count / (count - 1.0f) : 1.0f;
  float* mean = data(op.running_mean);
  float* variance = data(op.running_var);
  for (std::int64_t c = 0; c < op.channels; ++c) {
    mean[c] += momentum * (statistics.mean[c] - mean[c]);
    variance[c] += momentum * (unbias * statistics.variance[c] - variance[c]);
  }
  const std::string key = graph_.parameters[op.running_mean].key;
  const std::string prefix = key.substr(0, key.size() - std::string("running_mean").size());
  for (int id : sorted_)
    if (graph_.parameters[id].key == prefix + "num_batches_tracked") data(id)[0] += 1.0f;
}

}  // namespace marketplace
