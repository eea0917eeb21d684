// The Python module: errors, build facts, random numbers. Graphs, markets and the optimizer bind
// themselves in files of their own.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/threefry.h"
#include "devices.h"
#include "market/cross_entropy.h"
#include "market/seeds.h"
#include "market/topk.h"

namespace marketplace::bindings {
namespace {

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const Error& error) {
    switch (error.kind()) {
      case ErrorKind::value: py::set_error(PyExc_ValueError, error.what()); return;
      case ErrorKind::type: py::set_error(PyExc_TypeError, error.what()); return;
      case ErrorKind::runtime: py::set_error(PyExc_RuntimeError, error.what()); return;
      case ErrorKind::memory: py::set_error(PyExc_MemoryError, error.what()); return;
    }
  } catch (const std::bad_alloc&) {
    py::set_error(PyExc_MemoryError, "marketplace: expected memory for this call, received none");
  }
}

void check_count(std::int64_t count) {
  if (count < 0) fail("rand", "a count of at least 0", std::to_string(count));
}

Array<float> rand_float32(std::uint64_t seed, std::uint32_t counter, std::int64_t count) {
  check_count(count);
  const std::vector<std::uint32_t> words = tensor_words(seed, counter, count);
  Array<float> out(count);
  for (std::int64_t i = 0; i < count; ++i) out.mutable_data()[i] = word_to_float(words[i]);
  return out;
}

// Two numbers a word, the low half first; the bits stay bits, NumPy reads them as float16.
py::object rand_float16(std::uint64_t seed, std::uint32_t counter, std::int64_t count) {
  check_count(count);
  const std::vector<std::uint32_t> words = tensor_words(seed, counter, (count + 1) / 2);
  Array<std::uint16_t> bits(count);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t half = (words[i / 2] >> (i % 2 * 16)) & 0xFFFFu;
    bits.mutable_data()[i] = static_cast<std::uint16_t>((half >> 6) | 0x3C00u);
  }
  const py::object numbers = bits.attr("view")("float16");
  return numbers.attr("__sub__")(py::module_::import("numpy").attr("float16")(1.0));
}

// The kinds of GPU: where the plugin is and why it cannot be used, None when there is nothing to
// tell; and the devices that it cannot run on, each with the reason.
py::dict plugins() {
  py::dict kinds;
  for (const PluginReport& report : plugin_reports()) {
    py::dict entry;
    entry["path"] = report.path.empty() ? py::object(py::none()) : py::str(report.path);
    entry["problem"] = report.problem.empty() ? py::object(py::none()) : py::str(report.problem);
    py::dict unusable;
    for (const auto& [name, reason] : report.unusable) unusable[py::str(name)] = reason;
    entry["unusable"] = unusable;
    kinds[py::str(report.kind)] = entry;
  }
  return kinds;
}

py::dict build_info() {
  py::dict info;
  info["version"] = MARKETPLACE_VERSION;
  info["backends"] = compiled_backends();
  info["plugins"] = plugins();
  info["isas"] = compiled_isas();
  info["isa"] = active_isa();
  info["compiler"] = MARKETPLACE_COMPILER;
  return info;
}

py::list devices() {
  py::list list;
  for (const DeviceInfo& device : usable_devices()) {
    py::dict entry;
    entry["name"] = device.name;
    entry["kind"] = device.kind;
    entry["description"] = device.description;
    entry["threads"] = device.threads;
    list.append(entry);
  }
  return list;
}

py::tuple topk_rows(const Array<double>& values, std::int64_t k, bool largest) {
  if (values.ndim() != 2)
    fail("topk", "rows (R, N)", std::to_string(values.ndim()) + " dimensions");
  const py::ssize_t rows = values.shape(0), n = values.shape(1);
  if (k < 1 || k > n) fail("topk", "k from 1 to " + std::to_string(n), std::to_string(k));
  Array<double> best({rows, static_cast<py::ssize_t>(k)});
  Array<std::int64_t> indices({rows, static_cast<py::ssize_t>(k)});
  for (py::ssize_t r = 0; r < rows; ++r) {
    const std::vector<std::int64_t> order = topk(values.data() + r * n, n, k, largest);
    for (std::int64_t i = 0; i < k; ++i) {
      best.mutable_at(r, i) = values.at(r, order[i]);
      indices.mutable_at(r, i) = order[i];
    }
  }
  return py::make_tuple(best, indices);
}

Array<float> cross_entropy_rows(const Array<float>& logits, const Array<std::int32_t>& labels,
                                std::optional<std::int32_t> ignore_index) {
  if (logits.ndim() != 2 || labels.ndim() != 1 || labels.shape(0) != logits.shape(0) ||
      logits.shape(1) < 1)
    fail("cross_entropy", "logits (N, C) and labels (N,)",
         py::str(logits.attr("shape")).cast<std::string>() + " and " +
             py::str(labels.attr("shape")).cast<std::string>());
  Array<float> losses(logits.shape(0));
  cross_entropy(logits.data(), logits.shape(0), logits.shape(1), {labels.data(), ignore_index},
                losses.mutable_data());
  return losses;
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled engine of marketplace.";
  module.attr("__version__") = MARKETPLACE_VERSION;
  py::register_exception_translator(&translate);
  module.def("build_info", &build_info);
  module.def("devices", &devices);
  module.def("rand_float32", &rand_float32, py::arg("seed"), py::arg("counter"), py::arg("count"));
  module.def("rand_float16", &rand_float16, py::arg("seed"), py::arg("counter"), py::arg("count"));
  module.def(
      "derive_seeds",
      [](std::uint64_t master, std::uint64_t generation, int spec, std::int64_t count,
         bool keep_leader, std::uint64_t replica, bool antithetic) {
        auto seeds = derive_seeds(master, generation, spec, count, keep_leader, replica);
        if (antithetic) pair_seeds(seeds);
        return to_array(seeds);
      },
      py::arg("master"), py::arg("generation"), py::arg("spec"), py::arg("count"),
      py::arg("keep_leader"), py::arg("replica") = 0, py::arg("antithetic") = false);
  module.def(
      "sample_upstream",
      [](std::uint64_t master, std::uint64_t generation, int spec, std::int64_t vendor_count,
         std::int64_t upstream_count, std::int64_t sample, std::uint64_t replica) {
        return to_array(sample_upstream(master, generation, spec, vendor_count, upstream_count,
                                        sample, replica),
                        {static_cast<py::ssize_t>(vendor_count), static_cast<py::ssize_t>(sample)});
      },
      py::arg("master"), py::arg("generation"), py::arg("spec"), py::arg("vendor_count"),
      py::arg("upstream_count"), py::arg("sample"), py::arg("replica") = 0);
  module.def("topk", &topk_rows, py::arg("values"), py::arg("k"), py::arg("largest"));
  module.def("cross_entropy", &cross_entropy_rows, py::arg("logits"), py::arg("labels"),
             py::arg("ignore_index"));
  bind_graph(module);
  bind_device_tensor(module);
  bind_market(module);
  bind_optimizer(module);
}

}  // namespace marketplace::bindings
