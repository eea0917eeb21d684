// Checkpoints in Python's layout: every array as "spec.{i}.{key}", and the scalar global_step.
#include <algorithm>
#include <string>
#include <vector>

#include "capi/handles.h"
#include "capi/safetensors.h"

namespace marketplace::capi {
namespace {

constexpr const char* kStep = "global_step";
constexpr const char* kOptimizer = "optimizer.";  // an optimizer's state, which is passed over

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

std::vector<TensorToWrite> tensors_of(const Market& market, std::int64_t step) {
  std::vector<TensorToWrite> tensors{{kStep, {}, nullptr, step}};
  for (std::size_t i = 0; i < market.models().size(); ++i) {
    const Model& model = *market.models()[i];
    for (int id : model.sorted_ids()) {
      const ParameterInfo& info = model.graph().parameters[id];
      const float* values = model.data(id);
      const std::string name = tensor_name(i, info.key);
      if (is_count(info))
        tensors.push_back({name, info.shape, nullptr, batch_count(name, values[0])});
      else
        tensors.push_back({name, info.shape, values, 0});
    }
  }
  return tensors;
}

// An array of the market, and what a file has for it.
struct Loaded {
  Model* model = nullptr;
  int id = 0;
  std::vector<float> values;
};

const TensorEntry& find(const SafetensorsReader& file, const std::string& name) {
  const auto found = file.entries().find(name);
  if (found == file.entries().end()) file.refuse("the tensors of this market", "no " + name);
  return found->second;
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

std::vector<Loaded> read_arrays(SafetensorsReader& file, const Market& market) {
  std::vector<Loaded> arrays;
  for (std::size_t i = 0; i < market.models().size(); ++i) {
    Model& model = *market.models()[i];
    for (int id : model.sorted_ids()) {
      const ParameterInfo& info = model.graph().parameters[id];
      arrays.push_back({&model, id, read_array(file, tensor_name(i, info.key), info)});
    }
  }
  return arrays;
}

std::int64_t read_step(SafetensorsReader& file) {
  const TensorEntry& entry = find(file, kStep);
  if (!entry.shape.empty() || !is_integer(entry.dtype))
    file.refuse("an integer global_step", entry.dtype + " " + to_string(entry.shape));
  const std::int64_t step = file.read_integer(entry);
  if (step < 0) file.refuse("global_step from 0 to 2^63 - 1", "another");
  return step;
}

// All of the file's tensors but an optimizer's must be the market's.
void check_names(const SafetensorsReader& file, std::size_t wanted) {
  std::size_t found = 0;
  for (const auto& [name, entry] : file.entries()) found += !name.starts_with(kOptimizer);
  if (found != wanted)
    file.refuse(std::to_string(wanted) + " tensors of this market", std::to_string(found));
}

std::int64_t load(const Market& market, const std::string& path) {
  SafetensorsReader file(path);
  const std::int64_t step = read_step(file);
  const std::vector<Loaded> arrays = read_arrays(file, market);
  check_names(file, arrays.size() + 1);
  for (const Loaded& array : arrays)
    std::copy(array.values.begin(), array.values.end(), array.model->data(array.id));
  return step;
}

}  // namespace
}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_market_save(const mp_market* market, const char* path, int64_t global_step) {
  return guarded([&] {
    const char* op = "market_save";
    const Market& own = finished(market, op);
    const std::string target = &required(path, op, "a path");
    in_range(global_step, 0, INT64_MAX, op, "global_step");
    write_safetensors(target, tensors_of(own, global_step));
  });
}

mp_status mp_market_load(mp_market* market, const char* path, int64_t* global_step) {
  return guarded([&] {
    const char* op = "market_load";
    const Market& own = finished(market, op);
    const std::int64_t step = load(own, &required(path, op, "a path"));
    if (global_step != nullptr) *global_step = step;
  });
}
