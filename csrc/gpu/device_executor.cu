#include <algorithm>
#include <cstring>
#include <optional>

#include "core/error.h"
#include "gpu/device_executor.h"
#include "gpu/incoming.h"
#include "gpu/kernels/cross_entropy.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/table_block.h"

namespace marketplace::gpu {
namespace {

constexpr std::size_t kKeptSessions = 4;

}  // namespace

DeviceExecutor::DeviceExecutor(std::shared_ptr<const Lowered> lowered, std::shared_ptr<Team> team,
                               std::size_t index)
    : lowered_(std::move(lowered)),
      team_(std::move(team)),
      device_(team_->device(index)),
      vectors_(team_->stream(index)),
      stream_(device_->index) {
  const DeviceGuard guard(device_->index);
  upload_constants();
}

void DeviceExecutor::upload_constants() {
  std::vector<std::byte> block;
  for (std::size_t i = 0; i < lowered_->programs.size(); ++i) {
    const Program& program = lowered_->programs[i];
    const ParameterTable table = parameter_table(*lowered_->models[i], &program.packings);
    LevelTables tables{};
    tables.parameters = append_table(block, table.parameters);
    tables.tiles = append_table(block, table.tiles);
    tables.tile_count = static_cast<std::int64_t>(table.tiles.size());
    tables.taps = append_table(block, program.taps);
    tables_.push_back(tables);
  }
  const auto bytes = static_cast<std::int64_t>(block.size());
  constants_ = device_->pool.allocate(bytes, stream_);
  copy_to_device_now(constants_.get(), block.data(), bytes, stream_);
}

// Finds the session of such a call, or makes one; it is the first of the list then.
Session& DeviceExecutor::session(const Request& request) {
  const Signature signature = signature_of(request);
  const auto found = std::find_if(sessions_.begin(), sessions_.end(), [&](const Session& session) {
    return session.signature == signature;
  });
  if (found != sessions_.end()) {
    sessions_.splice(sessions_.begin(), sessions_, found);
    return sessions_.front();
  }
  while (sessions_.size() >= kKeptSessions) sessions_.pop_back();
  Session made = make_session(lowered_->programs, request);
  cut(made, *request.plan, device_->budget() + arena_.bytes());
  sessions_.push_front(std::move(made));
  return sessions_.front();
}

void DeviceExecutor::cut(Session& session, const Plan& plan, std::int64_t budget) {
  const auto& programs = lowered_->programs;
  session.cut = choose_cut(programs, session.demand, device_->dtype, budget);
  session.arena = plan_arena(programs, session.demand, session.cut, device_->dtype);
  session.schedule = make_schedule(plan, session.cut.rows, session.signature.leaders);
  const auto bytes = static_cast<std::int64_t>(session.schedule.table.size()) * 4;
  session.table = device_->pool.allocate(bytes, stream_);
  copy_to_device_now(session.table.get(), session.schedule.table.data(), bytes, stream_);
  session.graph = Graph();
  session.number = unique_number();
}

// Grows the arena; where the device refuses, the work is cut smaller until it fits or cannot be
// cut.
void DeviceExecutor::make_room(Session& session, const Plan& plan) {
  while (session.arena.bytes > arena_.bytes()) {
    ++arena_generation_;
    try {
      device_->pool.renew(arena_, session.arena.bytes, stream_);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::memory) throw;
      cut(session, plan, session.arena.bytes / 2);
    }
  }
}

Session& DeviceExecutor::begin(const Request& request) {
  stream_.synchronize();  // nobody reads the staging memory any more
  Session& found = session(request);
  make_room(found, *request.plan);
  std::byte* staging = staging_.reserve(found.upload.bytes);
  fill_upload(lowered_->programs, lowered_->models, request, found.upload, staging);
  const std::int64_t from = found.signature.samples_there ? found.upload.labels : 0;
  copy_to_device(at<void>(found.arena.upload + from), staging + from, found.upload.bytes - from,
                 stream_);
  wait_for_incoming(request);
  bring_incoming(
      request, found,
      {at<std::byte>(found.arena.upload), at<IncomingReport>(found.arena.results + found.report)},
      lowered_->programs.back().output_size, stream_);
  for (std::size_t i = 0; i < request.directions.size(); ++i)
    if (request.directions[i] != nullptr)
      copy_on_device(at<void>(found.arena.upload + found.upload.levels[i].values),
                     request.directions[i], lowered_->models[i]->parameter_count() * 4, stream_);
  if (found.bases != request.bases) found.graph = Graph();
  found.bases = request.bases;
  return found;
}

