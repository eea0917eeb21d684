#include <algorithm>
#include <cstring>

#include "core/threefry.h"
#include "gpu/weights.h"

namespace marketplace::gpu {
namespace {

std::int64_t batch_bytes(const Request& request) {
  return request.plan->input_count * request.batch->size *
         element_count(request.batch->sample_shape) * size_bytes(request.batch->dtype);
}

template <class T>
void write(std::byte* to, const T* from, std::size_t count) {
  if (count > 0) std::memcpy(to, from, count * sizeof(T));
}

void write_labels(const Request& request, const UploadPlan& plan, std::byte* block) {
  if (request.labels == nullptr || request.labels->data == nullptr) return;
  const std::int32_t* labels = request.labels->data;
  const std::int64_t batch = request.batch->size;
  write(block + plan.labels, labels, static_cast<std::size_t>(batch));
  auto counted = static_cast<double>(batch);
  if (request.labels->ignore_index)
    counted -=
        static_cast<double>(std::count(labels, labels + batch, *request.labels->ignore_index));
  write(block + plan.counted, &counted, 1);
}

void write_running(const Program& program, const Model& model,
                   const std::vector<std::int64_t>& places, std::byte* block) {
  std::size_t next = 0;
  for (const Step& step : program.steps) {
    if (step.kind != StepKind::batch_norm || places.empty()) continue;
    const Op& op = model.graph().ops[step.node];
    const auto count = static_cast<std::size_t>(step.channels);
    std::byte* to = block + places[next++];
    write(to, model.data(op.running_mean), count);
    write(to + count * sizeof(float), model.data(op.running_var), count);
  }
}

std::vector<float> seeded_amplitudes(const VendorWeights& weights) {
  std::vector<float> amplitudes;
  for (std::size_t v = 0; v < weights.seeds.size(); ++v)
    amplitudes.push_back(weights.seeded_amplitude(static_cast<std::int64_t>(v)));
  return amplitudes;
}

}  // namespace

ParameterTable parameter_table(const Model& model, const std::vector<Packing>* packings) {
  ParameterTable table;
  const auto add = [&](int id, const Packing& packing) {
    Parameter parameter;
    parameter.offset = model.offset(id);
    parameter.count = model.size(id);
    parameter.at = packing.at;
    parameter.counter = model.counter(id);
    parameter.panel = packing.panel ? 1 : 0;
    parameter.depth = packing.depth;
    parameter.padded_depth = packing.padded_depth;
    parameter.order_outer = packing.order_outer;
    parameter.order_inner = packing.order_inner;
    parameter.by_depth = Divisor(packing.depth);
    parameter.by_inner = Divisor(packing.order_inner);
    parameter.by_outer = Divisor(packing.order_outer);
    parameter.whole_columns = packing.panel && packing.order_inner > 1 &&
                              parameter.count % (2 * packing.depth) == 0 &&
                              parameter.count <= INT32_MAX;
    const auto index = static_cast<std::int32_t>(table.parameters.size());
    const std::int64_t blocks = block_count(parameter.count);
    for (std::int64_t first = 0; first * kRandomThreads < blocks; ++first)
      table.tiles.push_back({index, static_cast<std::int32_t>(first)});
    table.parameters.push_back(parameter);
  };
  if (packings)
    for (const Packing& packing : *packings) add(packing.id, packing);
  else
    for (int id : model.sorted_ids())
      if (!model.graph().parameters[id].buffer) add(id, {});
  return table;
}

UploadPlan plan_upload(const std::vector<Program>& programs, const Request& request) {
  UploadPlan plan;
  Extent extent;
  plan.samples = extent.add(batch_bytes(request));
  plan.labels = extent.add(request.labels ? request.batch->size * 4 : 0);
  plan.counted = extent.add(8);
  const bool labels_there = request.labels != nullptr && request.labels->data == nullptr;
  plan.raw_labels =
      extent.add(labels_there ? request.batch->size * request.labels->there.bytes : 0);
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const VendorWeights& weights = (*request.weights)[i];
    UploadPlan::Level level;
    level.seeds = extent.add(static_cast<std::int64_t>(weights.seeds.size()) * 8);
    level.scales = extent.add(static_cast<std::int64_t>(weights.scales.size()) * 4);
    level.amplitudes = extent.add(static_cast<std::int64_t>(weights.seeds.size()) * 4);
    if (weights.kind == VendorWeights::Kind::explicit_)
      level.values = extent.add(weights.values->size() * 4);
    for (const Step& step : programs[i].steps)
      if (step.kind == StepKind::batch_norm && request.inference)
        level.running.push_back(extent.add(2 * step.channels * 4));
    plan.levels.push_back(level);
  }
  plan.bytes = extent.bytes();
  for (std::size_t i = 0; i < programs.size(); ++i)
    if ((*request.weights)[i].kind == VendorWeights::Kind::scaled)
      plan.levels[i].values = extent.add((*request.weights)[i].values->size() * 4);
  plan.arena_bytes = extent.bytes();
  return plan;
}

void fill_upload(const std::vector<Program>& programs,
                 const std::vector<std::shared_ptr<Model>>& models, const Request& request,
                 const UploadPlan& plan, std::byte* block) {
  if (request.batch->device == kHost)
    std::memcpy(block + plan.samples, request.batch->data,
                static_cast<std::size_t>(batch_bytes(request)));
  write_labels(request, plan, block);
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const VendorWeights& weights = (*request.weights)[i];
    const UploadPlan::Level& level = plan.levels[i];
    write(block + level.seeds, weights.seeds.data(), weights.seeds.size());
    write(block + level.scales, weights.scales.data(), weights.scales.size());
    const std::vector<float> amplitudes = seeded_amplitudes(weights);
    write(block + level.amplitudes, amplitudes.data(), amplitudes.size());
    if (weights.kind == VendorWeights::Kind::explicit_)
      write(block + level.values, weights.values->data(),
            static_cast<std::size_t>(weights.values->size()));
    write_running(programs[i], *models[i], level.running, block);
  }
}

}  // namespace marketplace::gpu
