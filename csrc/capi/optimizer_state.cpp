// Files of Python's Optimizer.save: a checkpoint with the optimizer's arrays beside the market's,
// and its settings as one JSON object in the metadata.
#include <cmath>
#include <nlohmann/json.hpp>

#include "capi/checkpoint.h"
#include "capi/handles.h"

namespace marketplace::capi {
namespace {

using Json = nlohmann::json;

constexpr const char* kSettings = "optimizer";
constexpr int kVersion = 1;
constexpr std::size_t kLongestSettings = 1 << 20;

// What a file and an optimizer must agree on.
Json options_of(const mp_optimizer& own) {
  const OptimizerOptions& options = own.optimizer->options();
  return {{"version", kVersion},
          {"plan", plan_name(options.plan)},
          {"dtype", to_string(own.optimizer->market().backend().dtype())},
          {"control_variate", options.control_variate},
          {"update", rule_name(options.rule.kind)},
          {"momentum", options.rule.momentum},
          {"shaping", shaping_name(options.shaping)},
          {"antithetic", options.antithetic},
          {"market",
           {{"vendor_count", own.optimizer->vendor_counts()},
            {"upstream_sampling", own.upstream_sampling}}}};
}

Json rate_to_json(std::optional<float> value) {
  if (!value) return nullptr;
  return {{"value", *value}, {"dtype", nullptr}};
}

std::string settings_of(const mp_optimizer& own, const Optimizer::State& state) {
  const OptimizerOptions& options = own.optimizer->options();
  Json settings = options_of(own);
  settings["rates"] = {{"learning_rate", rate_to_json(options.learning_rate)},
                       {"meta_learning_rate", rate_to_json(options.meta_learning_rate)},
                       {"probe_scale", rate_to_json(options.probe_scale)}};
  settings["state"] = {
      {"generation", state.generation}, {"seed", state.seed}, {"rule.steps", state.rule.steps}};
  return settings.dump();
}

template <class Values>
void add_array(std::vector<TensorToWrite>& list, const std::string& name, const Values& values) {
  if (values.empty()) return;
  list.push_back({kOptimizerPrefix + name,
                  sizeof(*values.data()) == 8 ? "U64" : "F32",
                  {static_cast<std::int64_t>(values.size())},
                  values.data()});
}

void save(const mp_optimizer& own, const std::string& path, std::int64_t step) {
  MarketTensors tensors(own.optimizer->market(), step);
  const Optimizer::State state = own.optimizer->state();
  const UpdateRule::State& rule = state.rule;
  add_array(tensors.list, "amplitudes", state.amplitudes);
  add_array(tensors.list, "learning_rates", state.learning_rates);
  for (std::size_t i = 0; i < state.seeds.size(); ++i)
    add_array(tensors.list, "seeds." + std::to_string(i), state.seeds[i]);
  for (std::size_t i = 0; i < rule.first.size(); ++i)
    add_array(tensors.list, "rule.first." + std::to_string(i), rule.first[i]);
  for (std::size_t i = 0; i < rule.second.size(); ++i)
    add_array(tensors.list, "rule.second." + std::to_string(i), rule.second[i]);
  write_safetensors(path, std::move(tensors.list), {{kSettings, settings_of(own, state)}});
}

// -- reading ------------------------------------------------------------------------------------

float rate_from_json(const SafetensorsReader& file, const Json& rate) {
  const auto value = rate.at("value").get<float>();
  if (!(value >= 0 && std::isfinite(value)))
    file.refuse("rates of at least 0", std::to_string(value));
  return value;
}

void check_options(const SafetensorsReader& file, const Json& settings, const Json& wanted) {
  const Json defaults = {{"control_variate", false},
                         {"update", "unit"},
                         {"shaping", "z"},
                         {"antithetic", false},
                         {"momentum", 0.9}};  // of older files
  for (const auto& [name, value] : wanted.items()) {
    const Json& found = settings.contains(name) ? settings[name] : defaults.at(name);
    const bool equal =
        name == "momentum" ? found.get<float>() == value.get<float>() : found == value;
    // what is nested might be nested deeper than a recursive dump can go
    if (!equal)
      file.refuse("an optimizer with " + name + " " + value.dump(),
                  found.is_primitive() ? found.dump() : "another");
  }
}

// Both or neither have one: what a step does is settled when an optimizer is made.
void check_line_search(const SafetensorsReader& file, bool found, bool wanted) {
  const auto text = [](bool has) { return has ? "with" : "without"; };
  if (found != wanted)
    file.refuse(std::string("an optimizer ") + text(wanted) + " meta_learning_rate",
                std::string("one ") + text(found) + " it");
}

void read_settings(const SafetensorsReader& file, const mp_optimizer& own,
                   Optimizer::State& state) {
  const auto text = file.metadata().find(kSettings);
  if (text == file.metadata().end() || text->second.size() > kLongestSettings)
    file.refuse("a file of an optimizer", "one without its settings");
  try {
    const Json settings = Json::parse(text->second);
    check_options(file, settings, options_of(own));
    const Json &rates = settings.at("rates"), &plain = settings.at("state");
    state.rates.learning_rate = rate_from_json(file, rates.at("learning_rate"));
    if (!rates.at("probe_scale").is_null())
      state.rates.probe_scale = rate_from_json(file, rates.at("probe_scale"));
    if (!rates.at("meta_learning_rate").is_null())
      state.rates.meta_learning_rate = rate_from_json(file, rates.at("meta_learning_rate"));
    check_line_search(file, state.rates.meta_learning_rate.has_value(),
                      own.optimizer->options().meta_learning_rate.has_value());
    state.generation = plain.at("generation").get<std::uint64_t>();
    state.seed = plain.at("seed").get<std::uint64_t>();
    state.rule.steps = plain.value("rule.steps", std::uint64_t{0});
  } catch (const Json::exception& error) {
    file.refuse("the settings of an optimizer", error.what());
  }
}

std::vector<float> read_floats(SafetensorsReader& file, const std::string& name, bool needed) {
  const TensorEntry* entry = file.find(kOptimizerPrefix + name);
  if (entry == nullptr && !needed) return {};
  if (entry == nullptr || !is_floating(entry->dtype) || entry->shape.size() != 1)
    file.refuse("floating " + name + " in one row", entry == nullptr ? "none" : entry->dtype);
  return file.read_floats(*entry);
}

std::vector<std::uint64_t> read_seeds(SafetensorsReader& file, const std::string& name) {
  const TensorEntry* entry = file.find(kOptimizerPrefix + name);
  if (entry == nullptr || !is_integer(entry->dtype) || entry->shape.size() != 1)
    file.refuse("integer " + name + " in one row", entry == nullptr ? "none" : entry->dtype);
  return file.read_integers(*entry);
}

Optimizer::State read_state(SafetensorsReader& file, const mp_optimizer& own) {
  Optimizer::State state;
  read_settings(file, own, state);
  state.amplitudes = read_floats(file, "amplitudes", true);
  state.learning_rates = read_floats(file, "learning_rates", true);
  for (std::size_t i = 0; i < own.optimizer->specs().size(); ++i) {
    const std::string spec = "." + std::to_string(i);
    state.seeds.push_back(read_seeds(file, "seeds" + spec));
    state.rule.first.push_back(read_floats(file, "rule.first" + spec, false));
    state.rule.second.push_back(read_floats(file, "rule.second" + spec, false));
  }
  return state;
}

std::int64_t load(mp_optimizer& own, const std::string& path) {
  SafetensorsReader file(path);
  const Optimizer::State state = read_state(file, own);
  const LoadedMarket market(file, own.optimizer->market());
  own.optimizer->restore(state);
  market.assign();
  own.start_over();
  return market.step();
}

}  // namespace
}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_optimizer_save(const mp_optimizer* optimizer, const char* path, int64_t global_step) {
  return guarded([&] {
    const char* op = "optimizer_save";
    const mp_optimizer& own = required(optimizer, op, "an optimizer");
    if (own.optimizer->replica() > 0)
      fail(ErrorKind::runtime, op, "no update under way",
           std::to_string(own.optimizer->replica()) + " replicas");
    const std::string target = &required(path, op, "a path");
    save(own, target, in_range(global_step, 0, INT64_MAX, op, "global_step"));
  });
}

mp_status mp_optimizer_load(mp_optimizer* optimizer, const char* path, int64_t* global_step) {
  return guarded([&] {
    const char* op = "optimizer_load";
    mp_optimizer& own = required(optimizer, op, "an optimizer");
    const std::int64_t step = load(own, &required(path, op, "a path"));
    if (global_step != nullptr) *global_step = step;
  });
}
