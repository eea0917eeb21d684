// Probes, and what they make of the weights: steps, replicas, the best path.
#include <algorithm>
#include <string>
#include <utility>

#include "capi/handles.h"
#include "capi/tensor.h"

namespace marketplace::capi {
namespace {

// A probe's results as the caller gave them.
struct Scored {
  std::vector<float> losses;        // (P,)
  std::vector<std::int32_t> paths;  // (P, S)
};

Scored read_scored(const mp_optimizer* optimizer, const float* losses, const std::int32_t* paths,
                   std::int64_t count, const char* op) {
  const auto depth = static_cast<std::int64_t>(engine(optimizer, op).specs().size());
  required(losses, op, "losses");
  required(paths, op, "paths");
  extent(count, 1, op, "count");
  return {{losses, losses + count}, {paths, paths + count * depth}};
}

// Runs an update at a learning rate; nothing has changed when it throws.
template <class Update>
auto at_rate(mp_optimizer& own, float learning_rate, const char* op, Update update) {
  checked_rate(learning_rate, op, "learning_rate");
  const Rates before = own.optimizer->options();
  Rates rates = before;
  rates.learning_rate = learning_rate;
  own.optimizer->set_rates(rates);
  try {
    return update();
  } catch (...) {
    own.optimizer->set_rates(before);
    throw;
  }
}

void keep_batch(mp_optimizer& own, const Batch& batch, std::vector<std::int32_t> labels) {
  const auto* data = static_cast<const unsigned char*>(batch.data);
  const std::int64_t bytes =
      batch.size * element_count(batch.sample_shape) * size_bytes(batch.dtype);
  own.batches.push_back({{data, data + bytes}, batch, std::move(labels)});
  own.batches.back().batch.data = own.batches.back().data.data();
}

std::vector<float> mean_losses(const std::vector<double>& total, std::int64_t count) {
  std::vector<float> mean;
  for (const double value : total)
    mean.push_back(static_cast<float>(value / static_cast<double>(count)));
  return mean;
}

// Probes; `further`: one more batch of these vendors. The losses become the mean so far.
Probe probe_batch(mp_optimizer& own, const Batch& batch, const mp_tensor* given, bool further,
                  const char* op) {
  std::vector<std::int32_t> labels = read_labels(given, batch.size, op);
  Probe found = own.optimizer->probe(batch, {labels.data(), own.ignore_index}, further);
  if (!further) own.start_over();
  if (further && found.losses.size() != own.total.size())
    fail(op, std::to_string(own.total.size()) + " samples that count, as in the batches before",
         std::to_string(found.losses.size()));
  own.total.resize(found.losses.size());
  if (own.optimizer->options().meta_learning_rate) keep_batch(own, batch, std::move(labels));
  for (std::size_t p = 0; p < own.total.size(); ++p) own.total[p] += found.losses[p];
  ++own.batch_count;
  if (own.batch_count > 1) found.losses = mean_losses(own.total, own.batch_count);
  return found;
}

// Where the caller wants a probe's results: losses (P,), paths (P, S), room for *count of them.
struct Wanted {
  float* losses;
  std::int32_t* paths;
  std::int64_t* count;
};

void check_room(mp_optimizer* optimizer, const Batch& batch, const Wanted& wanted, const char* op) {
  required(wanted.losses, op, "a buffer for losses");
  required(wanted.paths, op, "a buffer for paths");
  const std::int64_t needed = path_count(engine(optimizer, op), batch.size);
  if (required(wanted.count, op, "an address for the count") < needed)
    fail(op, "buffers for " + std::to_string(needed) + " paths", std::to_string(*wanted.count));
}

void give(const Probe& found, const Wanted& wanted) {
  std::copy(found.losses.begin(), found.losses.end(), wanted.losses);
  std::copy(found.paths.begin(), found.paths.end(), wanted.paths);
  *wanted.count = static_cast<std::int64_t>(found.losses.size());
}

void probe(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels, bool further,
           const Wanted& wanted, const char* op) {
  engine(optimizer, op);
  const Batch batch = borrow_batch(x, op);
  check_room(optimizer, batch, wanted, op);
  give(probe_batch(*optimizer, batch, labels, further, op), wanted);
}

// The losses of the line search's vendors on all batches of this update.
std::vector<float> probe_again(const mp_optimizer& own) {
  std::vector<double> total;
  for (const auto& kept : own.batches) {
    const Labels labels{kept.labels.data(), own.ignore_index};
    const Probe found = own.optimizer->probe(kept.batch, labels, &kept != own.batches.data());
    total.resize(found.losses.size());
    for (std::size_t p = 0; p < total.size(); ++p) total[p] += found.losses[p];
  }
  return mean_losses(total, static_cast<std::int64_t>(own.batches.size()));
}

bool step(mp_optimizer& own, const Scored& scored, const char* op) {
  Optimizer& optimizer = *own.optimizer;
  if (!optimizer.options().meta_learning_rate)
    return optimizer.step(scored.losses, scored.paths, own.mode);
  if (own.batches.empty())
    fail(ErrorKind::runtime, op, "a probe before every step of a line search",
         "none since the last step");
  return optimizer.search(scored.losses, scored.paths, own.mode, [&] { return probe_again(own); });
}

}  // namespace
}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_probe(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels,
                   float* losses, int32_t* paths, int64_t* count) {
  return guarded([&] { probe(optimizer, x, labels, false, {losses, paths, count}, "probe"); });
}

