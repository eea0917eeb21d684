// The optimizer for Python: its calls. What it holds is in optimizer_state.cpp.
#include "market/optimizer.h"

#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/optimizer.h"
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

Array<std::int32_t> path_rows(const std::vector<std::int32_t>& paths, const Optimizer& self) {
  const auto depth = static_cast<py::ssize_t>(self.specs().size());
  return to_array(paths, {static_cast<py::ssize_t>(paths.size()) / depth, depth});
}

Array<std::int32_t> path_array(Optimizer& self) {
  return path_rows(alone(self, [&] { return plan_paths(self.plan()); }), self);
}

py::tuple probe(Optimizer& self, const py::object& x, const AnyLabels& labels,
                std::optional<std::int32_t> ignore_index, bool further) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  const Probe found = alone(self, [&] { return self.probe(batch, borrowed, further); });
  return py::make_tuple(to_array(found.losses), path_rows(found.paths, self));
}

py::tuple forward(Optimizer& self, const py::object& x, bool further, bool on_device, bool waits) {
  const Batch batch = borrow_batch(x, false, 1);
  const std::vector<std::int32_t> paths = alone(self, [&] { return plan_paths(self.plan()); });
  const auto count = static_cast<std::int64_t>(paths.size() / self.specs().size());
  auto [out, output] = make_output(self.market().backend(), {on_device, waits}, {count, batch.size},
                                   self.market().output_shape(batch.sample_shape));
  alone(self, [&, &to = output] {
    if (self.plan().path_count() != count)
      fail(ErrorKind::runtime, "forward", "the plan of one thread", "another one meanwhile");
    self.forward(batch, to, further);
  });
  return py::make_tuple(out, path_rows(paths, self));
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
  const Directions directions =
      alone(self, [&] { return self.direction(losses, rows, unit, degenerate); });
  return py::make_tuple(to_list(directions), degenerate);
}

Directions direction_vectors(const std::vector<Array<float>>& arrays) {
  Directions directions;
  for (const auto& array : arrays) directions.push_back(to_vector(array));
  return directions;
}

py::list gather(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  bool degenerate = false;
  return to_list(alone(self, [&] { return self.gather(losses, rows, unit, degenerate); }));
}

py::list make_update(Optimizer& self, const std::vector<Array<float>>& sums,
                     const std::string& mode) {
  Directions given = direction_vectors(sums);
  const UnitVectorMode unit = unit_vector_mode(mode);
  return to_list(alone(self, [&] { return self.make_update(std::move(given), unit); }));
}

bool step(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
          const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  return alone(self, [&] { return self.step(losses, rows, unit); });
}

py::tuple train_step(Optimizer& self, const py::object& x, const AnyLabels& labels,
                     std::optional<std::int32_t> ignore_index, const std::string& mode) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  const UnitVectorMode unit = unit_vector_mode(mode);
  const TakenStep taken = alone(self, [&] { return self.train_step(batch, borrowed, unit); });
  return py::make_tuple(to_array(taken.probe.losses), path_rows(taken.probe.paths, self),
                        taken.degenerate);
}

py::tuple keep_best_of(Optimizer& self, const py::object& x, const AnyLabels& labels,
                       std::optional<std::int32_t> ignore_index) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  const Probe found = alone(self, [&] { return self.keep_best_of(batch, borrowed); });
  return py::make_tuple(to_array(found.losses), path_rows(found.paths, self));
}

bool start_search(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                  const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  return alone(self, [&] { return self.start_search(losses, rows, unit); });
}

bool add_replica(Optimizer& self, const Array<float>& loss, const Array<std::int32_t>& paths,
                 const std::string& mode) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  const UnitVectorMode unit = unit_vector_mode(mode);
  return alone(self, [&] { return self.add_replica(losses, rows, unit); });
}

std::int64_t keep_best(Optimizer& self, const Array<float>& loss,
                       const Array<std::int32_t>& paths) {
  const std::vector<float> losses = to_vector(loss);
  const std::vector<std::int32_t> rows = path_vector(self, paths);
  return alone(self, [&] { return self.keep_best(losses, rows); });
}

