// A market: its specs' models on one backend, and every check that a batch meets at the door.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "backend.h"

namespace marketplace {

class Market {
 public:
  Market(std::shared_ptr<Backend> backend, std::vector<std::shared_ptr<Model>> models);
  Market(const Market&) = delete;
  Market& operator=(const Market&) = delete;
  ~Market();

  Backend& backend() { return *backend_; }
  const std::vector<std::shared_ptr<Model>>& models() const { return models_; }
  Model& model(std::size_t spec) { return *models_.at(spec); }

  Shape output_shape(const Shape& input_shape) const;
  // Floating point operations of a plan on one sample.
  std::int64_t flops(const Plan& plan, const Shape& input_shape) const;
  // The same of one vendor on one sample, per spec.
  std::vector<std::int64_t> spec_flops(const Shape& input_shape) const;

  // losses (P,) or (B,), outputs (P, B, *output_shape) or (B, *output_shape), as in Executor.
  void losses(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
              const Labels& labels, float* out, LeaderStatistics* leader = nullptr);
  void forward(const Plan& plan, const std::vector<VendorWeights>& weights, const Batch& batch,
               const Output& out, LeaderStatistics* leader = nullptr);
  // A whole step, see Executor; nothing where the backend does not take it.
  std::optional<bool> step(const Plan& plan, const std::vector<VendorWeights>& weights,
                           const Batch& batch, const Labels& labels, const StepUpdate& update,
                           float* losses, LeaderStatistics* leader);
  void infer(const Batch& batch, const Output& out);
  // paths (B, S).
  void forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                     const std::int32_t* paths, const SampleResults& results);
  // losses (B,) of the base weights alone.
  void base_losses(const Batch& batch, const Labels& labels, float* losses);

  // Node perturbation, see NodeProber; counts: vendors per spec.
  double node_gradients(const std::vector<std::int64_t>& counts, const NodeProbe& probe,
                        const Batch& batch, const Labels& labels, bool add, Directions& gradients);
  std::int64_t node_flops(const std::vector<std::int64_t>& counts, const Shape& input_shape) const;

  // (n,): the vendors' deltas, weighted; coefficients: one a vendor.
  Vector combine(std::size_t spec, const VendorWeights& weights,
                 const std::vector<double>& coefficients);
  // (n,): what vendor v adds to W (for explicit weights: instead of W).
  Vector delta(std::size_t spec, const VendorWeights& weights, std::int64_t vendor);
  // W of a spec becomes vendor v's weights.
  void apply_vendor(std::size_t spec, const VendorWeights& weights, std::int64_t vendor);
  // work(), which changes weights, all specs' at once for whoever reads them in another thread.
  void change(const std::function<void()>& work);
  void absorb(const LeaderStatistics& leader);  // within change()

 private:
  Executor& executor(const Batch& batch);
  Executor& checked(const Plan& plan, const std::vector<VendorWeights>& weights,
                    const Batch& batch);
  NodeProber& node_prober(const std::vector<std::int64_t>& counts, const Shape& input_shape);
  void check_counts(const std::vector<std::int64_t>& counts) const;
  void check_place(const Batch& batch) const;
  void check_weights(const std::vector<VendorWeights>& weights) const;
  void check_weights(std::size_t spec, const VendorWeights& weights) const;
  std::vector<std::vector<Shape>> spec_shapes(const Shape& input_shape) const;
  void check_statistics(const Batch& batch) const;
  void check_labels(const Batch& batch, const Labels& labels) const;

  // Every model's access, for as long as it lives.
  template <class Lock>
  std::vector<Lock> lock_models() const;
  auto reading() const { return lock_models<std::shared_lock<std::shared_mutex>>(); }
  auto changing() const { return lock_models<std::unique_lock<std::shared_mutex>>(); }

  std::mutex mutex_;  // one call at a time: executors own their working memory
  std::shared_ptr<Backend> backend_;
  std::vector<std::shared_ptr<Model>> models_;
  std::vector<const Model*> lock_order_;  // of all markets alike, each model once
  std::map<Shape, std::unique_ptr<Executor>> executors_;
  std::map<std::pair<std::vector<std::int64_t>, Shape>, std::unique_ptr<NodeProber>> node_probers_;
};

}  // namespace marketplace
