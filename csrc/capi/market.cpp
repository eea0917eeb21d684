// A market's life, its devices and its weights.
#include "market/market.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "capi/handles.h"
#include "capi/options.h"
#include "capi/tensor.h"
#include "devices.h"
#include "graph/initial.h"

namespace marketplace::capi {
namespace {

constexpr std::int64_t kMostVendors = std::int64_t{1} << 20;

template <std::size_t N>
void copy_text(char (&target)[N], const std::string& text) {
  const std::size_t length = std::min(text.size(), N - 1);
  std::memcpy(target, text.data(), length);
  target[length] = '\0';
}

mp_device describe(const DeviceInfo& info) {
  mp_device device{};
  copy_text(device.name, info.name);
  copy_text(device.kind, info.kind);
  copy_text(device.description, info.description);
  device.threads = info.threads;
  return device;
}

void initialize(Market& market, std::uint64_t seed) {
  std::uint32_t counter = 0;
  for (const auto& model : market.models()) set_initial_values(*model, seed, counter);
}

std::shared_ptr<Market> finish(const std::vector<mp_market::Spec>& specs,
                               const mp_device_options& options, const char* op) {
  std::vector<std::shared_ptr<Model>> models;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].graph.ops.size() < 2)
      fail(op, "at least one layer in spec " + std::to_string(i), "none");
    models.push_back(std::make_shared<Model>(specs[i].graph));
  }
  const std::string device = options.device == nullptr ? "auto" : options.device;
  const std::string dtype = options.dtype == nullptr ? "float32" : options.dtype;
  auto backend = make_backend(device, dtype, options.threads, options.max_memory_bytes);
  auto market = std::make_shared<Market>(std::move(backend), std::move(models));
  initialize(*market, 0);
  return market;
}

Model& model(const mp_market* market, std::int64_t spec, const char* op) {
  const auto& models = finished(market, op).models();
  const auto last = static_cast<std::int64_t>(models.size()) - 1;
  return *models[in_range(spec, 0, last, op, "spec")];
}

int find(const Model& model, const char* key, const char* op) {
  return model.find(&required(key, op, "a key"));
}

}  // namespace
}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_device_count(int32_t* count) {
  return guarded([&] {
    required(count, "device_count", "an address for the count") =
        static_cast<int32_t>(usable_devices().size());
  });
}

mp_status mp_get_device(int32_t index, mp_device* device) {
  return guarded([&] {
    const auto devices = usable_devices();
    const auto last = static_cast<std::int64_t>(devices.size()) - 1;
    in_range(index, 0, last, "get_device", "a device index");
    write_result(device, describe(devices[index]), "get_device");
  });
}

mp_status mp_market_create(mp_market** market) {
  return guarded(
      [&] { required(market, "market_create", "an address for the handle") = new mp_market; });
}

mp_status mp_market_free(mp_market* market) {
  return guarded([&] { delete market; });
}

mp_status mp_add_spec(mp_market* market, int64_t vendor_count, int64_t upstream_sampling) {
  return guarded([&] {
    mp_market& own = required(market, "add_spec", "a market");
    if (own.finished)
      fail(ErrorKind::runtime, "add_spec", "a market before mp_market_finish", "a finished one");
    in_range(vendor_count, 1, kMostVendors, "add_spec", "vendor_count");
    in_range(upstream_sampling, 0, INT32_MAX, "add_spec", "upstream_sampling");
    own.specs.push_back({{}, vendor_count, upstream_sampling, false});
  });
}

mp_status mp_market_finish(mp_market* market, const mp_device_options* options) {
  return guarded([&] {
    mp_market& own = required(market, "market_finish", "a market");
    if (own.finished)
      fail(ErrorKind::runtime, "market_finish", "a market being built", "a finished one");
    const auto chosen = read_optional(options, "market_finish");
    own.finished = finish(own.specs, chosen, "market_finish");
    for (auto& spec : own.specs) spec.graph = {};
  });
}

mp_status mp_market_initialize(mp_market* market, uint64_t seed) {
  return guarded([&] { initialize(finished(market, "market_initialize"), seed); });
}

mp_status mp_parameter_count(const mp_market* market, int64_t spec, int64_t* count) {
  return guarded([&] {
    const char* op = "parameter_count";
    required(count, op, "an address for the count") =
        static_cast<int64_t>(model(market, spec, op).sorted_ids().size());
  });
}

mp_status mp_get_parameter(const mp_market* market, int64_t spec, int64_t index,
                           mp_parameter* parameter) {
  return guarded([&] {
    const char* op = "get_parameter";
    const Model& own = model(market, spec, op);
    const auto last = static_cast<std::int64_t>(own.sorted_ids().size()) - 1;
    const int id = own.sorted_ids()[in_range(index, 0, last, op, "a parameter index")];
    const ParameterInfo& info = own.graph().parameters[id];
    write_result(parameter,
                 mp_parameter{0, info.key.c_str(), info.shape.data(), own.size(id),
                              static_cast<int32_t>(info.shape.size()), info.buffer},
                 op);
  });
}

mp_status mp_get_weights(const mp_market* market, int64_t spec, const char* key, float* values,
                         int64_t count) {
  return guarded([&] {
    const char* op = "get_weights";
    const Model& own = model(market, spec, op);
    const int id = find(own, key, op);
    required(values, op, "an address for the values");
    if (count != own.size(id))
      fail(op, "a buffer of " + std::to_string(own.size(id)) + " elements for " + key,
           std::to_string(count));
    std::copy_n(own.data(id), count, values);
  });
}

mp_status mp_set_weights(mp_market* market, int64_t spec, const char* key,
                         const mp_tensor* values) {
  return guarded([&] {
    const char* op = "set_weights";
    Model& own = model(market, spec, op);
    const int id = find(own, key, op);
    const float* given = borrow_values(values, own.graph().parameters[id].shape, op);
    std::copy_n(given, own.size(id), own.data(id));
  });
}
