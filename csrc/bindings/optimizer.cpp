// The optimizer for Python.
#include "market/optimizer.h"

#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "market/plan.h"

namespace marketplace::bindings {
namespace {

using OptionalSeeds = std::optional<std::vector<Array<std::uint64_t>>>;

std::vector<std::vector<std::uint64_t>> seed_vectors(const std::vector<Array<std::uint64_t>>& all) {
  std::vector<std::vector<std::uint64_t>> seeds;
  for (const auto& spec : all) seeds.push_back(to_vector(spec));
  return seeds;
}

std::shared_ptr<Optimizer> make_optimizer(
    std::shared_ptr<Market> market, const std::vector<std::int64_t>& vendor_counts,
    const std::vector<std::int64_t>& upstream_sampling, const std::string& plan,
    float learning_rate, std::optional<float> probe_scale, std::optional<float> meta_learning_rate,
    std::uint64_t seed, const OptionalSeeds& seeds, bool control_variate, const std::string& update,
    float momentum, const std::string& shaping, bool antithetic) {
  std::optional<std::vector<std::vector<std::uint64_t>>> given;
  if (seeds) given = seed_vectors(*seeds);
  OptimizerOptions options;
  options.plan = plan_kind(plan);
  options.learning_rate = learning_rate;
  options.probe_scale = probe_scale;
  options.meta_learning_rate = meta_learning_rate;
  options.seed = seed;
  options.control_variate = control_variate;
  options.rule.kind = rule_kind(update);
  options.rule.momentum = momentum;
  options.shaping = shaping_kind(shaping);
  options.antithetic = antithetic;
  return std::make_shared<Optimizer>(std::move(market), vendor_counts, upstream_sampling, options,
                                     given);
}

Array<std::int32_t> path_array(Optimizer& self) {
  const Plan& plan = self.plan();
  return to_array(plan_paths(plan),
                  {plan.path_count(), static_cast<py::ssize_t>(plan.levels.size())});
}

Array<std::int32_t> probed_paths(const Optimizer& self, const Probe& found) {
  const auto depth = static_cast<py::ssize_t>(self.specs().size());
  return to_array(found.paths, {static_cast<py::ssize_t>(found.losses.size()), depth});
}

py::tuple probe(Optimizer& self, const py::object& x, const AnyLabels& labels,
                std::optional<std::int32_t> ignore_index, bool further) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  Probe found;
  {
    const py::gil_scoped_release release;
    found = self.probe(batch, borrowed, further);
  }
  return py::make_tuple(to_array(found.losses), probed_paths(self, found));
}

py::tuple forward(Optimizer& self, const py::object& x, bool further, bool on_device, bool waits) {
  const Batch batch = borrow_batch(x, false, 1);
  auto [out, output] = make_output(self.market().backend(), {on_device, waits},
                                   {self.plan().path_count(), batch.size},
                                   self.market().output_shape(batch.sample_shape));
  {
    const py::gil_scoped_release release;
    self.forward(batch, output, further);
  }
  return py::make_tuple(out, path_array(self));
}

std::vector<std::int32_t> path_vector(const Optimizer& self, const Array<std::int32_t>& paths) {
  const auto depth = static_cast<py::ssize_t>(self.specs().size());
  if (paths.ndim() != 2 || paths.shape(1) != depth)
    fail("step", "paths (P, " + std::to_string(depth) + ")",
         py::str(paths.attr("shape")).cast<std::string>());
  return to_vector(paths);
}

py::list to_list(const Directions& directions) {
  py::list out;
  for (const auto& values : directions) out.append(to_array(values));
  return out;
}

py::tuple direction(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                    const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  bool degenerate = false;
  Directions directions;
  {
    const py::gil_scoped_release release;
    directions = self.direction(losses, rows, unit, degenerate);
  }
  return py::make_tuple(to_list(directions), degenerate);
}

Directions direction_vectors(const std::vector<Array<float>>& arrays) {
  Directions directions;
  for (const auto& array : arrays) directions.push_back(to_vector(array));
  return directions;
}

py::list gather(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                const std::string& mode) {
  bool degenerate = false;
  return to_list(
      self.gather(to_vector(loss), path_vector(self, paths), unit_vector_mode(mode), degenerate));
}

py::list make_update(Optimizer& self, const std::vector<Array<float>>& sums,
                     const std::string& mode) {
  return to_list(self.make_update(direction_vectors(sums), unit_vector_mode(mode)));
}

bool step(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
          const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  const py::gil_scoped_release release;
  return self.step(losses, rows, unit);
}

py::tuple train_step(Optimizer& self, const py::object& x, const AnyLabels& labels,
                     std::optional<std::int32_t> ignore_index, const std::string& mode) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  const UnitVectorMode unit = unit_vector_mode(mode);
  TakenStep taken;
  {
    const py::gil_scoped_release release;
    taken = self.train_step(batch, borrowed, unit);
  }
  return py::make_tuple(to_array(taken.probe.losses), probed_paths(self, taken.probe),
                        taken.degenerate);
}

