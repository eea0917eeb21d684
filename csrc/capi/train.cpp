// Inference, and making optimizers.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "capi/handles.h"
#include "capi/options.h"
#include "capi/tensor.h"
#include "market/topk.h"

namespace marketplace::capi {

float checked_rate(float value, const char* op, const char* name) {
  if (!(value >= 0 && std::isfinite(value)))
    fail(op, std::string("a finite ") + name + " of at least 0", std::to_string(value));
  return value;
}

std::int64_t path_count(Optimizer& optimizer, std::int64_t batch_size) {
  return optimizer.options().plan == PlanKind::scatter ? batch_size : optimizer.plan().path_count();
}

namespace {

constexpr std::int32_t kMostAxes = 16;

PlanKind plan_of(std::int32_t plan, const char* op) {
  switch (plan) {
    case MP_PLAN_TREE: return PlanKind::tree;
    case MP_PLAN_STAR: return PlanKind::star;
    case MP_PLAN_SCATTER: return PlanKind::scatter;
    case MP_PLAN_NODE: return PlanKind::node;
    default: fail(op, "a plan from MP_PLAN_TREE to MP_PLAN_NODE", std::to_string(plan));
  }
}

RuleKind rule_of(std::int32_t update, PlanKind plan, const char* op) {
  switch (update) {
    case MP_UPDATE_DEFAULT: return plan == PlanKind::node ? RuleKind::adam : RuleKind::unit;
    case MP_UPDATE_UNIT: return RuleKind::unit;
    case MP_UPDATE_MOMENTUM: return RuleKind::momentum;
    case MP_UPDATE_CLIPUP: return RuleKind::clipup;
    case MP_UPDATE_ADAM: return RuleKind::adam;
    default: fail(op, "an update from MP_UPDATE_DEFAULT to MP_UPDATE_ADAM", std::to_string(update));
  }
}

Shaping shaping_of(std::int32_t shaping, const char* op) {
  switch (shaping) {
    case MP_SHAPING_Z: return Shaping::z;
    case MP_SHAPING_RANK: return Shaping::rank;
    case MP_SHAPING_SIGN: return Shaping::sign;
    default: fail(op, "a shaping from MP_SHAPING_Z to MP_SHAPING_SIGN", std::to_string(shaping));
  }
}

UnitVectorMode mode_of(std::int32_t mode, PlanKind plan, const char* op) {
  switch (mode) {
    case MP_UNIT_VECTOR_DEFAULT:
      return plan == PlanKind::scatter ? UnitVectorMode::whole : UnitVectorMode::per_spec;
    case MP_UNIT_VECTOR_PER_SPEC: return UnitVectorMode::per_spec;
    case MP_UNIT_VECTOR_WHOLE: return UnitVectorMode::whole;
    default: fail(op, "a mode from MP_UNIT_VECTOR_DEFAULT to _WHOLE", std::to_string(mode));
  }
}

OptimizerOptions engine_options(const mp_optimizer_options& given, const char* op) {
  OptimizerOptions options;
  options.plan = plan_of(given.plan, op);
  options.learning_rate = checked_rate(given.learning_rate, op, "learning_rate");
  if (checked_rate(given.probe_scale, op, "probe_scale") != 0)
    options.probe_scale = given.probe_scale;
  options.seed = given.seed;
  options.rule.kind = rule_of(given.update, options.plan, op);
  if (checked_rate(given.momentum, op, "momentum") != 0) options.rule.momentum = given.momentum;
  options.shaping = shaping_of(given.shaping, op);
  options.antithetic = given.antithetic != 0;
  options.control_variate = given.control_variate != 0;
  if (checked_rate(given.meta_learning_rate, op, "meta_learning_rate") != 0)
    options.meta_learning_rate = given.meta_learning_rate;
  return options;
}

std::optional<std::vector<std::vector<std::uint64_t>>> first_seeds(
    const mp_optimizer_options& given, const std::vector<std::int64_t>& counts, const char* op) {
  const std::int64_t needed = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  if (given.seeds == nullptr && given.seed_count == 0) return std::nullopt;
  required(given.seeds, op, "seeds");
  in_range(given.seed_count, needed, needed, op, "seed_count, vendors of all specs");
  std::vector<std::vector<std::uint64_t>> seeds;
  const std::uint64_t* next = given.seeds;
  for (const std::int64_t count : counts) {
    seeds.emplace_back(next, next + count);
    next += count;
  }
  return seeds;
}

std::unique_ptr<mp_optimizer> make_optimizer(const mp_market* market,
                                             const mp_optimizer_options& given, const char* op) {
  finished(market, op);
  std::vector<std::int64_t> counts, sampling;
  for (const auto& spec : market->specs) {
    counts.push_back(spec.vendor_count);
    sampling.push_back(spec.upstream_sampling);
  }
  const OptimizerOptions options = engine_options(given, op);
  auto made = std::make_unique<mp_optimizer>();
  made->mode = mode_of(given.unit_vector_mode, options.plan, op);
  if (given.use_ignore_index != 0) made->ignore_index = given.ignore_index;
  made->upstream_sampling = sampling;
  const auto seeds = first_seeds(given, counts, op);
  made->optimizer = std::make_unique<Optimizer>(market->finished, std::move(counts),
                                                std::move(sampling), options, seeds);
  return made;
}

}  // namespace
}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_output_shape(const mp_market* market, const int64_t* shape, int32_t ndim,
                          int64_t* out_shape, int32_t* out_ndim) {
  return guarded([&] {
    const char* op = "output_shape";
    const Market& own = finished(market, op);
    in_range(ndim, 0, kMostAxes, op, "dimensions");
    if (ndim > 0) required(shape, op, "a shape");
    checked_count(shape, ndim, op);
    const Shape out = own.output_shape(Shape(shape, shape + ndim));
    const auto rank = static_cast<std::int32_t>(out.size());
    in_range(required(out_ndim, op, "an address for the dimensions"), rank, INT32_MAX, op,
             "room for extents");
    if (rank > 0) std::copy(out.begin(), out.end(), &required(out_shape, op, "a buffer"));
    *out_ndim = rank;
  });
}