void DeviceExecutor::wait_for_incoming(const Request& request) {
  const auto wait_for = [&](int device) {
    if (device != kHost) follow(stream_, device_->doors->at(device));
  };
  wait_for(request.batch->device);
  if (request.labels) wait_for(request.labels->there.device);
}

// Every vendor's weights, as the products want them.
void DeviceExecutor::pack(const Session& session) {
  for (std::size_t i = 0; i < lowered_->programs.size(); ++i) {
    const Program& program = lowered_->programs[i];
    const UploadPlan::Level& upload = session.upload.levels[i];
    const std::byte* constants = constants_.get<std::byte>();
    PackArgs args;
    args.kind = session.signature.vendors[i].kind;
    args.base = session.bases[i];
    args.values = at<float>(session.arena.upload + upload.values);
    args.seeds = at<std::uint64_t>(session.arena.upload + upload.seeds);
    args.scales = at<float>(session.arena.upload + upload.scales);
    args.amplitudes = at<float>(session.arena.upload + upload.amplitudes);
    args.value_count = lowered_->models[i]->parameter_count();
    args.parameters = reinterpret_cast<const Parameter*>(constants + tables_[i].parameters);
    args.tiles = reinterpret_cast<const RandomTile*>(constants + tables_[i].tiles);
    args.tile_count = tables_[i].tile_count;
    args.vendors = session.demand.vendors[i];
    args.packed = at<std::byte>(session.arena.packed[i]);
    args.packed_stride = program.packed_bytes;
    // columns are padded with zeros to whole steps of the product kernel
    fill_bytes(args.packed, 0, args.vendors * args.packed_stride, stream_);
    pack_gpu(device_->dtype, args, stream_);
  }
}

std::vector<StatisticsPlace> DeviceExecutor::statistics_places(const Session& session,
                                                               int level) const {
  std::vector<StatisticsPlace> places;
  for (const std::int64_t running : session.upload.levels[level].running)
    places.push_back({at<float>(session.arena.upload + running), nullptr});
  if (session.demand.inference) return places;
  for (const Step& step : lowered_->programs[level].steps) {
    if (step.kind != StepKind::batch_norm) continue;
    StatisticsPlace place;
    for (const LeaderPlace& leader : session.leaders)
      if (leader.level == level && leader.node == step.node)
        place.leader = at<float>(session.arena.results + leader.at);
    places.push_back(place);
  }
  return places;
}

RunArgs DeviceExecutor::chunk_args(const Session& session, const Chunk& chunk,
                                   std::int64_t samples) const {
  const auto level = static_cast<std::size_t>(chunk.level);
  RunArgs args;
  args.program = &lowered_->programs[level];
  args.places = &session.arena.places[level];
  args.chunk = &chunk;
  args.table = session.table.get<std::int32_t>();
  args.taps = reinterpret_cast<const Tap*>(constants_.get<std::byte>() + tables_[level].taps);
  args.packed = at<std::byte>(session.arena.packed[level]);
  args.samples = samples;
  args.in = at<std::byte>(level == 0 ? session.arena.input : session.arena.output[level - 1]);
  args.out = at<std::byte>(session.arena.output[level]);
  args.scratch = at<std::byte>(session.arena.scratch);
  args.statistics = at<float>(session.arena.statistics);
  args.partial = at<double>(session.arena.partial_sums);
  args.batch_norms = statistics_places(session, chunk.level);
  return args;
}