py::list coefficients(const Optimizer& self, const Array<float>& loss,
                      const Array<std::int32_t>& paths, const std::string& mode) {
  const Coefficients result =
      direction_coefficients(self.options().plan, unit_vector_mode(mode), self.options().shaping,
                             to_vector(loss), path_vector(self, paths), self.vendor_counts());
  py::list out;
  for (const auto& values : result.values) out.append(to_array(values));
  return out;
}

Array<float> probe_share(Optimizer& self, const py::object& x, const Array<std::int32_t>& labels,
                         std::optional<std::int32_t> ignore_index, std::int64_t first,
                         std::int64_t last) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  return to_array(alone(self, [&] { return self.probe_share(batch, borrowed, first, last); }));
}

void probe_leader(Optimizer& self, const py::object& x, const Array<std::int32_t>& labels,
                  std::optional<std::int32_t> ignore_index, bool further) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  alone(self, [&] { self.probe_leader(batch, borrowed, further); });
}

py::tuple cut(Optimizer& self, const Shape& sample_shape, const std::vector<double>& speeds) {
  const Cut found = alone(self, [&] { return self.cut(sample_shape, speeds); });
  return py::make_tuple(to_array(found.bounds), to_array(found.costs));
}

void bind_shares(OptimizerClass& optimizer) {
  optimizer.def_property_readonly("paths", &path_array)
      .def_property_readonly(
          "path_order",
          [](Optimizer& self) {
            return to_array(alone(self, [&] { return depth_first(self.plan()); }));
          })
      .def("cut", &cut, py::arg("sample_shape"), py::arg("speeds"))
      .def("probe_share", &probe_share, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("first"), py::arg("last"))
      .def("probe_leader", &probe_leader, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("further"));
}

}  // namespace

void bind_optimizer(py::module_& module) {
  OptimizerClass optimizer(module, "Optimizer");
  optimizer
      .def(py::init(&make_optimizer), py::arg("market"), py::arg("vendor_counts"),
           py::arg("upstream_sampling"), py::kw_only(), py::arg("plan"), py::arg("learning_rate"),
           py::arg("probe_scale"), py::arg("meta_learning_rate"), py::arg("seed"), py::arg("seeds"),
           py::arg("control_variate"), py::arg("update"), py::arg("momentum"), py::arg("shaping"),
           py::arg("antithetic"))
      .def(
          "sample_paths",
          [](const Optimizer& self, std::int64_t batch) {
            return path_rows(alone(self, [&] { return self.sample_paths(batch); }), self);
          },
          py::arg("batch"))
      .def("probe", &probe, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("further") = false)
      .def("add_replica", &add_replica, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("drop_replicas", [](Optimizer& self) { alone(self, [&] { self.drop_replicas(); }); })
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
            const Directions given = direction_vectors(directions);
            alone(self, [&] { self.update_weights(given, learning_rates); });
          },
          py::arg("directions"), py::arg("learning_rates"))
      .def(
          "update_seeds",
          [](Optimizer& self, bool keep_leader) {
            alone(self, [&] { self.update_seeds(keep_leader); });
          },
          py::arg("keep_leader"))
      .def(
          "update_lr_scales",
          [](Optimizer& self, const std::vector<Array<float>>& directions) {
            Directions given = direction_vectors(directions);
            alone(self, [&] { self.update_lr_scales(std::move(given)); });
          },
          py::arg("directions"))
      .def("start_search", &start_search, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def(
          "end_search",
          [](Optimizer& self, const std::vector<float>& learning_rates) {
            alone(self, [&] { self.end_search(learning_rates); });
          },
          py::arg("learning_rates"))
      .def("cancel_search", [](Optimizer& self) { alone(self, [&] { self.cancel_search(); }); })
      .def(
          "best_rates",
          [](Optimizer& self, const Array<float>& loss) {
            const std::vector<float> losses = to_vector(loss);
            return alone(self, [&] { return self.best_rates(losses); });
          },
          py::arg("loss"))
      .def("step", &step, py::arg("loss"), py::arg("paths"), py::arg("mode"))
      .def("train_step", &train_step, py::arg("x"), py::arg("labels"), py::arg("ignore_index"),
           py::arg("mode"));
  bind_shares(optimizer);
  bind_optimizer_state(optimizer);
}

}  // namespace marketplace::bindings
