// Trains a market with a residual connection by plan tree, in C++: handles that free themselves,
// errors as exceptions. Prints the losses of every step as hexadecimal floats.
#include <marketplace.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

void check(mp_status status) {
  if (status != MP_OK) throw std::runtime_error(mp_last_error());
}

struct Free {
  void operator()(mp_market* market) const { mp_market_free(market); }
  void operator()(mp_optimizer* optimizer) const { mp_optimizer_free(optimizer); }
};
using Market = std::unique_ptr<mp_market, Free>;
using Optimizer = std::unique_ptr<mp_optimizer, Free>;

constexpr std::int64_t kBatch = 12, kInputs = 6, kHidden = 16, kClasses = 2, kPaths = 5 * 7;
constexpr int kSteps = 30;

mp_value linear(mp_market* market, mp_value x, std::int64_t in, std::int64_t out,
                const char* key = nullptr) {
  mp_linear_options options{};
  options.size = sizeof options;
  options.key = key;
  options.in_features = in;
  options.out_features = out;
  check(mp_linear(market, x, &options, &x));
  return x;
}

mp_value tanh(mp_market* market, mp_value x) {
  check(mp_activation(market, x, MP_TANH, &x));
  return x;
}

Market build() {
  mp_market* made = nullptr;
  check(mp_market_create(&made));
  Market market(made);
  check(mp_add_spec(made, 5, 0));
  const mp_value first = tanh(made, linear(made, MP_INPUT, kInputs, kHidden));
  const mp_value second = tanh(made, linear(made, first, kHidden, kHidden, "layers.2.block"));
  mp_value sum = 0;
  check(mp_add(made, first, second, &sum));
  check(mp_add_spec(made, 7, 0));
  linear(made, MP_INPUT, kHidden, kClasses);
  mp_device_options device{};
  device.size = sizeof device;
  device.device = "cpu";
  check(mp_market_finish(made, &device));
  check(mp_market_initialize(made, 11));
  return market;
}

// Points (kBatch, kInputs) in [-1, 1); whether the first is larger than the second is the label.
struct Points {
  std::vector<float> x = std::vector<float>(kBatch * kInputs);
  std::vector<std::int64_t> y = std::vector<std::int64_t>(kBatch);
  std::uint32_t state = 5;

  void draw() {
    for (float& value : x) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<float>(static_cast<std::int32_t>(state >> 8) - (1 << 23)) / (1 << 23);
    }
    for (std::int64_t b = 0; b < kBatch; ++b) y[b] = x[b * kInputs] > x[b * kInputs + 1];
  }
};

void train(mp_market* market) {
  mp_optimizer_options options{};
  options.size = sizeof options;
  options.seed = 3;
  options.plan = MP_PLAN_TREE;
  options.update = MP_UPDATE_MOMENTUM;
  options.shaping = MP_SHAPING_RANK;
  options.learning_rate = 0.1f;
  mp_optimizer* made = nullptr;
  check(mp_optimizer_create(market, &options, &made));
  const Optimizer optimizer(made);

  Points points;
  const std::int64_t x_shape[] = {kBatch, kInputs}, y_shape[] = {kBatch};
  const mp_tensor x = mp_host_tensor(points.x.data(), MP_DTYPE_FLOAT, 32, 2, x_shape);
  const mp_tensor y = mp_host_tensor(points.y.data(), MP_DTYPE_INT, 64, 1, y_shape);
  std::vector<float> losses(kPaths);
  std::vector<std::int32_t> paths(kPaths * 2);
  for (int step = 0; step < kSteps; ++step) {
    points.draw();
    std::int64_t count = kPaths;
    check(mp_probe(made, &x, &y, losses.data(), paths.data(), &count));
    const float rate = 0.1f * static_cast<float>(kSteps - step) / kSteps;
    check(mp_step(made, losses.data(), paths.data(), count, rate, nullptr));
    for (float loss : losses) std::printf("%a ", static_cast<double>(loss));
    std::printf("\n");
  }
}

}  // namespace

int main() {
  try {
    const Market market = build();
    train(market.get());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