void DeviceExecutor::run_chunk(const Session& session, const Chunk& chunk, std::int64_t first,
                               std::int64_t samples) {
  RunArgs args = chunk_args(session, chunk, samples);
  const bool last = chunk.level + 1 == static_cast<int>(lowered_->programs.size());
  if (last && fuses_loss(*args.program, session.demand)) {
    args.loss.labels = at<std::int32_t>(session.arena.upload + session.upload.labels) + first;
    args.loss.losses = at<float>(session.arena.sample_losses);
    args.loss.ignoring = session.signature.ignore_index.has_value();
    args.loss.ignored = session.signature.ignore_index.value_or(0);
  }
  run_program(device_->dtype, device_->info, args, stream_);
}

void DeviceExecutor::sum_losses(const Session& session, const Chunk& chunk, std::int64_t first,
                                std::int64_t samples) {
  const Program& program = lowered_->programs.back();
  auto* losses = at<float>(session.arena.sample_losses);
  if (!fuses_loss(program, session.demand)) {
    CrossEntropyArgs args;
    args.logits = at<float>(session.arena.output.back());
    args.losses = losses;
    args.labels = at<std::int32_t>(session.arena.upload + session.upload.labels) + first;
    args.rows = chunk.rows;
    args.samples = samples;
    args.classes = program.output_size;
    args.ignoring = session.signature.ignore_index.has_value();
    args.ignored = session.signature.ignore_index.value_or(0);
    cross_entropy_gpu(args, device_->info, stream_);
  }
  SumLossesArgs args;
  args.losses = losses;
  args.partial = at<double>(session.arena.partial_losses);
  args.paths = session.table.get<std::int32_t>() + chunk.path_at;
  args.rows = chunk.rows;
  args.samples = samples;
  args.first = first;
  args.path_count = session.demand.paths();
  sum_losses_gpu(args, stream_);
}

void DeviceExecutor::load(const Session& session, std::int64_t first, std::int64_t samples) {
  load_samples_gpu(device_->dtype, session.signature.batch_dtype,
                   at<void>(session.arena.upload + session.upload.samples),
                   at<void>(session.arena.input), session.demand.inputs, session.demand.batch,
                   first, samples, lowered_->programs[0].input_size, stream_);
}

void DeviceExecutor::run_losses(const Session& session) {
  pack(session);
  const std::int64_t batch = session.demand.batch, paths = session.demand.paths();
  for (std::int64_t first = 0; first < batch; first += session.cut.samples) {
    const std::int64_t samples = std::min(session.cut.samples, batch - first);
    load(session, first, samples);
    for (const Chunk& chunk : session.schedule.chunks) {
      run_chunk(session, chunk, first, samples);
      if (chunk.level + 1 == static_cast<int>(lowered_->programs.size()))
        sum_losses(session, chunk, first, samples);
    }
  }
  mean_losses_gpu(at<double>(session.arena.partial_losses), (batch + kLossBlock - 1) / kLossBlock,
                  paths, at<double>(session.arena.upload + session.upload.counted),
                  at<float>(session.arena.results), stream_);
}

void DeviceExecutor::fetch_results(const Session& session) {
  const std::int64_t bytes = session.demand.result_bytes;
  copy_to_host(fetched_.reserve(bytes), at<void>(session.arena.results), bytes, stream_);
}

// A call's kernels are recorded when it comes the second time, and replayed from then on.
void DeviceExecutor::start_losses(const Request& request) {
  const DeviceGuard guard(device_->index);
  const Reading reading(vectors_, stream_);
  Session& session = begin(request);
  if (session.runs++ == 0) {
    run_losses(session);
  } else {
    if (session.graph.empty() || session.graph_generation != arena_generation_) {
      session.graph = Graph::capture(stream_, [&] { run_losses(session); });
      session.graph_generation = arena_generation_;
    }
    session.graph.launch(stream_);
  }
  fetch_results(session);
}

void DeviceExecutor::read_losses(float* losses, LeaderStatistics* leader) const {
  const DeviceGuard guard(device_->index);
  const Session& session = sessions_.front();
  check_report(session, nullptr);
  std::memcpy(losses, fetched_.get(), static_cast<std::size_t>(session.demand.paths()) * 4);
  read_statistics(session, leader);
}

