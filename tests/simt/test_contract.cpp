// Products whose windows stay in shared memory give the bits of those that fetch every step's.
#include <cmath>
#include <random>

#include "gpu/kernels/contract.h"
#include "gpu/kernels/element.h"
#include "testing.h"

namespace marketplace::gpu {
namespace {

using namespace testing;

struct Case {
  std::int64_t height, width, channels, kernel, stride, dilation, columns;
  std::int64_t vendors, parents, products, samples;
};

Contraction contraction(const Case& c) {
  Contraction made;
  const std::int64_t reach = c.dilation * (c.kernel - 1) + 1;
  made.window = {{c.kernel, c.kernel}, {c.stride, c.stride}, {0, 0}, {c.dilation, c.dilation}};
  made.height = c.height, made.width = c.width, made.channels = c.channels;
  made.out_height = (c.height - reach) / c.stride + 1;
  made.out_width = (c.width - reach) / c.stride + 1;
  made.columns = c.columns;
  made.depth = made.padded_depth = c.kernel * c.kernel * c.channels;
  return made;
}

std::vector<Tap> taps_of(const Case& c) {
  std::vector<Tap> taps;
  for (std::int64_t y = 0; y < c.kernel; ++y)
    for (std::int64_t x = 0; x < c.kernel; ++x)
      for (std::int64_t k = 0; k < c.channels; ++k) {
        const auto down = static_cast<std::int32_t>(y * c.dilation);
        const auto right = static_cast<std::int32_t>(x * c.dilation);
        taps.push_back({(down * c.width + right) * c.channels + k, down, right});
      }
  return taps;
}

// Small whole numbers and their halves, which bfloat16 and tf32 hold: products are exact.
template <class T>
std::vector<T> halves(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> all;
  for (std::int64_t i = 0; i < count; ++i)
    all.push_back(rounded<T>(static_cast<float>(static_cast<int>(random() % 9) - 4) / 2));
  return all;
}

// The results, or with `failing` the name of the kernel that was to be launched.
template <class T>
std::string run(DType dtype, const Case& c, std::int64_t shared_bytes, bool failing,
                std::vector<float>& out) {
  simt::reset(machine(3));
  const Stream stream(0);
  Pool pool(0, 0);
  const Contraction made = contraction(c);
  ContractArgs args(made);
  const std::int64_t images = c.products * c.parents * c.samples, depth = made.depth;
  const std::int64_t vendors = c.products * c.vendors, panel = c.columns * depth;
  const auto in = on_device(halves<T>(images * c.height * c.width * c.channels, 1), pool, stream);
  const auto bytes = static_cast<std::int64_t>(sizeof(T)) * panel, bias = 4 * c.columns;
  std::vector<std::byte> packed(vendors * (bytes + bias));
  for (std::int64_t v = 0; v < vendors; ++v) {
    const auto weights = halves<T>(panel, 2 + static_cast<unsigned>(v));
    const auto biases = halves<float>(c.columns, 100 + static_cast<unsigned>(v));
    std::memcpy(packed.data() + v * (bytes + bias), weights.data(), bytes);
    std::memcpy(packed.data() + v * (bytes + bias) + bytes, biases.data(), bias);
  }
  const auto panels = on_device(packed, pool, stream);
  const auto taps = on_device(taps_of(c), pool, stream);
  std::vector<Product> list;
  const auto rows_each = static_cast<std::int32_t>(c.parents * c.vendors);
  for (std::int32_t p = 0; p < c.products; ++p) {
    Product one{};
    one.first_parent = p * static_cast<std::int32_t>(c.parents);
    one.first_vendor = p * static_cast<std::int32_t>(c.vendors);
    one.row = p * rows_each;
    list.push_back(one);
  }
  const auto products = on_device(list, pool, stream);
  const std::int64_t results = c.products * rows_each * c.samples * made.rows() * c.columns;
  const auto to = on_device(std::vector<float>(results, NAN), pool, stream);
  args.in = in.get();
  args.out = to.get();
  args.packed = panels.get<std::byte>();
  args.packed_stride = bytes + bias;
  args.weight_at = 0, args.bias_at = bytes;
  args.taps = taps.get<Tap>();
  args.products = products.get<Product>();
  args.product_count = c.products;
  args.parents = c.parents, args.vendors = c.vendors, args.samples = c.samples;
  args.padded_depth = depth;
  args.whole = args.float_out = true;
  args.activation = Activation::relu;
  DeviceInfo device = device_info(0);
  device.shared_bytes = shared_bytes;
  device.multiprocessor_count = 1;  // few rows are many, then
  if (failing) simt::fail_launch(1);
  const std::string error = error_of([&] { contract_gpu(dtype, device, args, stream); });
  out = to_host(to.get<float>(), results, stream);
  return error;
}

constexpr std::int64_t kAll = 227 * 1024, kFew = 16 * 1024;

// Whether windows stayed.
template <class T>
bool compare(DType dtype, const Case& c) {
  std::vector<float> resident, fetched;
  const bool stay = run<T>(dtype, c, kAll, true, resident).find("resident") != std::string::npos;
  if (kMostSharedBytes >= kAll) CHECK(stay);  // some chips have room for small ones alone
  const std::string other = run<T>(dtype, c, kFew, true, fetched);
  CHECK(other.find("contract") != std::string::npos);
  CHECK(other.find("resident") == std::string::npos);
  CHECK(run<T>(dtype, c, kAll, false, resident) == "");
  CHECK(run<T>(dtype, c, kFew, false, fetched) == "");
  CHECK(std::none_of(resident.begin(), resident.end(), [](float x) { return std::isnan(x); }));
  CHECK(std::any_of(resident.begin(), resident.end(), [](float x) { return x > 0; }));
  CHECK(resident == fetched);
  return stay;
}

TEST_CASE("windows that stay in shared memory") {
  int stayed = 0;
  // height, width, channels, kernel, stride, dilation, columns, vendors, parents, products, samples
  for (const Case& c : {
           Case{9, 12, 32, 5, 1, 1, 32, 1, 1, 2, 5},   // columns of one tile, images across tiles
           Case{24, 24, 32, 3, 1, 1, 20, 1, 1, 1, 3},  // tall, and fewer columns than a tile has
           Case{6, 6, 32, 3, 1, 1, 40, 1, 2, 2, 11},   // many images in a tile, vendors' products
           Case{7, 5, 32, 3, 1, 1, 64, 3, 1, 1, 9},    // shared input: columns of three vendors
           Case{8, 9, 32, 2, 1, 3, 8, 9, 2, 1, 2},     // dilated
       }) {
    CAPTURE(c.height);
    stayed += compare<BFloat16>(DType::bfloat16, c);
    if constexpr (kHasTf32) stayed += compare<float>(DType::tf32, c);
  }
  CHECK(stayed >= 2);
}

TEST_CASE("windows that do not overlap, or are of a part of a step, are fetched") {
  std::vector<float> out;
  for (const Case& c : {
           Case{8, 8, 32, 1, 1, 1, 16, 1, 1, 1, 2},
           Case{8, 8, 24, 3, 1, 1, 16, 1, 1, 1, 2},
           Case{9, 9, 32, 3, 2, 1, 16, 1, 1, 1, 2},
       })
    CHECK(run<BFloat16>(DType::bfloat16, c, kAll, true, out).find("resident") == std::string::npos);
}

}  // namespace
}  // namespace marketplace::gpu
