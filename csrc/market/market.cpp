#include "market/market.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "core/batch_checks.h"
#include "core/error.h"
#include "graph/chain.h"
#include "market/plan.h"

namespace marketplace {
namespace {

constexpr std::size_t kCachedShapes = 4;

// Exponent bits all ones are NaN or infinite. On integers, and without a way out of the loop, so
// that compilers take whole vectors of them: a sum of floats would have to keep its order.
bool all_finite(const float* values, std::int64_t count) {
  constexpr std::uint32_t kExponent = 0x7F800000;
  std::uint32_t found = 0;
  for (std::int64_t i = 0; i < count; ++i)
    found |= (std::bit_cast<std::uint32_t>(values[i]) & kExponent) == kExponent ? 1 : 0;
  return found == 0;
}

void check_batch(const Batch& batch, std::int64_t inputs) {
  if (batch.size < 1) fail("batch", "at least one sample", "an empty batch");
  if (batch.device != kHost || batch.dtype != DType::float32) return;
  const auto* values = static_cast<const float*>(batch.data);
  const std::int64_t each = element_count(batch.sample_shape);
  const std::int64_t count = inputs * batch.size * each;
  if (all_finite(values, count)) return;
  for (std::int64_t i = 0; i < count; ++i)
    if (!std::isfinite(values[i])) refuse_value(values[i], i / each % batch.size, i % each);
}

void check_host_labels(const Labels& labels) {
  if (labels.data == nullptr)
    fail(ErrorKind::type, "cross_entropy", "labels in host memory", "labels on a device");
}

}  // namespace

Market::Market(std::shared_ptr<Backend> backend, std::vector<std::shared_ptr<Model>> models)
    : backend_(std::move(backend)), models_(std::move(models)) {
  if (models_.empty()) fail("market", "at least one spec", "none");
  for (const auto& model : models_) lock_order_.push_back(model.get());
  std::sort(lock_order_.begin(), lock_order_.end());
  lock_order_.erase(std::unique(lock_order_.begin(), lock_order_.end()), lock_order_.end());
  for (const auto& model : models_) backend_->hold(model->weights());
}

template <class Lock>
std::vector<Lock> Market::lock_models() const {
  std::vector<Lock> locks;
  for (const Model* model : lock_order_) locks.emplace_back(model->access());
  return locks;
}

Market::~Market() {
  for (const auto& model : models_) backend_->release(model->weights());
}

// Every spec's nodes; what does not fit names its spec, for layers of all specs are called alike.
std::vector<std::vector<Shape>> Market::spec_shapes(const Shape& input_shape) const {
  std::vector<std::vector<Shape>> all;
  Shape shape = input_shape;
  for (std::size_t i = 0; i < models_.size(); ++i) {
    const Graph& graph = models_[i]->graph();
    try {
      all.push_back(infer_shapes(graph, shape));
    } catch (const Error& error) {
      if (models_.size() == 1) throw;
      throw Error(error.kind(), "spec " + std::to_string(i) + ": " + error.what());
    }
    shape = all.back()[graph.output];
  }
  return all;
}

Shape Market::output_shape(const Shape& input_shape) const {
  return spec_shapes(input_shape).back()[models_.back()->graph().output];
}

std::int64_t Market::flops(const Plan& plan, const Shape& input_shape) const {
  if (plan.levels.size() != models_.size())
    fail("flops", std::to_string(models_.size()) + " levels", std::to_string(plan.levels.size()));
  const std::vector<std::int64_t> each = spec_flops(input_shape);
  std::int64_t total = 0;
  for (std::size_t i = 0; i < each.size(); ++i)
    total += each[i] * static_cast<std::int64_t>(plan.levels[i].vendor.size());
  return total;
}

std::vector<std::int64_t> Market::spec_flops(const Shape& input_shape) const {
  const std::vector<std::vector<Shape>> shapes = spec_shapes(input_shape);
  std::vector<std::int64_t> flops;
  for (std::size_t i = 0; i < models_.size(); ++i)
    flops.push_back(count_flops(models_[i]->graph(), shapes[i]));
  return flops;
}

void Market::check_place(const Batch& batch) const {
  if (batch.device != kHost && !backend_->exchange())
    fail(ErrorKind::type, "batch", "x in host memory with device '" + backend_->device() + "'",
         "x on a device");
}

Executor& Market::executor(const Batch& batch) {
  check_place(batch);
  const auto found = executors_.find(batch.sample_shape);
  if (found != executors_.end()) return *found->second;
  output_shape(batch.sample_shape);  // what does not fit is told of once, here
  if (executors_.size() >= kCachedShapes) executors_.clear();
  auto& slot = executors_[batch.sample_shape];
  try {
    slot = backend_->compile(models_, batch.sample_shape);
  } catch (...) {
    executors_.erase(batch.sample_shape);
    throw;
  }
  return *slot;
}

void Market::check_weights(const std::vector<VendorWeights>& weights) const {
  if (weights.size() != models_.size())
    fail("vendors", std::to_string(models_.size()) + " specs", std::to_string(weights.size()));
  for (std::size_t i = 0; i < weights.size(); ++i) check_weights(i, weights[i]);
}

void Market::check_weights(std::size_t spec, const VendorWeights& weights) const {
  const auto n = static_cast<std::size_t>(models_.at(spec)->parameter_count());
  const std::size_t have = weights.values ? static_cast<std::size_t>(weights.values->size()) : 0;
  const std::size_t need = weights.kind == VendorWeights::Kind::scaled      ? n
                           : weights.kind == VendorWeights::Kind::explicit_ ? n * weights.count
                                                                            : 0;
  if (have != need)
    fail("vendors", std::to_string(need) + " values for spec " + std::to_string(spec),
         std::to_string(have));
}

void Market::check_labels(const Batch& batch, const Labels& labels) const {
  const Shape out = output_shape(batch.sample_shape);
  if (out.size() != 1) fail("cross_entropy", "logits (B, classes)", to_string(out, true));
  if (!backend_->exchange()) check_host_labels(labels);
  if (labels.data == nullptr) return;  // the device that has them checks them
  std::int64_t counted = 0;
  for (std::int64_t b = 0; b < batch.size; ++b) {
    const std::int32_t label = labels.data[b];
    if (labels.ignore_index && label == *labels.ignore_index) continue;
    ++counted;
    if (label < 0 || label >= out[0]) refuse_label(label, b, out[0]);
  }
  if (counted == 0) refuse_only_ignored();
}

// One value has no variance: a norm would make zeros of it, and its running variance would shrink.
void Market::check_statistics(const Batch& batch) const {
  if (batch.size > 1) return;
  const std::vector<std::vector<Shape>> shapes = spec_shapes(batch.sample_shape);
  for (std::size_t i = 0; i < models_.size(); ++i)
    for (std::size_t node = 1; node < shapes[i].size(); ++node) {
      const Op& op = models_[i]->graph().ops[node];
      if (op.kind == OpKind::batch_norm && element_count(shapes[i][node]) == op.channels)
        fail("batch_norm: " + op.layer, "more than one value a channel",
             "1, a batch of one sample " + to_string(shapes[i][node], true));
    }
}

// What runs a plan on a batch, once both are checked.
Executor& Market::checked(const Plan& plan, const std::vector<VendorWeights>& weights,
                          const Batch& batch) {
  check_weights(weights);
  check_plan(plan, weights);
  Executor& run = executor(batch);
  check_batch(batch, plan.input_count);
  check_statistics(batch);
  return run;
}

void Market::losses(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
                    const Labels& labels, float* out, LeaderStatistics* leader) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto access = reading();
  Executor& run = checked(plan, weights, batch);
  check_labels(batch, labels);
  run.losses(plan, weights, batch, labels, out, leader);
}

