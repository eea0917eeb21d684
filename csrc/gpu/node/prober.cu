#include <algorithm>
#include <cstring>

#include "gpu/doors.h"
#include "gpu/kernels/weight_gradient.h"
#include "gpu/node/prober.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kPieces = 16;  // of a batch, for at most this many devices

// A task's arguments: what every spec's gradients are multiplied by, and what signs follow from.
struct TaskNumbers {
  float share, scale;
};

const std::uint64_t* keys_of(const std::byte* arguments) {
  return reinterpret_cast<const std::uint64_t*>(arguments + sizeof(TaskNumbers));
}

}  // namespace

GpuNodeProber::GpuNodeProber(const Models& models, const std::vector<std::int64_t>& counts,
                             const Shape& input_shape, std::shared_ptr<Team> team)
    : market_(std::make_shared<NodeMarket>(models, counts, input_shape)),
      team_(std::move(team)),
      number_(unique_number()) {
  std::shared_ptr<const Lowered> prefix;
  if (market_->first_spec > 0)
    prefix = lower_market({models.begin(), models.begin() + market_->first_spec}, input_shape,
                          team_->device(0)->dtype);
  for (std::size_t d = 0; d < team_->size(); ++d)
    devices_.push_back(std::make_unique<NodeDevice>(market_, prefix, team_, d));
}

GpuNodeProber::~GpuNodeProber() {
  // the last gradients may still be made of what the devices keep; nobody is left to tell where one
  // was lost
  for (std::size_t d = 0; d < team_->size(); ++d)
    static_cast<void>(cudaStreamSynchronize(team_->stream(d).get()));
}

// Neighbouring pieces for every device, as equally as they can be had.
std::vector<NodeCall> GpuNodeProber::share_out(const NodeProbe& probe, const Batch& batch,
                                               const Labels& labels) {
  NodeCall call{&probe, &batch, &labels, 1, 1, 0, 0, {}};
  call.piece = (batch.size + kPieces - 1) / kPieces;
  call.pieces = (batch.size + call.piece - 1) / call.piece;
  std::vector<std::shared_ptr<Resident>> bases;
  for (const auto& model : market_->models)
    bases.push_back(model->weights().empty() ? nullptr : team_->bring(model->weights()));
  const auto devices = static_cast<std::int64_t>(team_->size());
  std::vector<NodeCall> calls(team_->size(), call);
  for (std::int64_t d = 0; d < devices; ++d) {
    NodeCall& mine = calls[d];
    mine.first = std::min(batch.size, d * call.pieces / devices * call.piece);
    mine.count = std::min(batch.size, (d + 1) * call.pieces / devices * call.piece) - mine.first;
    for (const auto& base : bases)
      mine.bases.push_back(base ? base->at(static_cast<std::size_t>(d)) : nullptr);
  }
  return calls;
}

// Every device gets the sums of the others' pieces.
void GpuNodeProber::exchange(const std::vector<NodeCall>& calls) {
  for (std::size_t d = 0; d < calls.size(); ++d) {
    const NodeCall& call = calls[d];
    const std::int64_t first = call.first / call.piece;
    const std::int64_t count = (call.count + call.piece - 1) / call.piece;
    const std::int64_t gradients = market_->gradient_floats, changes = market_->change_doubles;
    for (std::size_t e = 0; e < calls.size() && count > 0; ++e) {
      if (e == d) continue;
      const int to = team_->device(e)->index, from = team_->device(d)->index;
      const Stream& stream = devices_[d]->stream();
      copy_peer(devices_[e]->gradients() + first * gradients, to,
                devices_[d]->gradients() + first * gradients, from, count * gradients * 4, stream);
      copy_peer(devices_[e]->changes() + first * changes, to,
                devices_[d]->changes() + first * changes, from, count * changes * 8, stream);
    }
  }
}

