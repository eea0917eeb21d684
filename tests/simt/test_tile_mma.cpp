// The emulated matrix tiles against plain sums.
#include <cmath>

#include "core/threefry.h"
#include "gpu/tile_mma.h"
#include "testing.h"

namespace marketplace::gpu {
namespace {

using namespace testing;

constexpr int kDepth = 48;

// out (16, 16) = a (16, kDepth) · b (16, kDepth)ᵀ
template <class T>
__global__ void product_kernel(const typename TileElement<T>::type* a,
                               const typename TileElement<T>::type* b, float* out) {
  TileC<T> c;
  c.zero();
  for (int k = 0; k < kDepth; k += 16) {
    TileA<T> x;
    x.load(a + threadIdx.x % 16 * kDepth + k);
    TileB<T> y;
    y.load(b + k, kDepth);
    mma(c, x, y);
  }
  c.for_each([&](int row, int column, float& value) { out[row * 16 + column] = value; });
}

template <class T>
double largest_error() {
  using Element = typename TileElement<T>::type;
  simt::reset(machine(9));
  const Stream stream(0);
  Pool pool(0, 0);
  const std::int64_t count = 16 * kDepth;
  std::vector<Element> host(2 * count);
  for (std::int64_t i = 0; i < 2 * count; ++i)
    from_float(word_to_delta(threefry2x32(3, static_cast<std::uint32_t>(i), 0).lane0, 1.0f),
               host[i]);
  const DeviceMemory in = pool.allocate(2 * count * sizeof(Element), stream);
  const DeviceMemory out = pool.allocate(256 * sizeof(float), stream);
  copy_to_device_now(in.get(), host.data(), in.bytes(), stream);
  launch(product_kernel<T>, Grid{1}, Block{kWarpSize}, 0, stream, in.get<Element>(),
         in.get<Element>() + count, out.get<float>());
  const std::vector<float> product = to_host(out.get<float>(), 256, stream);
  double worst = 0;
  for (int i = 0; i < 256; ++i) {
    double sum = 0;
    for (int k = 0; k < kDepth; ++k)
      sum += static_cast<double>(to_float(host[i / 16 * kDepth + k])) *
             to_float(host[count + i % 16 * kDepth + k]);
    worst = std::fmax(worst, std::fabs(product[i] - sum));
  }
  return worst;
}

TEST_CASE("tiles multiply") {
  CHECK(largest_error<BFloat16>() < 1e-5);
  CHECK(largest_error<float>() < 1e-5);
  CHECK(largest_error<Tf32>() < kDepth * 0x1p-11);
  CHECK(largest_error<Tf32>() > 1e-5);  // it does round
}

__global__ void mixed_tiles_kernel(const float* a) {
  TileC<float> c;
  c.zero();
  TileA<float> x;
  TileB<float> y;
  x.load(a + threadIdx.x % 16 * 16);
  y.load(a + (threadIdx.x == 3 ? 16 : 0), 16);
  mma(c, x, y);
}

__global__ void unaligned_tile_kernel(const float* a) {
  TileA<float> x;
  x.load(a + 1);
}

TEST_CASE("misuse of tiles is an error") {
  const auto run = [](void (*kernel)(const float*)) {
    simt::reset({});
    const Stream stream(0);
    Pool pool(0, 0);
    const DeviceMemory in = pool.allocate(4096, stream);
    launch(kernel, Grid{1}, Block{kWarpSize}, 0, stream, in.get<float>());
    stream.synchronize();
  };
  CHECK(error_of([&] { run(mixed_tiles_kernel); }).find("different tiles") != std::string::npos);
  CHECK(error_of([&] { run(unaligned_tile_kernel); }).find("16-byte aligned") != std::string::npos);
  simt::reset({});
}

TEST_CASE("bfloat16 rounds to nearest even and keeps NaN") {
  CHECK(to_bfloat16(1.0f).bits == 0x3F80);
  CHECK(to_bfloat16(1.00390625f).bits == 0x3F80);  // half way, to even
  CHECK(to_bfloat16(1.01171875f).bits == 0x3F82);  // half way, to even
  CHECK(to_bfloat16(1.00390637f).bits == 0x3F81);
  CHECK(std::isnan(to_float(to_bfloat16(std::nanf("")))));
  CHECK(bfloat16_pair(1.0f, 2.0f) == 0x40003F80u);
}

}  // namespace
}  // namespace marketplace::gpu