void DeviceExecutor::read_statistics(const Session& session, LeaderStatistics* leader) const {
  if (leader == nullptr) return;
  for (const LeaderPlace& place : session.leaders) {
    const auto* mean = reinterpret_cast<const float*>(fetched_.get<std::byte>() + place.at);
    const float* variance = mean + place.channels;
    (*leader)[place.level].push_back({place.node, place.count,
                                      std::vector<float>(mean, mean + place.channels),
                                      std::vector<float>(variance, variance + place.channels)});
  }
}

void DeviceExecutor::check_report(const Session& session,
                                  const std::vector<std::int64_t>* order) const {
  if (!session.signature.checked_there()) return;
  const auto* report =
      reinterpret_cast<const IncomingReport*>(fetched_.get<std::byte>() + session.report);
  check_incoming(session, *report, lowered_->programs, at<std::byte>(session.arena.upload), order,
                 stream_);
}

void DeviceExecutor::fetch_rows(const Session& session, const Chunk& chunk, std::int64_t first,
                                std::int64_t samples, float* out, const std::int64_t* paths) {
  const std::int64_t batch = session.demand.batch, each = lowered_->programs.back().output_size;
  const std::int64_t bytes = chunk.rows * samples * each * 4;
  const auto* values = reinterpret_cast<const float*>(fetched_.reserve(bytes));
  copy_to_host(fetched_.get(), at<void>(session.arena.output.back()), bytes, stream_);
  stream_.synchronize();
  for (const std::int32_t row : chunk.plan_rows) {
    const std::int64_t path = paths ? paths[row] : row;
    std::copy_n(values, samples * each, out + (path * batch + first) * each);
    values += samples * each;
  }
}

// Rows that are neighbours in both places go together, where they hold all samples.
void DeviceExecutor::leave_rows(const Session& session, const Chunk& chunk, std::int64_t first,
                                std::int64_t samples, const Output& out,
                                const std::int64_t* paths) {
  const std::int64_t batch = session.demand.batch, each = lowered_->programs.back().output_size;
  const auto* values = at<const float>(session.arena.output.back());
  const auto path_of = [&](std::size_t r) {
    return paths ? paths[chunk.plan_rows[r]] : std::int64_t{chunk.plan_rows[r]};
  };
  for (std::size_t r = 0, next = 0; r < chunk.plan_rows.size(); r = next) {
    const std::int64_t path = path_of(r);
    next = r + 1;
    while (samples == batch && next < chunk.plan_rows.size() &&
           path_of(next) == path + static_cast<std::int64_t>(next - r))
      ++next;
    const std::int64_t count = static_cast<std::int64_t>(next - r) * samples * each;
    copy_peer(out.data + (path * batch + first) * each, out.device, values, device_->index,
              count * 4, stream_);
    values += count;
  }
}

void DeviceExecutor::forward(const Request& request, const Output& out, const std::int64_t* paths,
                             LeaderStatistics* leader, const std::vector<std::int64_t>* order) {
  const DeviceGuard guard(device_->index);
  const Reading reading(vectors_, stream_);
  const Session& session = begin(request);
  const bool stays = out.device != kHost;
  const bool leaves = stays && !out.waits && session.leaders.empty();
  std::optional<Event> taken;  // samples, whose memory the caller may use for something else then
  if (leaves && session.signature.samples_there) taken.emplace(device_->index).record(stream_);
  if (stays) follow(stream_, device_->doors->at(out.device));
  pack(session);
  const std::int64_t batch = session.demand.batch;
  for (std::int64_t first = 0; first < batch; first += session.cut.samples) {
    const std::int64_t samples = std::min(session.cut.samples, batch - first);
    load(session, first, samples);
    for (const Chunk& chunk : session.schedule.chunks) {
      run_chunk(session, chunk, first, samples);
      if (chunk.level + 1 < static_cast<int>(lowered_->programs.size())) continue;
      if (stays)
        leave_rows(session, chunk, first, samples, out, paths);
      else
        fetch_rows(session, chunk, first, samples, out.data, paths);
    }
  }
  if (stays) follow(device_->doors->at(out.device), stream_);
  if (taken) taken->synchronize();
  if (leaves) return;
  fetch_results(session);
  stream_.synchronize();
  check_report(session, order);
  read_statistics(session, leader);
}

}  // namespace marketplace::gpu