std::optional<bool> Market::step(const Plan& plan, const std::vector<VendorWeights>& weights,
                                 const Batch& batch, const Labels& labels, const StepUpdate& update,
                                 float* losses, LeaderStatistics* leader) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto access = changing();
  Executor& run = checked(plan, weights, batch);
  check_labels(batch, labels);
  return run.step(plan, weights, batch, labels, update, losses, leader);
}

void Market::forward(const Plan& plan, const std::vector<VendorWeights>& weights,
                     const Batch& batch, const Output& out, LeaderStatistics* leader) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto access = reading();
  Executor& run = checked(plan, weights, batch);
  run.forward(plan, weights, batch, out, leader);
}

void Market::infer(const Batch& batch, const Output& out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto access = reading();
  Executor& run = executor(batch);
  check_batch(batch, 1);
  run.infer(batch, out);
}

void Market::forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                           const std::int32_t* paths, const SampleResults& results) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto access = reading();
  check_weights(weights);
  Executor& run = executor(batch);
  check_batch(batch, 1);
  if (results.losses) {
    check_host_labels(*results.labels);
    check_labels(batch, *results.labels);
  }
  const auto depth = static_cast<std::int64_t>(models_.size());
  for (std::int64_t i = 0; i < batch.size * depth; ++i)
    if (paths[i] < 0 || paths[i] >= weights[i % depth].count)
      fail("forward_with_paths",
           "vendors of spec " + std::to_string(i % depth) + " below " +
               std::to_string(weights[i % depth].count),
           std::to_string(paths[i]) + " for sample " + std::to_string(i / depth));
  run.forward_paths(weights, batch, paths, results);
}

