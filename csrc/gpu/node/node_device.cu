#include <algorithm>
#include <cstring>

#include "core/batch_checks.h"
#include "core/error.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/incoming.h"
#include "gpu/node/node_device.h"

namespace marketplace::gpu {
namespace {

std::int64_t sample_bytes(const Batch& batch) {
  return element_count(batch.sample_shape) * size_bytes(batch.dtype);
}

// The device's samples of the batch.
Batch part_of(const NodeCall& call) {
  Batch part = *call.batch;
  part.data = static_cast<const std::byte*>(part.data) + call.first * sample_bytes(part);
  part.size = call.count;
  return part;
}

bool checks_values(const Batch& batch) {
  return batch.device != kHost && batch.dtype == DType::float32;
}

}  // namespace

NodeDevice::NodeDevice(std::shared_ptr<const NodeMarket> market,
                       std::shared_ptr<const Lowered> prefix, std::shared_ptr<Team> team,
                       std::size_t index)
    : market_(std::move(market)),
      prefix_lowered_(std::move(prefix)),
      team_(std::move(team)),
      device_(team_->device(index)),
      vectors_(team_->stream(index)),
      stream_(device_->index) {
  const DeviceGuard guard(device_->index);
  if (prefix_lowered_) prefix_ = std::make_unique<DeviceExecutor>(prefix_lowered_, team_, index);
  const auto make = [&](const std::shared_ptr<Segment>& segment) {
    return segment ? std::optional<DeviceSegment>(std::in_place, segment, *device_, stream_)
                   : std::nullopt;
  };
  entry_ = make(market_->entry);
  std::int64_t channels = 0;
  for (const NodeStage& stage : market_->stages) {
    stages_.push_back({make(stage.sum), make(stage.rest), make(stage.spread), make(stage.tail)});
    channels = std::max(channels, stage.parts.channels * stage.parts.probes);
  }
  zeros_ = device_->pool.allocate(channels * 4, stream_);
  fill_bytes(zeros_.get(), 0, channels * 4, stream_);
  report_ = device_->pool.allocate(sizeof(IncomingReport), stream_);
}

void NodeDevice::grow(DeviceMemory& memory, std::int64_t bytes) {
  if (memory.bytes() < bytes) device_->pool.renew(memory, bytes, stream_);
}

// Where the device refuses, tiles become smaller until they fit or cannot.
void NodeDevice::make_room(const NodeCall& call) {
  const DeviceGuard guard(device_->index);
  grow(gradients_, call.pieces * market_->gradient_floats * 4);
  grow(changes_, call.pieces * market_->change_doubles * 8);
  const std::int64_t raw = prefix_ ? 0 : sample_bytes(*call.batch);
  std::int64_t budget = device_->budget() + arena_memory_.bytes();
  while (call.count > 0) {
    arena_ = fit_node_arena(*market_, raw, call.count, budget);
    try {
      return grow(arena_memory_, arena_.bytes);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::memory) throw;
      budget = arena_.bytes / 2;
    }
  }
}

// Scale, labels, keys, and the samples where they come from the host.
void NodeDevice::upload(const NodeCall& call) {
  std::byte* staging = staging_.reserve(arena_.upload_bytes);
  const auto put = [&](std::int64_t to, const void* from, std::int64_t bytes) {
    if (bytes > 0) std::memcpy(staging + to, from, static_cast<std::size_t>(bytes));
  };
  put(arena_.scale, &call.probe->scale, 4);
  put(arena_.labels, call.labels->data + call.first, call.count * 4);
  std::int64_t to = arena_.keys;
  for (const NodeStage& stage : market_->stages) {
    const std::uint64_t key = stage.parts.sign_key(call.probe->seeds[stage.parts.spec]);
    put(to, &key, 8);
    to += 8;
  }
  const bool host = !prefix_ && call.batch->device == kHost;
  const Batch part = part_of(call);
  if (host) put(arena_.samples, part.data, part.size * sample_bytes(part));
  copy_to_device(arena_memory_.get(), staging, host ? arena_.upload_bytes : arena_.samples,
                 stream_);
}

