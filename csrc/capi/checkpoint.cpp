#include "capi/checkpoint.h"

#include <algorithm>

#include "capi/handles.h"

namespace marketplace::capi {
namespace {

constexpr const char* kStep = "global_step";

std::string tensor_name(std::size_t spec, const std::string& key) {
  return "spec." + std::to_string(spec) + "." + key;
}

// Counts are integers in a file, as in PyTorch.
bool is_count(const ParameterInfo& info) {
  return info.buffer && info.key.ends_with("num_batches_tracked");
}

std::int64_t batch_count(const std::string& name, float value) {
  if (!(value >= 0 && value < 0x1p62f))
    fail("market_save", name + " of at least 0", std::to_string(value));
  return static_cast<std::int64_t>(value);
}

const TensorEntry& find(const SafetensorsReader& file, const std::string& name) {
  const TensorEntry* found = file.find(name);
  if (found == nullptr) file.refuse("the tensors of this market", "no " + name);
  return *found;
}

std::vector<float> read_array(SafetensorsReader& file, const std::string& name,
                              const ParameterInfo& info) {
  const TensorEntry& entry = find(file, name);
  if (entry.shape != info.shape)
    file.refuse(name + " of shape " + to_string(info.shape), to_string(entry.shape));
  if (!is_floating(entry.dtype) && !(is_count(info) && is_integer(entry.dtype)))
    file.refuse(name + " of a floating dtype", entry.dtype);
  return file.read_floats(entry);
}

std::int64_t read_step(SafetensorsReader& file) {
  const TensorEntry& entry = find(file, kStep);
  if (!entry.shape.empty() || !is_integer(entry.dtype))
    file.refuse("an integer global_step", entry.dtype + " " + to_string(entry.shape));
  const std::uint64_t step = file.read_integers(entry)[0];
  if (step > INT64_MAX) file.refuse("global_step from 0 to 2^63 - 1", "another");
  return static_cast<std::int64_t>(step);
}

// All of the file's tensors but an optimizer's must be the market's.
void check_names(const SafetensorsReader& file, std::size_t wanted) {
  std::size_t found = 0;
  for (const auto& [name, entry] : file.entries()) found += !name.starts_with(kOptimizerPrefix);
  if (found != wanted)
    file.refuse(std::to_string(wanted) + " tensors of this market", std::to_string(found));
}

}  // namespace

MarketTensors::MarketTensors(const Market& market, std::int64_t step) {
  std::size_t arrays = 0;
  for (const auto& model : market.models()) arrays += model->sorted_ids().size();
  integers_.reserve(arrays + 1);  // addresses stay
  integers_.push_back(step);
  list.push_back({kStep, "I64", {}, &integers_.back()});
  for (std::size_t i = 0; i < market.models().size(); ++i) {
    const Model& model = *market.models()[i];
    for (int id : model.sorted_ids()) {
      const ParameterInfo& info = model.graph().parameters[id];
      const std::string name = tensor_name(i, info.key);
      if (is_count(info)) integers_.push_back(batch_count(name, model.data(id)[0]));
      const void* data = is_count(info) ? static_cast<const void*>(&integers_.back())
                                        : static_cast<const void*>(model.data(id));
      list.push_back({name, is_count(info) ? "I64" : "F32", info.shape, data});
    }
  }
}

LoadedMarket::LoadedMarket(SafetensorsReader& file, const Market& market) : step_(read_step(file)) {
  for (std::size_t i = 0; i < market.models().size(); ++i) {
    Model& model = *market.models()[i];
    for (int id : model.sorted_ids()) {
      const ParameterInfo& info = model.graph().parameters[id];
      arrays_.push_back({&model, id, read_array(file, tensor_name(i, info.key), info)});
    }
  }
  check_names(file, arrays_.size() + 1);
}

void LoadedMarket::assign() const {
  for (const Array& array : arrays_)
    std::copy(array.values.begin(), array.values.end(), array.model->data(array.id));
}

}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_market_save(const mp_market* market, const char* path, int64_t global_step) {
  return guarded([&] {
    const char* op = "market_save";
    const Market& own = finished(market, op);
    const std::string target = &required(path, op, "a path");
    in_range(global_step, 0, INT64_MAX, op, "global_step");
    write_safetensors(target, MarketTensors(own, global_step).list);
  });
}

mp_status mp_market_load(mp_market* market, const char* path, int64_t* global_step) {
  return guarded([&] {
    const char* op = "market_load";
    const Market& own = finished(market, op);
    SafetensorsReader file(&required(path, op, "a path"));
    const LoadedMarket loaded(file, own);
    loaded.assign();
    if (global_step != nullptr) *global_step = loaded.step();
  });
}
