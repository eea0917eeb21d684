#include <map>

#include "gpu/node/segment.h"
#include "gpu/table_block.h"

namespace marketplace::gpu {
namespace {

Schedule rows_of_variants(std::int64_t variants, std::int64_t rows) {
  Plan plan;
  plan.input_count = rows;
  plan.levels.resize(1);
  for (std::int64_t r = 0; r < rows; ++r) {
    plan.levels[0].vendor.push_back(static_cast<std::int32_t>(variants > 1 ? r : 0));
    plan.levels[0].parent.push_back(static_cast<std::int32_t>(r));
  }
  return make_schedule(plan, {rows}, {-1});
}

// Where the market keeps what the slice has a copy of.
std::vector<Segment::Source> sources_of(const Slice& slice, const Models& models,
                                        const std::vector<Packing>& packings) {
  std::map<std::size_t, std::vector<Packing>> by_spec;
  for (Packing packing : packings) {
    const Slice::Source& source = slice.sources()[packing.id];
    packing.id = source.id;
    by_spec[static_cast<std::size_t>(source.spec)].push_back(packing);
  }
  std::vector<Segment::Source> sources;
  for (const auto& [spec, mine] : by_spec)
    sources.push_back({spec, parameter_table(*models[spec], &mine)});
  return sources;
}

std::vector<Segment::Running> running_of(const Slice& slice, const Program& program) {
  std::vector<Segment::Running> running;
  for (const Step& step : program.steps) {
    if (step.kind != StepKind::batch_norm) continue;
    const Op& op = slice.model().graph().ops[step.node];
    running.push_back(
        {slice.sources()[op.running_mean], slice.sources()[op.running_var], step.channels});
  }
  return running;
}

}  // namespace

Segment make_segment(const Model& model, const Shape& input_shape, Layout layout, bool last,
                     std::int64_t variants, std::int64_t rows) {
  Segment segment;
  segment.program = lower(model, input_shape, layout, last, DType::float32);
  segment.schedule = rows_of_variants(variants, rows);
  segment.variants = variants;
  segment.rows = rows;
  return segment;
}

Segment make_segment(const Slice& slice, const Models& models, const Shape& input_shape,
                     Layout layout, bool last, std::int64_t variants, std::int64_t rows) {
  Segment segment = make_segment(slice.model(), input_shape, layout, last, variants, rows);
  segment.sources = sources_of(slice, models, segment.program.packings);
  segment.running = running_of(slice, segment.program);
  return segment;
}

DeviceSegment::DeviceSegment(std::shared_ptr<const Segment> segment, Device& device,
                             const Stream& stream)
    : segment_(std::move(segment)) {
  std::vector<std::byte> block;
  taps_ = append_table(block, segment_->program.taps);
  schedule_ = append_table(block, segment_->schedule.table);
  for (const Segment::Source& source : segment_->sources) {
    const std::int64_t parameters = append_table(block, source.table.parameters);
    sources_.push_back({parameters, append_table(block, source.table.tiles)});
  }
  const auto bytes = static_cast<std::int64_t>(block.size());
  constants_ = device.pool.allocate(bytes, stream);
  copy_to_device_now(constants_.get(), block.data(), bytes, stream);
  packed_ = device.pool.allocate(segment_->variants * segment_->program.packed_bytes, stream);
  std::int64_t channels = 0;
  for (const Segment::Running& each : segment_->running) channels += each.channels;
  running_ = device.pool.allocate(2 * channels * 4, stream);
}

void DeviceSegment::load_running(const Models& models, const Stream& stream) const {
  std::vector<float> values;
  const auto append = [&](const Slice::Source& source, std::int64_t channels) {
    const float* from = models[source.spec]->data(source.id);
    values.insert(values.end(), from, from + channels);
  };
  for (const Segment::Running& each : segment_->running) {
    append(each.mean, each.channels);
    append(each.variance, each.channels);
  }
  if (!values.empty()) copy_to_device_now(running_.get(), values.data(), running_.bytes(), stream);
}

void DeviceSegment::pack(const std::vector<const float*>& bases, const Stream& stream) const {
  const Program& program = segment_->program;
  // columns are padded with zeros to whole steps of the product kernel
  fill_bytes(packed(), 0, segment_->variants * program.packed_bytes, stream);
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const Segment::Source& source = segment_->sources[i];
    PackArgs args;
    args.base = bases[source.spec];
    args.parameters = table<Parameter>(sources_[i].parameters);
    args.tiles = table<RandomTile>(sources_[i].tiles);
    args.tile_count = static_cast<std::int64_t>(source.table.tiles.size());
    args.vendors = segment_->variants;
    args.packed = packed();
    args.packed_stride = program.packed_bytes;
    pack_gpu(DType::float32, args, stream);
  }
}

void DeviceSegment::run(const DeviceInfo& device, const Call& call, const Stream& stream) const {
  Chunk chunk = segment_->schedule.chunks.front();
  if (call.rows > 0) chunk.rows = chunk.parents = call.rows;
  const Places places = segment_->places(call.samples, chunk.rows);
  RunArgs args;
  args.program = &segment_->program;
  args.places = &places;
  args.chunk = &chunk;
  args.table = table<std::int32_t>(schedule_);
  args.taps = taps();
  args.packed = packed(call.variant);
  args.samples = call.samples;
  args.in = reinterpret_cast<const std::byte*>(call.in);
  args.out = reinterpret_cast<std::byte*>(call.out);
  args.scratch = call.scratch;
  const auto* running = running_.get<float>();
  for (const Segment::Running& each : segment_->running) {
    args.batch_norms.push_back({running, nullptr});
    running += 2 * each.channels;
  }
  args.loss = call.loss;
  run_program(DType::float32, device, args, stream);
}

}  // namespace marketplace::gpu