py::tuple keep_best_of(Optimizer& self, const py::object& x, const AnyLabels& labels,
                       std::optional<std::int32_t> ignore_index) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  Probe found;
  {
    const py::gil_scoped_release release;
    found = self.keep_best_of(batch, borrowed);
  }
  return py::make_tuple(to_array(found.losses), probed_paths(self, found));
}

bool start_search(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                  const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  const py::gil_scoped_release release;
  return self.start_search(losses, rows, unit);
}

bool add_replica(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                 const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  const py::gil_scoped_release release;
  return self.add_replica(losses, rows, unit);
}

std::int64_t keep_best(Optimizer& self, const Array<float>& loss,
                       const Array<std::int32_t>& paths) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const py::gil_scoped_release release;
  return self.keep_best(losses, rows);
}

py::list coefficients(const Optimizer& self, const Array<float>& loss,
                      const Array<std::int32_t>& paths, const std::string& mode) {
  const Coefficients result =
      direction_coefficients(self.options.plan, unit_vector_mode(mode), self.options.shaping,
                             to_vector(loss), path_vector(self, paths), self.vendor_counts());
  py::list out;
  for (const auto& values : result.values) out.append(to_array(values));
  return out;
}

py::dict state(const Optimizer& self) {
  const Optimizer::State state = self.state();
  py::dict out;
  out["generation"] = state.generation;
  out["seed"] = self.options.seed;
  for (std::size_t i = 0; i < state.seeds.size(); ++i)
    out[py::str("seeds." + std::to_string(i))] = to_array(state.seeds[i]);
  out["amplitudes"] = to_array(state.amplitudes);
  out["learning_rates"] = to_array(state.learning_rates);
  const UpdateRule::State& rule = self.rule().state();
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
  const auto seed = values["seed"].cast<std::uint64_t>();
  for (std::size_t i = 0; i < self.specs().size(); ++i)
    state.seeds.push_back(
        to_vector(values[py::str("seeds." + std::to_string(i))].cast<Array<std::uint64_t>>()));
  state.amplitudes = to_vector(values["amplitudes"].cast<Array<float>>());
  state.learning_rates = to_vector(values["learning_rates"].cast<Array<float>>());
  UpdateRule::State rule;
  if (values.contains("rule.steps")) rule.steps = values["rule.steps"].cast<std::uint64_t>();
  rule.first = load_moments(self, values, "rule.first");
  rule.second = load_moments(self, values, "rule.second");
  std::vector<std::int64_t> counts;
  for (const auto& model : self.market().models()) counts.push_back(model->parameter_count());
  self.rule().restore(std::move(rule), counts);
  self.restore(state);
  self.options.seed = seed;
}

Array<float> probe_share(Optimizer& self, const py::object& x, const Array<std::int32_t>& labels,
                         std::optional<std::int32_t> ignore_index, std::int64_t first,
                         std::int64_t last) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  std::vector<float> losses;
  {
    const py::gil_scoped_release release;
    losses = self.probe_share(batch, borrowed, first, last);
  }
  return to_array(losses);
}

void probe_leader(Optimizer& self, const py::object& x, const Array<std::int32_t>& labels,
                  std::optional<std::int32_t> ignore_index, bool further) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  const py::gil_scoped_release release;
  self.probe_leader(batch, borrowed, further);
}

py::tuple cut(Optimizer& self, const Shape& sample_shape, const std::vector<double>& speeds) {
  const Cut found = self.cut(sample_shape, speeds);
  return py::make_tuple(to_array(found.bounds), to_array(found.costs));
}

void bind_shares(py::class_<Optimizer, std::shared_ptr<Optimizer>>& optimizer) {
  optimizer.def_property_readonly("paths", &path_array)
      .def_property_readonly("path_order",
                             [](Optimizer& self) { return to_array(depth_first(self.plan())); })
      .def("cut", &cut, py::arg("sample_shape"), py::arg("speeds"))
      .def("probe_share", &probe_share, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("first"), py::arg("last"))
      .def("probe_leader", &probe_leader, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("further"));
}

