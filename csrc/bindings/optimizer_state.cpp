// What an optimizer holds, for Python: options, seeds, rates, the state of a resumed run.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/optimizer.h"
#include "market/optimizer.h"

namespace marketplace::bindings {
namespace {

py::dict state(const Optimizer& self) {
  const Optimizer::State state = alone(self, [&] { return self.state(); });
  const UpdateRule::State& rule = state.rule;
  py::dict out;
  out["generation"] = state.generation;
  out["seed"] = state.seed;
  for (std::size_t i = 0; i < state.seeds.size(); ++i)
    out[py::str("seeds." + std::to_string(i))] = to_array(state.seeds[i]);
  out["amplitudes"] = to_array(state.amplitudes);
  out["learning_rates"] = to_array(state.learning_rates);
  out["rule.steps"] = rule.steps;
  for (std::size_t i = 0; i < rule.first.size(); ++i) {
    if (!rule.first[i].empty())
      out[py::str("rule.first." + std::to_string(i))] = to_array(rule.first[i]);
    if (!rule.second[i].empty())
      out[py::str("rule.second." + std::to_string(i))] = to_array(rule.second[i]);
  }
  return out;
}

// The moments of the update rule, (n,) per spec; absent before the first update.
Directions load_moments(const Optimizer& self, const py::dict& values, const std::string& name) {
  Directions moments;
  for (std::size_t i = 0; i < self.specs().size(); ++i) {
    const py::str key(name + "." + std::to_string(i));
    moments.emplace_back();
    if (!values.contains(key)) continue;
    moments.back() = to_vector(values[key].cast<Array<float>>());
  }
  return moments;
}

void load_state(Optimizer& self, const py::dict& values) {
  Optimizer::State state;
  state.generation = values["generation"].cast<std::uint64_t>();
  state.seed = values["seed"].cast<std::uint64_t>();
  for (std::size_t i = 0; i < self.specs().size(); ++i)
    state.seeds.push_back(
        to_vector(values[py::str("seeds." + std::to_string(i))].cast<Array<std::uint64_t>>()));
  state.amplitudes = to_vector(values["amplitudes"].cast<Array<float>>());
  state.learning_rates = to_vector(values["learning_rates"].cast<Array<float>>());
  if (values.contains("rule.steps")) state.rule.steps = values["rule.steps"].cast<std::uint64_t>();
  state.rule.first = load_moments(self, values, "rule.first");
  state.rule.second = load_moments(self, values, "rule.second");
  alone(self, [&] {
    state.rates = self.options();
    self.restore(state);
  });
}

// A value that calls may change, read while none is under way.
template <class Read>
auto reader(Read read) {
  return [read](Optimizer& self) { return alone(self, [&] { return read(self); }); };
}
// The same of one spec.
template <class Read>
auto spec_reader(Read read) {
  return [read](Optimizer& self, std::size_t spec) {
    return alone(self, [&] { return read(self, self.specs().at(spec)); });
  };
}
template <class Member>
auto option_reader(Member member) {
  return reader([member](const Optimizer& self) { return self.options().*member; });
}

void bind_options(OptimizerClass& optimizer) {
  using Options = OptimizerOptions;
  optimizer
      .def(
          "set_rates",
          [](Optimizer& self, float learning_rate, std::optional<float> probe_scale,
             std::optional<float> meta_learning_rate) {
            alone(self, [&] { self.set_rates({learning_rate, probe_scale, meta_learning_rate}); });
          },
          py::arg("learning_rate"), py::arg("probe_scale"), py::arg("meta_learning_rate"))
      .def_property_readonly("seed", option_reader(&Options::seed))
      .def_property_readonly("control_variate", option_reader(&Options::control_variate))
      .def_property_readonly("antithetic", option_reader(&Options::antithetic))
      .def_property_readonly(
          "shaping", [](const Optimizer& self) { return shaping_name(self.options().shaping); })
      .def_property_readonly(
          "update", [](const Optimizer& self) { return rule_name(self.options().rule.kind); });
}

}  // namespace

void bind_optimizer_state(OptimizerClass& optimizer) {
  using Spec = Optimizer::SpecState;
  bind_options(optimizer);
  optimizer
      .def(
          "node_flops",
          [](const Optimizer& self, const Shape& input_shape) {
            return self.market_pointer()->node_flops(self.vendor_counts(), input_shape);
          },
          py::arg("input_shape"))
      .def_property("step_count", reader([](const Optimizer& self) { return self.step_count(); }),
                    [](Optimizer& self, std::uint64_t count) {
                      alone(self, [&] { self.set_step_count(count); });
                    })
      .def_property_readonly("generation",
                             reader([](const Optimizer& self) { return self.generation(); }))
      .def_property_readonly("replica",
                             reader([](const Optimizer& self) { return self.replica(); }))
      .def_property_readonly("plan",
                             reader([](Optimizer& self) { return BoundPlan{self.plan(), false}; }))
      .def(
          "seeds", [read = spec_reader([](const Optimizer&, const Spec& spec) {
                      return spec.seeds;
                    })](Optimizer& self, std::size_t spec) { return to_array(read(self, spec)); },
          py::arg("spec"))
      .def("amplitude",
           spec_reader([](const Optimizer&, const Spec& spec) { return spec.weights.amplitude; }),
           py::arg("spec"))
      .def(
          "spec_learning_rate",
          [](Optimizer& self, std::size_t spec) {
            return alone(self, [&] { return self.learning_rate(spec); });
          },
          py::arg("spec"))
      .def(
          "scales", [read = spec_reader([](const Optimizer&, const Spec& spec) {
                       return spec.scales;
                     })](Optimizer& self, std::size_t spec) { return to_array(read(self, spec)); },
          py::arg("spec"))
      .def("weights", spec_reader([](const Optimizer&, const Spec& spec) { return spec.weights; }),
           py::arg("spec"))
      .def("state", &state)
      .def("load_state", &load_state, py::arg("state"));
}

}  // namespace marketplace::bindings