double GpuNodeProber::probe(const NodeProbe& probe, const Batch& batch, const Labels& labels,
                            bool add, Directions& gradients) {
  const auto guard = team_->lock();
  const std::vector<NodeCall> calls = share_out(probe, batch, labels);
  // what the last call's sums became must be there before they are overwritten, by any device
  for (std::size_t d = 0; d < calls.size(); ++d)
    for (std::size_t e = 0; e < calls.size(); ++e) follow(devices_[d]->stream(), team_->stream(e));
  for (std::size_t d = 0; d < calls.size(); ++d) devices_[d]->make_room(calls[d]);
  // what is new there must have begun before the others write to it
  for (std::size_t d = 0; d < calls.size(); ++d)
    for (std::size_t e = 0; e < calls.size(); ++e)
      if (e != d) follow(devices_[d]->stream(), devices_[e]->stream());
  for (std::size_t d = 0; d < calls.size(); ++d)
    if (calls[d].count > 0) devices_[d]->start(calls[d]);
  exchange(calls);
  std::vector<float> losses(static_cast<std::size_t>(batch.size));
  for (std::size_t d = 0; d < calls.size(); ++d)
    if (calls[d].count > 0) devices_[d]->finish(calls[d], losses.data() + calls[d].first);
  for (std::size_t e = 0; e < calls.size(); ++e)
    for (std::size_t d = 0; d < calls.size(); ++d) follow(team_->stream(e), devices_[d]->stream());
  std::int64_t counted = batch.size;
  if (labels.ignore_index)
    counted -= std::count(labels.data, labels.data + batch.size, *labels.ignore_index);
  const float share = 1.0f / static_cast<float>(counted);
  team_->together([&] {
    for (std::size_t i = 0; i < gradients.size(); ++i)
      if (!gradients[i].empty()) add_task(i, probe, calls[0].pieces, share, add, gradients[i]);
  });
  double total = 0;
  for (const float loss : losses) total += loss;
  return total / static_cast<double>(counted);
}

// Every device adds up a spec's gradients alike.
void GpuNodeProber::add_task(std::size_t spec, const NodeProbe& probe, std::int64_t pieces,
                             float share, bool add, Vector& gradient) {
  const auto target = add ? team_->change(gradient) : team_->overwrite(gradient);
  Task task;
  task.key = {number_, spec, static_cast<std::uint64_t>(pieces), add};
  for (const auto& device : devices_) {
    task.key.push_back(reinterpret_cast<std::uintptr_t>(device->gradients()));
    task.key.push_back(reinterpret_cast<std::uintptr_t>(device->changes()));
  }
  task.vectors = {target};
  const TaskNumbers numbers{share, probe.scale};
  std::vector<std::uint64_t> keys;
  for (const NodeStage& stage : market_->stages)
    keys.push_back(stage.parts.sign_key(probe.seeds[stage.parts.spec]));
  task.arguments.resize(sizeof numbers + keys.size() * 8);
  std::memcpy(task.arguments.data(), &numbers, sizeof numbers);
  std::memcpy(task.arguments.data() + sizeof numbers, keys.data(), keys.size() * 8);
  task.launch = [this, spec, pieces, add, target](const OnDevice& place) {
    if (!add) fill_bytes(target->at(place.device), 0, target->count() * 4, place.stream);
    add_gradients(spec, pieces, place, target->at(place.device));
  };
  team_->add(std::move(task));
}

void GpuNodeProber::add_gradients(std::size_t spec, std::int64_t pieces, const OnDevice& place,
                                  float* out) const {
  const auto* share = reinterpret_cast<const float*>(place.arguments);
  const NodeDevice& device = *devices_[place.device];
  for (std::size_t l = 0; l < market_->stages.size(); ++l) {
    const NodeStage& stage = market_->stages[l];
    const StageParts& parts = stage.parts;
    if (!parts.trained) continue;
    const Model& model = *market_->models[spec];
    if (static_cast<std::size_t>(parts.spec) == spec) {
      const Op& op = model.graph().ops[parts.contraction.node];
      const Contraction& c = stage.contraction();
      sum_weight_gradient_gpu(
          {device.gradients() + stage.gradient_at, pieces, market_->gradient_floats, c.columns,
           c.depth, c.order_outer, c.order_inner, out + model.offset(op.weight),
           op.bias < 0 ? nullptr : out + model.offset(op.bias)},
          share, place.stream);
    }
    if (parts.last) continue;
    for (const Packing& packing : stage.rest->program.packings) {
      const Slice::Source& source = parts.rest_slice->sources()[packing.id];
      const std::int64_t position = parts.rest_slice->model().offset(packing.id) / parts.channels;
      if (static_cast<std::size_t>(source.spec) != spec || !parts.learns[position]) continue;
      const ChannelParameter parameter{keys_of(place.arguments) + l, position,
                                       parts.rest_slice->model().parameter_count(), parts.channels,
                                       parts.probes};
      parameter_gradient_gpu(parameter, device.changes() + stage.changes_at, pieces,
                             market_->change_doubles, share + 1, share,
                             out + model.offset(source.id), place.stream);
    }
  }
}

}  // namespace marketplace::gpu