void bind_state(py::class_<Optimizer, std::shared_ptr<Optimizer>>& optimizer) {
  optimizer
      .def_property(
          "learning_rate", [](const Optimizer& self) { return self.options.learning_rate; },
          [](Optimizer& self, float value) { self.options.learning_rate = value; })
      .def_property(
          "probe_scale", [](const Optimizer& self) { return self.options.probe_scale; },
          [](Optimizer& self, std::optional<float> v) { self.options.probe_scale = v; })
      .def_property(
          "meta_learning_rate",
          [](const Optimizer& self) { return self.options.meta_learning_rate; },
          [](Optimizer& self, std::optional<float> v) { self.options.meta_learning_rate = v; })
      .def_property_readonly("seed", [](const Optimizer& self) { return self.options.seed; })
      .def_property_readonly("control_variate",
                             [](const Optimizer& self) { return self.options.control_variate; })
      .def_property_readonly("antithetic",
                             [](const Optimizer& self) { return self.options.antithetic; })
      .def_property_readonly(
          "shaping", [](const Optimizer& self) { return shaping_name(self.options.shaping); })
      .def_property_readonly(
          "update", [](const Optimizer& self) { return rule_name(self.options.rule.kind); })
      .def(
          "node_flops",
          [](const Optimizer& self, const Shape& input_shape) {
            return self.market_pointer()->node_flops(self.vendor_counts(), input_shape);
          },
          py::arg("input_shape"))
      .def_property_readonly("generation", &Optimizer::generation)
      .def_property_readonly("replica", &Optimizer::replica)
      .def_property_readonly("plan", [](Optimizer& self) { return BoundPlan{self.plan(), false}; })
      .def(
          "seeds",
          [](const Optimizer& self, std::size_t i) { return to_array(self.specs().at(i).seeds); },
          py::arg("spec"))
      .def(
          "amplitude",
          [](const Optimizer& self, std::size_t i) { return self.specs().at(i).weights.amplitude; },
          py::arg("spec"))
      .def("spec_learning_rate", &Optimizer::learning_rate, py::arg("spec"))
      .def(
          "scales",
          [](const Optimizer& self, std::size_t i) { return to_array(self.specs().at(i).scales); },
          py::arg("spec"))
      .def(
          "weights",
          [](const Optimizer& self, std::size_t i) { return self.specs().at(i).weights; },
          py::arg("spec"))
      .def("state", &state)
      .def("load_state", &load_state, py::arg("state"));
}

}  // namespace

void bind_optimizer(py::module_& module) {
  py::class_<Optimizer, std::shared_ptr<Optimizer>> optimizer(module, "Optimizer");
  optimizer
      .def(py::init(&make_optimizer), py::arg("market"), py::arg("vendor_counts"),
           py::arg("upstream_sampling"), py::kw_only(), py::arg("plan"), py::arg("learning_rate"),
           py::arg("probe_scale"), py::arg("meta_learning_rate"), py::arg("seed"), py::arg("seeds"),
           py::arg("control_variate"), py::arg("update"), py::arg("momentum"), py::arg("shaping"),
           py::arg("antithetic"))
      .def(
          "sample_paths",
          [](const Optimizer& self, std::int64_t batch) {
            return to_array(self.sample_paths(batch),
                            {batch, static_cast<py::ssize_t>(self.specs().size())});
          },
          py::arg("batch"))
      .def("probe", &probe, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("further") = false)
      .def("add_replica", &add_replica, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("drop_replicas", &Optimizer::drop_replicas)
      .def("keep_best", &keep_best, py::arg("loss"), py::arg("paths"))
      .def("keep_best_of", &keep_best_of, py::arg("x"), py::arg("labels"), py::arg("ignore_index"))
      .def("forward", &forward, py::arg("x"), py::arg("further") = false,
           py::arg("on_device") = false, py::arg("waits") = true)
      .def("coefficients", &coefficients, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("direction", &direction, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("gather", &gather, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("make_update", &make_update, py::arg("sums"), py::arg("mode"))
      .def(
          "update_weights",
          [](Optimizer& self, const std::vector<Array<float>>& directions,
             const std::optional<std::vector<float>>& learning_rates) {
            self.update_weights(direction_vectors(directions), learning_rates);
          },
          py::arg("directions"), py::arg("learning_rates"))
      .def("update_seeds", &Optimizer::update_seeds, py::arg("keep_leader"))
      .def(
          "update_lr_scales",
          [](Optimizer& self, const std::vector<Array<float>>& directions) {
            self.update_lr_scales(direction_vectors(directions));
          },
          py::arg("directions"))
      .def("start_search", &start_search, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("end_search", &Optimizer::end_search, py::arg("learning_rates"))
      .def("step", &step, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("train_step", &train_step, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("mode"));
  bind_shares(optimizer);
  bind_state(optimizer);
}

}  // namespace marketplace::bindings
