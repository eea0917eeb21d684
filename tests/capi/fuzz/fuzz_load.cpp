// Random bytes as a checkpoint of a market and of an optimizer: it is refused or loaded, and
// nothing is loaded half.
#include <marketplace.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

mp_market* make_market() {
  mp_market* market = nullptr;
  mp_value x = MP_INPUT;
  mp_linear_options linear{};
  linear.size = sizeof linear;
  linear.in_features = 2;
  linear.out_features = 3;
  mp_device_options device{};
  device.size = sizeof device;
  device.device = "cpu";
  device.threads = 1;
  require(mp_market_create(&market) == MP_OK);
  require(mp_add_spec(market, 2, 0) == MP_OK);
  require(mp_linear(market, x, &linear, &x) == MP_OK);
  require(mp_batch_norm(market, x, 3, nullptr, &x) == MP_OK);
  require(mp_market_finish(market, &device) == MP_OK);
  return market;
}

struct Values {
  float weight[6], mean[3];
};

Values values_of(const mp_market* market) {
  Values values;
  require(mp_get_weights(market, 0, "layers.0.weight", values.weight, 6) == MP_OK);
  require(mp_get_weights(market, 0, "layers.1.running_mean", values.mean, 3) == MP_OK);
  return values;
}

mp_optimizer* make_optimizer(mp_market* market) {
  mp_optimizer* optimizer = nullptr;
  mp_optimizer_options options{};
  options.size = sizeof options;
  options.update = MP_UPDATE_MOMENTUM;
  options.learning_rate = 0.5f;
  require(mp_optimizer_create(market, &options, &optimizer) == MP_OK);
  return optimizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static mp_market* const market = make_market();
  static mp_optimizer* const optimizer = make_optimizer(market);
  static const int file = memfd_create("checkpoint", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  require(mp_market_initialize(market, 1) == MP_OK);
  require(ftruncate(file, 0) == 0);
  require(pwrite(file, data, size, 0) == static_cast<ssize_t>(size));
  const Values before = values_of(market);
  std::int64_t step = -7;
  const mp_status market_status = mp_market_load(market, path.c_str(), &step);
  if (mp_optimizer_load(optimizer, path.c_str(), &step) == MP_OK) require(market_status == MP_OK);
  if (market_status == MP_OK) {
    require(step >= 0);
    return 0;
  }
  const Values after = values_of(market);
  require(step == -7 && std::strlen(mp_last_error()) > 0);
  require(std::memcmp(&before, &after, sizeof before) == 0);
  return 0;
}