void Market::base_losses(const Batch& batch, const Labels& labels, float* losses) {
  const std::vector<std::int32_t> leader(batch.size * models_.size(), 0);
  forward_paths(std::vector<VendorWeights>(models_.size()), batch, leader.data(),
                {nullptr, losses, &labels});
}

void Market::check_counts(const std::vector<std::int64_t>& counts) const {
  if (counts.size() != models_.size())
    fail("plan 'node'", std::to_string(models_.size()) + " specs", std::to_string(counts.size()));
  for (std::int64_t count : counts)
    if (count < 1) fail("plan 'node'", "vendor_count of at least 1", std::to_string(count));
}

NodeProber& Market::node_prober(const std::vector<std::int64_t>& counts, const Shape& input_shape) {
  const auto key = std::pair{counts, input_shape};
  const auto found = node_probers_.find(key);
  if (found != node_probers_.end()) return *found->second;
  output_shape(input_shape);
  auto prober = backend_->compile_nodes(models_, counts, input_shape);
  if (node_probers_.size() >= kCachedShapes) node_probers_.clear();
  return *(node_probers_[key] = std::move(prober));
}

double Market::node_gradients(const std::vector<std::int64_t>& counts, const NodeProbe& probe,
                              const Batch& batch, const Labels& labels, bool add,
                              Directions& gradients) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto access = reading();
  check_counts(counts);
  if (probe.seeds.size() != models_.size())
    fail("plan 'node'", "seeds of " + std::to_string(models_.size()) + " specs",
         std::to_string(probe.seeds.size()));
  for (std::size_t i = 0; i < counts.size(); ++i)
    if (static_cast<std::int64_t>(probe.seeds[i].size()) != counts[i])
      fail("plan 'node'", std::to_string(counts[i]) + " seeds for spec " + std::to_string(i),
           std::to_string(probe.seeds[i].size()));
  check_host_labels(labels);
  check_place(batch);
  NodeProber& run = node_prober(counts, batch.sample_shape);
  check_batch(batch, 1);
  check_labels(batch, labels);
  return run.probe(probe, batch, labels, add, gradients);
}

std::int64_t Market::node_flops(const std::vector<std::int64_t>& counts,
                                const Shape& input_shape) const {
  check_counts(counts);
  output_shape(input_shape);
  return chain_flops(models_, counts, input_shape);
}

Vector Market::combine(std::size_t spec, const VendorWeights& weights,
                       const std::vector<double>& coefficients) {
  check_weights(spec, weights);
  if (static_cast<std::int64_t>(coefficients.size()) != weights.count)
    fail("combine", std::to_string(weights.count) + " coefficients",
         std::to_string(coefficients.size()));
  Vector out(model(spec).parameter_count());
  backend_->combine(model(spec), weights, coefficients, out);
  return out;
}

Vector Market::delta(std::size_t spec, const VendorWeights& weights, std::int64_t vendor) {
  check_weights(spec, weights);
  if (vendor < 0 || vendor >= weights.count)
    fail("vendors", "a vendor below " + std::to_string(weights.count), std::to_string(vendor));
  const std::int64_t count = model(spec).parameter_count();
  if (weights.kind == VendorWeights::Kind::explicit_) {
    const float* values = weights.values->data() + vendor * count;
    return std::vector<float>(values, values + count);
  }
  std::vector<double> coefficients(weights.count, 0.0);
  coefficients[vendor] = 1.0;
  return combine(spec, weights, coefficients);
}

void Market::apply_vendor(std::size_t spec, const VendorWeights& weights, std::int64_t vendor) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::unique_lock<std::shared_mutex> access(model(spec).access());
  Vector& target = model(spec).weights();
  const Vector chosen = delta(spec, weights, vendor);
  if (weights.kind == VendorWeights::Kind::explicit_)
    std::copy_n(chosen.data(), chosen.size(), target.overwrite());
  else
    backend_->add_scaled(target, chosen, 1.0f);
}

void Market::change(const std::function<void()>& work) {
  const auto access = changing();
  work();
}

void Market::absorb(const LeaderStatistics& leader) {
  for (std::size_t i = 0; i < leader.size(); ++i)
    for (const BatchStatistics& statistics : leader[i]) model(i).absorb(statistics);
}

}  // namespace marketplace
