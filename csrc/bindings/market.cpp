// Engine, VendorWeights, Plan and Market for Python.
#include "market/market.h"

#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "devices.h"
#include "market/plan.h"

namespace marketplace::bindings {
namespace {

using Weights = std::vector<VendorWeights>;

std::shared_ptr<const Vector> shared_values(const Array<float>& values) {
  return std::make_shared<const Vector>(to_vector(values));
}

VendorWeights seeded(const Array<std::uint64_t>& seeds, float amplitude, bool antithetic) {
  if (seeds.ndim() != 1 || seeds.size() < 1)
    fail("vendors", "seeds (V,)", py::str(seeds.attr("shape")).cast<std::string>());
  return {
      VendorWeights::Kind::seeded, seeds.size(), to_vector(seeds), amplitude, {}, {}, antithetic};
}

VendorWeights scaled(const Array<float>& direction, const Array<float>& scales) {
  if (direction.ndim() != 1 || scales.ndim() != 1 || scales.size() < 1)
    fail("vendors", "direction (n,) and scales (V,)",
         py::str(direction.attr("shape")).cast<std::string>() + " and " +
             py::str(scales.attr("shape")).cast<std::string>());
  return {VendorWeights::Kind::scaled, scales.size(), {}, 0, to_vector(scales),
          shared_values(direction),    false};
}

VendorWeights explicit_values(const Array<float>& values) {
  if (values.ndim() != 2 || values.shape(0) < 1)
    fail("vendors", "values (V, n)", py::str(values.attr("shape")).cast<std::string>());
  return {VendorWeights::Kind::explicit_, values.shape(0), {}, 0, {}, shared_values(values), false};
}

std::string kind_name(const VendorWeights& weights) {
  switch (weights.kind) {
    case VendorWeights::Kind::base: return "base";
    case VendorWeights::Kind::seeded: return "seeded";
    case VendorWeights::Kind::scaled: return "scaled";
    case VendorWeights::Kind::explicit_: return "explicit";
  }
  return "?";
}

void bind_weights(py::module_& module) {
  py::class_<VendorWeights>(module, "VendorWeights")
      .def_static(
          "base",
          [](std::int64_t count) {
            if (count < 1) fail("vendors", "vendor_count of at least 1", std::to_string(count));
            VendorWeights weights;
            weights.count = count;
            return weights;
          },
          py::arg("count"))
      .def_static("seeded", &seeded, py::arg("seeds"), py::arg("amplitude"),
                  py::arg("antithetic") = false)
      .def_static("scaled", &scaled, py::arg("direction"), py::arg("scales"))
      .def_static("explicit", &explicit_values, py::arg("values"))
      .def_property_readonly("count", [](const VendorWeights& self) { return self.count; })
      .def_property_readonly("kind", &kind_name);
}

BoundPlan bind_tree(const std::vector<std::int64_t>& counts,
                    const std::vector<std::optional<Array<std::int32_t>>>& sampled) {
  std::vector<std::vector<std::int32_t>> rows(counts.size());
  if (sampled.size() > counts.size())
    fail("plan", std::to_string(counts.size()) + " specs", std::to_string(sampled.size()));
  for (std::size_t i = 0; i < sampled.size(); ++i) {
    if (!sampled[i]) continue;
    if (sampled[i]->ndim() != 2 || sampled[i]->shape(0) != counts[i] || sampled[i]->size() < 1)
      fail("plan", "sampled upstreams (" + std::to_string(counts[i]) + ", k)",
           py::str(sampled[i]->attr("shape")).cast<std::string>());
    rows[i] = to_vector(*sampled[i]);
  }
  return {tree_plan(counts, rows), false};
}

void bind_plan(py::module_& module) {
  py::class_<BoundPlan>(module, "Plan")
      .def_static("tree", &bind_tree, py::arg("vendor_counts"), py::arg("sampled"))
      .def_static(
          "star",
          [](const std::vector<std::int64_t>& counts) {
            return BoundPlan{star_plan(counts), false};
          },
          py::arg("vendor_counts"))
      .def_static(
          "rows",
          [](const Array<std::int32_t>& vendors, const Array<std::int32_t>& inputs) {
            return BoundPlan{row_plan(to_vector(vendors), to_vector(inputs)), true};
          },
          py::arg("vendors"), py::arg("inputs"))
      .def_property_readonly("path_count",
                             [](const BoundPlan& self) { return self.plan.path_count(); })
      .def_property_readonly("paths", [](const BoundPlan& self) {
        return to_array(plan_paths(self.plan), {self.plan.path_count(),
                                                static_cast<py::ssize_t>(self.plan.levels.size())});
      });
}

py::object market_forward(Market& self, const BoundPlan& plan, const Weights& weights,
                          const py::object& x, bool on_device, bool waits) {
  const Batch batch = borrow_batch(x, plan.stacked, plan.plan.input_count);
  auto [out, output] =
      make_output(self.backend(), {on_device, waits}, {plan.plan.path_count(), batch.size},
                  self.output_shape(batch.sample_shape));
  {
    const py::gil_scoped_release release;
    self.forward(plan.plan, weights, batch, output);
  }
  return out;
}

Array<float> market_losses(Market& self, const BoundPlan& plan, const Weights& weights,
                           const py::object& x, const AnyLabels& labels,
                           std::optional<std::int32_t> ignore_index) {
  const Batch batch = borrow_batch(x, plan.stacked, plan.plan.input_count);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  Array<float> out(plan.plan.path_count());
  float* data = out.mutable_data();
  const py::gil_scoped_release release;
  self.losses(plan.plan, weights, batch, borrowed, data);
  return out;
}

py::object market_infer(Market& self, const py::object& x, bool on_device, bool waits) {
  const Batch batch = borrow_batch(x, false, 1);
  auto [out, output] = make_output(self.backend(), {on_device, waits}, {batch.size},
                                   self.output_shape(batch.sample_shape));
  {
    const py::gil_scoped_release release;
    self.infer(batch, output);
  }
  return out;
}

Array<float> market_forward_paths(Market& self, const Weights& weights, const py::object& x,
                                  const Array<std::int32_t>& paths) {
  const Batch batch = borrow_batch(x, false, 1);
  const auto depth = static_cast<py::ssize_t>(self.models().size());
  if (paths.ndim() != 2 || paths.shape(0) != batch.size || paths.shape(1) != depth)
    fail("forward_with_paths",
         "paths (" + std::to_string(batch.size) + ", " + std::to_string(depth) + ")",
         py::str(paths.attr("shape")).cast<std::string>());
  Array<float> out = output_array({batch.size}, self.output_shape(batch.sample_shape));
  float* data = out.mutable_data();
  const std::int32_t* indices = paths.data();
  const py::gil_scoped_release release;
  self.forward_paths(weights, batch, indices, {data, nullptr, nullptr});
  return out;
}

Array<float> combine(Market& self, std::size_t spec, const VendorWeights& weights,
                     const Array<float>& coefficients) {
  if (coefficients.ndim() != 1)
    fail("combine", std::to_string(weights.count) + " coefficients",
         py::str(coefficients.attr("shape")).cast<std::string>());
  const std::vector<double> values(coefficients.data(), coefficients.data() + coefficients.size());
  Vector out;
  {
    const py::gil_scoped_release release;
    out = self.combine(spec, weights, values);
    static_cast<void>(std::as_const(out).data());
  }
  return to_array(out);
}

Array<float> market_delta(Market& self, std::size_t spec, const VendorWeights& weights) {
  const Model& model = self.model(spec);
  Array<float> out({weights.count, model.parameter_count()});
  float* to = out.mutable_data();
  {
    const py::gil_scoped_release release;
    for (std::int64_t v = 0; v < weights.count; ++v) {
      const Vector delta = self.delta(spec, weights, v);
      std::copy_n(delta.data(), delta.size(), to + v * delta.size());
    }
  }
  return out;
}

py::tuple node_gradients(Market& self, const std::vector<std::int64_t>& counts,
                         const std::vector<Array<std::uint64_t>>& seeds, float scale,
                         const py::object& x, const Array<std::int32_t>& labels,
                         std::optional<std::int32_t> ignore_index) {
  const Batch batch = borrow_batch(x, false, 1);
  const Labels borrowed = borrow_labels(labels, batch.size, ignore_index);
  NodeProbe probe;
  probe.scale = scale;
  for (const auto& spec : seeds) probe.seeds.push_back(to_vector(spec));
  Directions gradients;
  for (const auto& model : self.models()) gradients.emplace_back(model->parameter_count());
  double loss = 0;
  {
    const py::gil_scoped_release release;
    loss = self.node_gradients(counts, probe, batch, borrowed, false, gradients);
  }
  py::list out;
  for (const auto& values : gradients) out.append(to_array(values));
  return py::make_tuple(loss, out);
}

void bind_engine(py::module_& module) {
  py::class_<Backend, std::shared_ptr<Backend>>(module, "Engine")
      .def(py::init([](const std::variant<std::string, std::vector<std::string>>& device,
                       const std::string& dtype, int threads, std::int64_t max_memory_bytes) {
             return std::visit(
                 [&](const auto& names) {
                   return make_backend(names, dtype, threads, max_memory_bytes);
                 },
                 device);
           }),
           py::arg("device") = "auto", py::arg("dtype") = "float32", py::arg("threads") = 0,
           py::arg("max_memory_bytes") = 0)
      .def_property_readonly("device", &Backend::device)
      .def_property_readonly("dtype", [](const Backend& self) { return to_string(self.dtype()); })
      .def_property_readonly("threads", &Backend::threads)
      .def_property_readonly("exchange", &Backend::exchange)
      .def("measure_peak", &Backend::measure_peak, py::arg("seconds"),
           py::call_guard<py::gil_scoped_release>())
      .def("measure_random", &Backend::measure_random, py::arg("seconds"),
           py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_market(py::module_& module) {
  bind_engine(module);
  bind_weights(module);
  bind_plan(module);
  py::class_<Market, std::shared_ptr<Market>>(module, "Market")
      .def(py::init<std::shared_ptr<Backend>, std::vector<std::shared_ptr<Model>>>(),
           py::arg("engine"), py::arg("models"))
      .def_property_readonly("engine",
                             [](Market& self) { return self.backend().shared_from_this(); })
      .def(
          "output_shape",
          [](const Market& self, const Shape& input) {
            return py::tuple(py::cast(self.output_shape(input)));
          },
          py::arg("input_shape"))
      .def(
          "flops",
          [](const Market& self, const BoundPlan& plan, const Shape& input) {
            return self.flops(plan.plan, input);
          },
          py::arg("plan"), py::arg("input_shape"))
      .def("forward", &market_forward, py::arg("plan"), py::arg("weights"), py::arg("x"),
           py::arg("on_device") = false, py::arg("waits") = true)
      .def("losses", &market_losses, py::arg("plan"), py::arg("weights"), py::arg("x"),
           py::arg("labels"), py::arg("ignore_index"))
      .def("node_gradients", &node_gradients, py::arg("counts"), py::arg("seeds"), py::arg("scale"),
           py::arg("x"), py::arg("labels"), py::arg("ignore_index"))
      .def("node_flops", &Market::node_flops, py::arg("counts"), py::arg("input_shape"))
      .def("infer", &market_infer, py::arg("x"), py::arg("on_device") = false,
           py::arg("waits") = true)
      .def("forward_paths", &market_forward_paths, py::arg("weights"), py::arg("x"),
           py::arg("paths"))
      .def("apply_vendor", &Market::apply_vendor, py::arg("spec"), py::arg("weights"),
           py::arg("vendor"), py::call_guard<py::gil_scoped_release>())
      .def("combine", &combine, py::arg("spec"), py::arg("weights"), py::arg("coefficients"))
      .def("delta", &market_delta, py::arg("spec"), py::arg("weights"));
}

}  // namespace marketplace::bindings