mp_status mp_infer(mp_market* market, const mp_tensor* x, float* out, int64_t count) {
  return guarded([&] {
    const char* op = "infer";
    Market& own = finished(market, op);
    const Batch batch = borrow_batch(x, op);
    required(out, op, "a buffer");
    const std::int64_t each = element_count(own.output_shape(batch.sample_shape));
    if (count % each != 0 || count / each != batch.size)
      fail(op,
           "a buffer of " + std::to_string(batch.size) + " x " + std::to_string(each) + " elements",
           std::to_string(count));
    own.infer(batch, out);
  });
}

mp_status mp_topk(const float* values, int64_t count, int64_t k, int32_t largest, float* best,
                  int64_t* indices) {
  return guarded([&] {
    required(values, "topk", "values");
    in_range(count, 1, std::int64_t{1} << 36, "topk", "count");
    const std::vector<double> wide(values, values + count);
    const std::vector<std::int64_t> order = topk(wide.data(), count, k, largest != 0);
    for (std::int64_t i = 0; i < k && best != nullptr; ++i) best[i] = values[order[i]];
    if (indices != nullptr) std::copy(order.begin(), order.end(), indices);
  });
}

mp_status mp_optimizer_create(mp_market* market, const mp_optimizer_options* options,
                              mp_optimizer** optimizer) {
  return guarded([&] {
    const char* op = "optimizer_create";
    required(optimizer, op, "an address for the handle");
    *optimizer = make_optimizer(market, read_options(options, op), op).release();
  });
}

mp_status mp_optimizer_free(mp_optimizer* optimizer) {
  return guarded([&] { delete optimizer; });
}

mp_status mp_path_count(mp_optimizer* optimizer, int64_t batch_size, int64_t* count) {
  return guarded([&] {
    const char* op = "path_count";
    Optimizer& own = engine(optimizer, op);
    extent(batch_size, 1, op, "batch_size");
    required(count, op, "an address for the count") = path_count(own, batch_size);
  });
}