// The chain's input, as float32.
void NodeDevice::bring_samples(const NodeCall& call) {
  const Batch part = part_of(call);
  auto* raw = at<std::byte>(arena_.samples);
  const std::int64_t each = element_count(part.sample_shape);
  if (part.device != kHost) {
    follow(stream_, device_->doors->at(part.device));
    copy_peer(raw, device_->index, part.data, part.device, part.size * sample_bytes(part), stream_);
  }
  if (checks_values(part))
    check_values_gpu(reinterpret_cast<const float*>(raw), part.size * each,
                     report_.get<IncomingReport>(), stream_);
  load_samples_gpu(DType::float32, part.dtype, raw, floats(arena_.input), 1, part.size, 0,
                   part.size, each, stream_);
}

// The specs before the first that is trained leave their results where the chain begins. Values
// that a device has are checked there, before the call goes on.
void NodeDevice::run_prefix(const NodeCall& call) {
  const Stream& door = device_->doors->at(device_->index);
  const Batch part = part_of(call);
  const std::size_t depth = prefix_lowered_->programs.size();
  Plan plan;
  plan.levels.assign(depth, {{0}, {0}});
  const std::vector<VendorWeights> weights(depth);
  Request request{&plan, &weights, &part, nullptr, true, {}, {}, {}};
  request.leaders.assign(depth, -1);
  request.bases.assign(call.bases.begin(), call.bases.begin() + static_cast<std::ptrdiff_t>(depth));
  request.directions.assign(depth, nullptr);
  std::vector<std::int64_t> order(static_cast<std::size_t>(call.count));
  for (std::int64_t s = 0; s < call.count; ++s) order[s] = call.first + s;
  follow(door, stream_);
  const Output out(floats(arena_.input), device_->index, checks_values(part));
  prefix_->forward(request, out, nullptr, nullptr, &order);
  follow(stream_, door);
}

NodeDevice::Recorded NodeDevice::recorded(const NodeCall& call) const {
  Recorded now;
  now.numbers = {call.piece,
                 call.pieces,
                 call.first,
                 call.count,
                 arena_.tile,
                 call.labels->ignore_index.has_value(),
                 call.labels->ignore_index.value_or(0)};
  now.numbers.insert(now.numbers.end(), arena_.group.begin(), arena_.group.end());
  now.pointers = {arena_memory_.get(), gradients_.get(), changes_.get()};
  now.pointers.insert(now.pointers.end(), call.bases.begin(), call.bases.end());
  return now;
}

// A call's kernels are recorded when it comes the second time, and replayed from then on.
void NodeDevice::start(const NodeCall& call) {
  const DeviceGuard guard(device_->index);
  stream_.synchronize();  // nobody reads the staging memory any more
  const Reading reading(vectors_, stream_);
  upload(call);
  if (entry_) entry_->load_running(market_->models, stream_);
  if (prefix_)
    run_prefix(call);
  else
    bring_samples(call);
  Recorded now = recorded(call);
  if (now != last_) {
    graph_ = Graph();
    last_ = std::move(now);
    runs_ = 0;
  }
  if (runs_++ == 0) {
    run(call);
  } else {
    if (graph_.empty()) graph_ = Graph::capture(stream_, [&] { run(call); });
    graph_.launch(stream_);
  }
  const auto report_bytes = static_cast<std::int64_t>(sizeof(IncomingReport));
  std::byte* fetched = fetched_.reserve(report_bytes + call.count * 4);
  copy_to_host(fetched, report_.get(), report_bytes, stream_);
  copy_to_host(fetched + report_bytes, floats(arena_.losses), call.count * 4, stream_);
}

void NodeDevice::finish(const NodeCall& call, float* losses) {
  const DeviceGuard guard(device_->index);
  stream_.synchronize();
  const auto* report = fetched_.get<IncomingReport>();
  if (!prefix_ && checks_values(*call.batch)) {
    const std::int64_t first =
        *std::min_element(report->not_finite, report->not_finite + kCheckBlocks);
    const std::int64_t each = element_count(call.batch->sample_shape);
    if (first != kNowhere) {
      float value = 0;
      copy_to_host(&value, floats(arena_.input) + first, 4, stream_);
      stream_.synchronize();
      refuse_value(value, call.first + first / each, first % each);
    }
  }
  std::memcpy(losses, report + 1, static_cast<std::size_t>(call.count) * 4);
}

}  // namespace marketplace::gpu
