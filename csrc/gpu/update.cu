#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "gpu/kernels/random.h"
#include "gpu/kernels/vector.h"
#include "gpu/update.h"
#include "gpu/weights.h"

namespace marketplace::gpu {
namespace {

enum Kind : std::uint64_t { kZero, kCombine, kAddScaled, kDecayAdd, kAdam, kNormalise, kClip };

template <class T>
void append(std::vector<std::byte>& to, const std::vector<T>& values) {
  const std::size_t at = to.size(), bytes = values.size() * sizeof(T);
  to.resize(at + bytes);
  if (bytes > 0) std::memcpy(to.data() + at, values.data(), bytes);
}

template <class T>
const T* as(const std::byte* bytes) {
  return reinterpret_cast<const T*>(bytes);
}

void zero(Team& team, Vector& out) {
  const auto target = team.overwrite(out);
  Task task;
  task.key = {kZero, static_cast<std::uint64_t>(target->count())};
  task.vectors = {target};
  task.launch = [=](const OnDevice& place) {
    fill_bytes(target->at(place.device), 0, target->count() * 4, place.stream);
  };
  team.add(std::move(task));
}

// The tiles, then the parameters.
void make_tables(Team& team, const Model& model, DeltaTables& tables) {
  if (!tables.memory.empty()) return;
  const ParameterTable table = parameter_table(model, nullptr);
  std::vector<std::byte> block;
  append(block, table.tiles);
  tables.parameters_at = static_cast<std::int64_t>(block.size());
  append(block, table.parameters);
  std::vector<DeviceMemory> memory;
  for (std::size_t d = 0; d < team.size(); ++d) {
    const auto bytes = static_cast<std::int64_t>(block.size());
    memory.push_back(team.device(d)->pool.allocate(bytes, team.stream(d)));
    copy_to_device_now(memory.back().get(), block.data(), bytes, team.stream(d));
  }
  tables.tile_count = static_cast<std::int64_t>(table.tiles.size());
  tables.memory = std::move(memory);
}

// (V,) seeds, (V,) amplitudes; what the host has of the coefficients comes behind.
std::vector<std::byte> combine_arguments(const VendorWeights& weights) {
  std::vector<float> amplitudes;
  for (std::size_t v = 0; v < weights.seeds.size(); ++v)
    amplitudes.push_back(weights.seeded_amplitude(static_cast<std::int64_t>(v)));
  std::vector<std::byte> block;
  append(block, weights.seeds);
  append(block, amplitudes);
  return block;
}

std::int64_t vendor_count(const VendorWeights& seeded) {
  return static_cast<std::int64_t>(seeded.seeds.size());
}

// Coefficients in `arguments`, or on the devices, which `there` has the places of.
void combine_seeded(Team& team, const Model& model, std::vector<std::byte> arguments,
                    std::int64_t vendors, const std::vector<const float*>& there, Vector& out) {
  const auto base = team.resident(model.weights()), target = team.overwrite(out);
  make_tables(team, model, base->deltas());
  Task task;
  task.key = {kCombine, static_cast<std::uint64_t>(vendors)};
  for (const DeviceMemory& memory : base->deltas().memory)
    task.key.push_back(reinterpret_cast<std::uintptr_t>(memory.get()));
  for (const float* place : there) task.key.push_back(reinterpret_cast<std::uintptr_t>(place));
  task.key.push_back(static_cast<std::uint64_t>(base->deltas().tile_count));
  task.vectors = {target};
  task.arguments = std::move(arguments);
  task.launch = [=](const OnDevice& place) {
    const auto* table = base->deltas().memory[place.device].get<std::byte>();
    CombineArgs args;
    args.seeds = as<std::uint64_t>(place.arguments);
    args.amplitudes = as<float>(place.arguments + vendors * 8);
    args.coefficients = there.empty() ? args.amplitudes + vendors : there[place.device];
    args.vendors = vendors;
    args.parameters = as<Parameter>(table + base->deltas().parameters_at);
    args.tiles = as<RandomTile>(table);
    args.tile_count = base->deltas().tile_count;
    args.out = target->at(place.device);
    combine_gpu(args, place.stream);
  };
  team.add(std::move(task));
}

using Residents = std::vector<std::shared_ptr<Resident>>;

// Launches for groups of at most kSpans vectors; scratch: squares of all, then sums of one group.
template <class Launch>
void for_groups(const Residents& vectors, const OnDevice& place, const SpanArgs& common,
                Launch launch) {
  auto* squares = reinterpret_cast<double*>(place.scratch);
  for (std::size_t first = 0; first < vectors.size(); first += kSpans) {
    SpanArgs args = common;
    args.verdict = place.verdict;
    args.span_count = static_cast<int>(std::min<std::size_t>(kSpans, vectors.size() - first));
    for (int k = 0; k < args.span_count; ++k) {
      const Resident& vector = *vectors[first + static_cast<std::size_t>(k)];
      args.spans[k] = {vector.at(place.device), vector.count(), args.sum_count};
      args.sum_count += sums_of(vector.count());
    }
    args.squares = squares + first;
    args.sums = squares + vectors.size();
    if (args.whole_count > 0) args.whole = squares;
    launch(args);
  }
}

void add_norms(Team& team, Kind kind, Directions& vectors, bool together, float length) {
  Task task;
  std::int64_t sums = 0;
  for (Vector& vector : vectors) {
    if (vector.empty()) continue;
    task.vectors.push_back(team.change(vector));
    sums += sums_of(vector.size());
  }
  if (task.vectors.empty()) return;
  SpanArgs common;
  common.length = length;
  common.whole_count = together ? static_cast<std::int64_t>(task.vectors.size()) : 0;
  std::uint32_t bits;
  std::memcpy(&bits, &length, sizeof bits);
  task.key = {kind, together, bits};
  for (const auto& vector : task.vectors)
    task.key.push_back(static_cast<std::uint64_t>(vector->count()));
  task.scratch_bytes = (static_cast<std::int64_t>(task.vectors.size()) + sums) * 8;
  task.launch = [kind, common, all = task.vectors](const OnDevice& place) {
    for_groups(all, place, common, [&](const SpanArgs& args) { squares_gpu(args, place.stream); });
    for_groups(all, place, common, [&](const SpanArgs& args) {
      kind == kClip ? clip_gpu(args, place.stream) : normalise_gpu(args, place.stream);
    });
  };
  team.add(std::move(task));
}

}  // namespace

void combine(Team& team, const Model& model, const VendorWeights& weights,
             const std::vector<double>& coefficients, Vector& out) {
  team.together([&] {
    switch (weights.kind) {
      case VendorWeights::Kind::base: return zero(team, out);
      case VendorWeights::Kind::seeded: {
        std::vector<std::byte> arguments = combine_arguments(weights);
        append(arguments, std::vector<float>(coefficients.begin(), coefficients.end()));
        return combine_seeded(team, model, std::move(arguments), vendor_count(weights), {}, out);
      }
      case VendorWeights::Kind::scaled: {
        double scale = 0;
        for (std::int64_t v = 0; v < weights.count; ++v)
          scale += coefficients[v] * weights.scales[v];
        zero(team, out);
        return add_scaled(team, out, *weights.values, static_cast<float>(scale));
      }
      case VendorWeights::Kind::explicit_:
        fail("direction", "vendors that differ by a delta", "explicit weights");
    }
  });
}

void combine(Team& team, const Model& model, const VendorWeights& weights,
             const std::vector<const float*>& there, Vector& out) {
  team.together([&] {
    combine_seeded(team, model, combine_arguments(weights), vendor_count(weights), there, out);
  });
}

void add_scaled(Team& team, Vector& target, const Vector& values, float scale) {
  team.together([&] {
    const auto in = team.bring(values), out = team.change(target);
    Task task;
    task.key = {kAddScaled, static_cast<std::uint64_t>(out->count())};
    task.vectors = {out, in};
    append(task.arguments, std::vector<float>{scale});
    task.launch = [=](const OnDevice& place) {
      add_scaled_gpu(out->at(place.device), in->at(place.device), as<float>(place.arguments),
                     out->count(), place.verdict, place.stream);
    };
    team.add(std::move(task));
  });
}

void decay_add(Team& team, Vector& target, float decay, const Vector& values) {
  team.together([&] {
    const auto in = team.bring(values), out = team.change(target);
    Task task;
    task.key = {kDecayAdd, static_cast<std::uint64_t>(out->count())};
    task.vectors = {out, in};
    append(task.arguments, std::vector<float>{decay});
    task.launch = [=](const OnDevice& place) {
      decay_add_gpu(out->at(place.device), as<float>(place.arguments), in->at(place.device),
                    out->count(), place.verdict, place.stream);
    };
    team.add(std::move(task));
  });
}

void adam(Team& team, Vector& direction, Vector& mean, Vector& square, const AdamStep& step) {
  team.together([&] {
    const auto d = team.change(direction), m = team.change(mean), s = team.change(square);
    Task task;
    task.key = {kAdam, static_cast<std::uint64_t>(d->count())};
    task.vectors = {d, m, s};
    append(task.arguments, std::vector<AdamStep>{step});
    task.launch = [=](const OnDevice& place) {
      adam_gpu(d->at(place.device), m->at(place.device), s->at(place.device),
               as<AdamStep>(place.arguments), d->count(), place.verdict, place.stream);
    };
    team.add(std::move(task));
  });
}

void normalise(Team& team, Directions& vectors, bool together) {
  team.together([&] { add_norms(team, kNormalise, vectors, together, 0); });
}

void clip(Team& team, Directions& vectors, bool together, float length) {
  team.together([&] { add_norms(team, kClip, vectors, together, length); });
}

std::int64_t first_not_finite(Team& team, const Directions& vectors) {
  const auto guard = team.lock();
  const auto count = static_cast<std::int64_t>(vectors.size());
  const Stream& stream = team.stream(0);
  const DeviceMemory flags = team.device(0)->pool.allocate(count * 4, stream);
  fill_bytes(flags.get(), 0, flags.bytes(), stream);
  for (std::int64_t i = 0; i < count; ++i) {
    if (vectors[i].empty()) continue;
    const auto values = team.bring(vectors[i]);
    find_not_finite_gpu(values->at(0), values->count(), flags.get<std::int32_t>() + i, stream);
  }
  const auto* bad = reinterpret_cast<const std::int32_t*>(team.fetch(0, flags));
  const auto found = std::find_if(bad, bad + count, [](std::int32_t flag) { return flag != 0; });
  return found == bad + count ? -1 : found - bad;
}

}  // namespace marketplace::gpu