mp_status mp_accumulate(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels,
                        float* losses, int32_t* paths, int64_t* count) {
  return guarded([&] {
    const char* op = "accumulate";
    const bool further = required(optimizer, op, "an optimizer").batch_count > 0;
    probe(optimizer, x, labels, further, {losses, paths, count}, op);
  });
}

mp_status mp_step(mp_optimizer* optimizer, const float* losses, const int32_t* paths, int64_t count,
                  float learning_rate, int32_t* degenerate) {
  return guarded([&] {
    const char* op = "step";
    const Scored scored = read_scored(optimizer, losses, paths, count, op);
    const bool equal =
        at_rate(*optimizer, learning_rate, op, [&] { return step(*optimizer, scored, op); });
    optimizer->start_over();
    if (degenerate != nullptr) *degenerate = equal;
  });
}

mp_status mp_train_step(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels,
                        float learning_rate, float* losses, int32_t* paths, int64_t* count,
                        int32_t* degenerate) {
  return guarded([&] {
    const char* op = "train_step";
    Optimizer& own = engine(optimizer, op);
    const Batch batch = borrow_batch(x, op);
    check_room(optimizer, batch, {losses, paths, count}, op);
    const std::vector<std::int32_t> known = read_labels(labels, batch.size, op);
    const TakenStep taken = at_rate(*optimizer, learning_rate, op, [&] {
      return own.train_step(batch, {known.data(), optimizer->ignore_index}, optimizer->mode);
    });
    optimizer->start_over();
    give(taken.probe, {losses, paths, count});
    if (degenerate != nullptr) *degenerate = taken.degenerate;
  });
}

mp_status mp_add_replica(mp_optimizer* optimizer, const float* losses, const int32_t* paths,
                         int64_t count, float learning_rate, int32_t* degenerate) {
  return guarded([&] {
    const char* op = "add_replica";
    const Scored scored = read_scored(optimizer, losses, paths, count, op);
    const bool equal = at_rate(*optimizer, learning_rate, op, [&] {
      return optimizer->optimizer->add_replica(scored.losses, scored.paths, optimizer->mode);
    });
    optimizer->start_over();
    if (degenerate != nullptr) *degenerate = equal;
  });
}

mp_status mp_drop_replicas(mp_optimizer* optimizer) {
  return guarded([&] {
    engine(optimizer, "drop_replicas").drop_replicas();
    optimizer->start_over();
  });
}

mp_status mp_keep_best(mp_optimizer* optimizer, const float* losses, const int32_t* paths,
                       int64_t count, float learning_rate, int64_t* best) {
  return guarded([&] {
    const char* op = "keep_best";
    const Scored scored = read_scored(optimizer, losses, paths, count, op);
    Optimizer& own = *optimizer->optimizer;
    if (own.options().plan != PlanKind::tree && own.options().plan != PlanKind::star)
      fail(op, "plan tree or star", plan_name(own.options().plan));
    const std::int64_t row = at_rate(*optimizer, learning_rate, op,
                                     [&] { return own.keep_best(scored.losses, scored.paths); });
    optimizer->start_over();
    if (best != nullptr) *best = row;
  });
}

mp_status mp_set_probe_scale(mp_optimizer* optimizer, float probe_scale) {
  return guarded([&] {
    const char* op = "set_probe_scale";
    Optimizer& own = engine(optimizer, op);
    Rates rates = own.options();
    rates.probe_scale.reset();
    if (checked_rate(probe_scale, op, "probe_scale") != 0) rates.probe_scale = probe_scale;
    own.set_rates(rates);
  });
}

mp_status mp_set_meta_learning_rate(mp_optimizer* optimizer, float meta_learning_rate) {
  return guarded([&] {
    const char* op = "set_meta_learning_rate";
    Optimizer& own = engine(optimizer, op);
    Rates rates = own.options();
    if (!rates.meta_learning_rate)
      fail(ErrorKind::runtime, op, "an optimizer that was made with one", "one without");
    rates.meta_learning_rate = checked_rate(meta_learning_rate, op, "meta_learning_rate");
    own.set_rates(rates);
  });
}

mp_status mp_get_learning_rates(const mp_optimizer* optimizer, float* rates, int64_t count) {
  return guarded([&] {
    const char* op = "get_learning_rates";
    const Optimizer& own = engine(optimizer, op);
    const auto depth = static_cast<std::int64_t>(own.specs().size());
    in_range(count, depth, depth, op, "count, one rate for each spec");
    required(rates, op, "a buffer for rates");
    for (std::int64_t i = 0; i < depth; ++i) rates[i] = own.learning_rate(i);
  });
}
