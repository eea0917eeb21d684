// Vendors' weights packed by several launches, as where one may not have threads enough for all.
#include "gpu/kernels/random.h"
#include "testing.h"

namespace marketplace::gpu {
namespace {

using namespace testing;

constexpr std::int64_t kValues = 600, kPacked = 5;  // of a parameter: two tiles

// Numbers that no two places share.
std::vector<float> numbers(std::int64_t count) {
  std::vector<float> all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(0.001f * static_cast<float>(i));
  return all;
}

std::vector<float> packed(VendorWeights::Kind kind, std::int64_t most_threads) {
  simt::reset(machine(0));
  const Stream stream(0);
  Pool pool(0, 0);
  Parameter parameter;
  parameter.count = kValues;
  const auto parameters = on_device<Parameter>({parameter}, pool, stream);
  const auto tiles = on_device<RandomTile>({{0, 0}, {0, 1}}, pool, stream);
  const auto base = on_device(numbers(kValues), pool, stream);
  const auto values = on_device(numbers(kPacked * kValues), pool, stream);
  const auto seeds = on_device<std::uint64_t>({0, 7, 8, 9, 10}, pool, stream);
  const auto rates = on_device<float>({0.5f, 1, 2, 3, 4}, pool, stream);
  const DeviceMemory out = pool.allocate(kPacked * kValues * 4, stream);
  PackArgs args;
  args.kind = kind;
  args.base = base.get<float>();
  args.values = values.get<float>();
  args.seeds = seeds.get<std::uint64_t>();
  args.scales = args.amplitudes = rates.get<float>();
  args.value_count = kValues;
  args.parameters = parameters.get<Parameter>();
  args.tiles = tiles.get<RandomTile>();
  args.tile_count = 2;
  args.vendors = kPacked;
  args.packed = out.get<std::byte>();
  args.packed_stride = kValues * 4;
  pack_gpu(DType::float32, args, stream, most_threads);
  return to_host(out.get<float>(), kPacked * kValues, stream);
}

TEST_CASE("packing by one launch, by one for two vendors, by one for each") {
  using Kind = VendorWeights::Kind;
  for (const Kind kind : {Kind::base, Kind::seeded, Kind::scaled, Kind::explicit_}) {
    const std::vector<float> whole = packed(kind, kMostThreads);
    CHECK(simt::counts().launches == 1);
    CHECK(packed(kind, 4 * kRandomThreads) == whole);
    CHECK(simt::counts().launches == 3);
    CHECK(packed(kind, 1) == whole);
    CHECK(simt::counts().launches == 5);
  }
}

}  // namespace
}  // namespace marketplace::gpu
