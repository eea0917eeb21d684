#include <algorithm>
#include <chrono>
#include <vector>

#include "gpu/kernels/contract.h"
#include "gpu/kernels/random.h"
#include "gpu/measure.h"

namespace marketplace::gpu {
namespace {

// Repeats work until the time is up; returns how often a second. Once before, to warm up.
template <class Work>
double rate(const Stream& stream, double seconds, Work work) {
  using Clock = std::chrono::steady_clock;
  work();
  stream.synchronize();
  const auto start = Clock::now();
  std::int64_t count = 0, batch = 1;
  double passed = 0;
  do {
    for (std::int64_t i = 0; i < batch; ++i) work();
    stream.synchronize();
    count += batch;
    batch = std::min<std::int64_t>(2 * batch, 64);
    passed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (passed < seconds);
  return static_cast<double>(count) / passed;
}

template <class T>
DeviceMemory bring(Device& device, const std::vector<T>& values, const Stream& stream) {
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  DeviceMemory memory = device.pool.allocate(bytes, stream);
  copy_to_device_now(memory.get(), values.data(), bytes, stream);
  return memory;
}

std::vector<Tap> line_of_taps(std::int64_t depth) {
  std::vector<Tap> taps;
  for (std::int64_t k = 0; k < depth; ++k) taps.push_back({k, 0, 0});
  return taps;
}

}  // namespace

double measure_peak(Device& device, double seconds) {
  const DeviceGuard guard(device.index);
  const Stream stream(device.index);
  // large enough for every multiprocessor; the work per byte is that of a large convolution
  const std::int64_t rows = 512 * std::max(1, device.info.multiprocessor_count / 8);
  const std::int64_t columns = 512, depth = 512, bytes = size_bytes(device.dtype);
  const DeviceMemory in = device.pool.allocate(rows * depth * bytes, stream);
  const DeviceMemory panel = device.pool.allocate(columns * depth * bytes, stream);
  const DeviceMemory out = device.pool.allocate(rows * columns * bytes, stream);
  const DeviceMemory taps = bring(device, line_of_taps(depth), stream);
  const DeviceMemory product = bring(device, std::vector<Product>{{0, 0, 0}}, stream);
  fill_bytes(in.get(), 0, in.bytes(), stream);
  fill_bytes(panel.get(), 0, panel.bytes(), stream);
  ContractArgs args;
  args.in = in.get();
  args.out = out.get();
  args.packed = panel.get<std::byte>();
  args.taps = taps.get<Tap>();
  args.products = product.get<Product>();
  args.product_count = 1;
  args.samples = rows;
  args.rows = 1;
  args.columns = columns;
  args.sample_stride = args.padded_depth = depth;
  args.whole = true;
  args.height = args.width = args.out_width = 1;
  args.channels = static_cast<std::int32_t>(depth);
  const auto flops = static_cast<double>(2 * rows * columns * depth);
  return flops *
         rate(stream, seconds, [&] { contract_gpu(device.dtype, device.info, args, stream); });
}

double measure_random(Device& device, double seconds) {
  const DeviceGuard guard(device.index);
  const Stream stream(device.index);
  Parameter parameter;
  parameter.count = 1 << 22;
  std::vector<RandomTile> tiles;
  for (std::int32_t first = 0; first < parameter.count / 2 / kRandomThreads; ++first)
    tiles.push_back({0, first});
  const DeviceMemory parameters = bring(device, std::vector<Parameter>{parameter}, stream);
  const DeviceMemory places = bring(device, tiles, stream);
  const DeviceMemory seed = bring(device, std::vector<std::uint64_t>{42}, stream);
  const DeviceMemory one = bring(device, std::vector<float>{1.0f}, stream);
  const DeviceMemory out = device.pool.allocate(parameter.count * 4, stream);
  CombineArgs args;
  args.seeds = seed.get<std::uint64_t>();
  args.coefficients = one.get<float>();
  args.vendors = 1;
  args.amplitudes = one.get<float>();
  args.parameters = parameters.get<Parameter>();
  args.tiles = places.get<RandomTile>();
  args.tile_count = static_cast<std::int64_t>(tiles.size());
  args.out = out.get<float>();
  return static_cast<double>(parameter.count) *
         rate(stream, seconds, [&] { combine_gpu(args, stream); });
}

}  // namespace marketplace::gpu
